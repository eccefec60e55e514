"""The first two slots of a shadow file: what it is, which image it belongs to, where its log begins.

    0    16  magic "dmgfs shadow 2\\n\\0"        the 2 is the version of the whole format
    16    4  size of a slot (4096)
    20    4  length of the base
    24    8  generation: the greater one of the two counts
    32    8  log id: number that all records of the log are sealed with
    40    8  slot where the log begins
    48    4  slots of its first segment
    52       base: JSON object, what identifies the image
    4092  4  CRC-32 of the 4092 bytes before

Little-endian. This is dmgfs's own format and not Apple's. Version 1 has fewer kinds of items and is the same otherwise; it
is read, and becomes version 2 when it is opened for writing.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from overlay.errors import LAYERS, NotAShadow, ShadowBase
from overlay.pages import PAGE
from overlay.vfs import FIRST_NEW_INODE, LAYER_INODES

VERSION = 2
MAGIC = b"dmgfs shadow 2\n\0"
_FAMILY = b"dmgfs shadow "
_VERSIONS = {_FAMILY + b"1\n\0": 1, MAGIC: VERSION}
_HEAD = struct.Struct("<16sIIQQQI")
_CRC = struct.Struct("<I")
BASE_MAX = PAGE - _HEAD.size - _CRC.size

Base = Mapping[str, str | int | None]
"""What identifies the image under a shadow; compared as a whole, named key by key when it differs."""

# Its key LAYERS holds the fingerprints (`overlay.fingerprint`) of the shadows between the image and this one, lowest first,
# with spaces between. There is no such key where there are none.


def layers_of(base: Base) -> list[str]:
    """The fingerprints of the shadows that lie below."""
    return str(base.get(LAYERS) or "").split()


def over(base: Base, fingerprint: str) -> Base:
    """What identifies the place above a shadow that belongs over `base`."""
    return {**base, LAYERS: " ".join([*layers_of(base), fingerprint])}


def first_ino(base: Base) -> int:
    """Where the numbers of new objects begin in a shadow over `base`."""
    return FIRST_NEW_INODE + len(layers_of(base)) * LAYER_INODES


class Superblock(NamedTuple):
    """version: as it was found; written is the newest."""

    generation: int
    log_id: int
    log_slot: int
    log_length: int
    base: Base
    version: int = VERSION


def encode_base(base: Base) -> bytes:
    """ValueError if it is too long to be kept."""
    text = json.dumps(dict(base), sort_keys=True, separators=(",", ":")).encode()
    if len(text) > BASE_MAX:
        raise ValueError(f"what identifies the image takes {len(text)} bytes, at most {BASE_MAX} can be kept")
    return text


def encode_superblock(block: Superblock) -> bytes:
    base = encode_base(block.base)
    head = _HEAD.pack(MAGIC, PAGE, len(base), block.generation, block.log_id, block.log_slot, block.log_length)
    body = (head + base).ljust(PAGE - _CRC.size, b"\0")
    return body + _CRC.pack(zlib.crc32(body))


def decode_superblock(data: bytes) -> Superblock | None:
    """None if it is torn or damaged. NotAShadow if it is nothing of ours, or of a later version."""
    if data[: len(_FAMILY)] != _FAMILY:
        return None
    version = _VERSIONS.get(data[: len(MAGIC)])
    if version is None:
        found = data[len(_FAMILY) : len(MAGIC)].strip(b"\n\0").decode("ascii", "replace")
        raise NotAShadow(f"format version {found}, this program knows 1 and {VERSION}")
    if len(data) < PAGE:
        return None
    body, (crc,) = data[: PAGE - _CRC.size], _CRC.unpack(data[PAGE - _CRC.size : PAGE])
    if zlib.crc32(body) != crc:
        return None
    _, slot_size, base_length, generation, log_id, log_slot, log_length = _HEAD.unpack_from(body)
    if slot_size != PAGE or base_length > BASE_MAX:
        return None
    try:
        base = json.loads(body[_HEAD.size : _HEAD.size + base_length])
    except ValueError:
        return None
    if not isinstance(base, dict):
        return None
    return Superblock(generation, log_id, log_slot, log_length, base, version)


def superblocks(head: bytes) -> list[tuple[int, Superblock]]:
    """Those in the first slots of a file, with their places, the newer one first. NotAShadow as above."""
    found = [(place, decode_superblock(head[place * PAGE : (place + 1) * PAGE])) for place in range(2)]
    sound = [(place, block) for place, block in found if block is not None]
    return sorted(sound, key=lambda pair: pair[1].generation, reverse=True)


def require_same(theirs: Base, ours: Base) -> None:
    """ShadowBase if a file with `theirs` belongs to another image than `ours`."""
    if theirs != ours:
        keys = [key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)]
        raise ShadowBase({key: (theirs.get(key), ours.get(key)) for key in keys})
