"""Builds sparse images (`sprs`) and sparse bundles from a plain disk, with every field open to damage."""

import plistlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from builders.encrypted import Keys

SECTOR = 512
NODE = 4096


def bands_of(disk: bytes, band: int) -> list[bytes]:
    return [disk[start : start + band] for start in range(0, len(disk), band)]


def sparse_image(
    disk: bytes,
    *,
    sectors_per_band: int = 2,
    order: Sequence[int] | None = None,
    cut_last: bool = False,
    **fields: int,
) -> bytes:
    """order: which bands are stored, and in which order (default: those with data, last first). cut_last: the file ends
    with the last band's data, not with its room."""
    size = sectors_per_band * SECTOR
    bands = bands_of(disk, size)
    if order is None:
        order = [number for number in reversed(range(len(bands))) if any(bands[number])]
    sectors = -(-len(disk) // SECTOR)
    groups = [list(order[:1008])] + [list(order[at : at + 1010]) for at in range(1008, len(order), 1010)]
    out = bytearray()
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        following = 0 if last else len(out) + NODE + len(group) * size
        ids = struct.pack(f">{len(group)}I", *(fields.get(f"id{index}", index + 1) for index in group))
        if number == 0:
            head = struct.pack(
                ">4sIIIIQQ28x",
                fields.get("magic", b"sprs"),
                fields.get("version", 3),
                fields.get("sectors_per_band", sectors_per_band),
                1,
                fields.get("sectors_low", sectors & 0xFFFFFFFF),
                fields.get("next", following),
                fields.get("sectors", sectors),
            )
        else:
            head = struct.pack(
                ">4sIIQ36x", fields.get("node_magic", b"sprs"), number, 0, fields.get("node_next", following)
            )
        out += (head + ids).ljust(NODE, b"\0")
        for position, index in enumerate(group):
            final = cut_last and last and position == len(group) - 1
            out += bands[index].rstrip(b"\0") if final else bands[index].ljust(size, b"\0")
    return bytes(out)


def info_plist(size: int, band: int, /, **keys: object) -> bytes:
    info = {
        "CFBundleInfoDictionaryVersion": "6.0",
        "band-size": band,
        "bundle-backingstore-version": 1,
        "diskimage-bundle-type": "com.apple.diskimage.sparsebundle",
        "size": size,
    }
    info.update({key.replace("_", "-"): value for key, value in keys.items()})
    return plistlib.dumps(info)


def write_bundle(
    folder: Path,
    disk: bytes,
    *,
    band: int = 8192,
    keys: Keys | None = None,
    token: bytes = b"",
    store: Callable[[int, bytes], bytes | None] | None = None,
    **plist: object,
) -> Path:
    """keys: bands are encrypted with them. store(number, plain band) gives what is written, None: no file (default: bands
    of zeros have none)."""
    (folder / "bands").mkdir(parents=True)
    (folder / "Info.plist").write_bytes(info_plist(len(disk), band, **plist))
    (folder / "Info.bckup").write_bytes(info_plist(len(disk), band, **plist))
    (folder / "token").write_bytes(token)
    for number, data in enumerate(bands_of(disk, band)):
        stored = store(number, data) if store else (data if any(data) else None)
        if stored is not None:
            (folder / "bands" / f"{number:x}").write_bytes(keys.encrypt(stored, pad_last=False) if keys else stored)
    return folder
