"""Where Linux keeps the two forks of a Mac file: both in one file (MacBinary, AppleSingle), or the resource fork beside
it (AppleDouble `._NAME`, `.AppleDouble/NAME`), in `NAME/..namedfork/rsrc` or in an extended attribute. Old disk images
need it: NDIF has its block table in the resource fork.

Rules that hold here: neither is trusted; lengths are checked against the file; a resource fork has at most 32 MiB; a file
beside the image is read only if it is a regular file, and its name is made of the image's own.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from construct import Array, Bytes, Const, Int16ub, Int32ub, Struct, this

from dmgfs.errors import NotAnImage
from dmgfs.source import ByteSource, FileSource, SliceSource

MOST_FORK = 32 << 20
_ATTRIBUTE = "user.com.apple.ResourceFork"
_SINGLE, _DOUBLE = 0x00051600, 0x00051607
_DATA_FORK, _RESOURCE_FORK = 1, 2
_MOST_ENTRIES = 64

MacBinary = Struct(
    "oldVersion" / Const(b"\0"),
    "nameLength" / Bytes(1),
    "name" / Bytes(63),
    "type" / Bytes(4),
    "creator" / Bytes(4),
    "finderFlags" / Bytes(1),
    "zero1" / Bytes(1),
    "position" / Bytes(6),
    "protected" / Bytes(1),
    "zero2" / Bytes(1),
    "dataLength" / Int32ub,
    "resourceLength" / Int32ub,
    "dates" / Bytes(8),
    "commentLength" / Int16ub,
    "finderFlags2" / Bytes(1),
    "signature" / Bytes(4),
    "script" / Bytes(2),
    "reserved" / Bytes(8),
    "unpackedLength" / Int32ub,
    "secondaryHeaderLength" / Int16ub,
    "version" / Bytes(2),
    "crc" / Int16ub,
    "reserved2" / Bytes(2),
)
AppleDouble = Struct(
    "magic" / Int32ub,
    "version" / Int32ub,
    "filler" / Bytes(16),
    "count" / Int16ub,
    "entries" / Array(this.count, Struct("id" / Int32ub, "offset" / Int32ub, "length" / Int32ub)),
)
_HEADER = 26  # of AppleDouble, then 12 bytes for each entry


@dataclass(frozen=True, slots=True)
class Forks:
    """The forks of a Mac file. data: as it reads. resource: whole, empty if there is none. where: for `info`. path: the
    file beside the image that holds the resource fork, None if it is no other file."""

    data: ByteSource
    resource: bytes
    where: str
    path: Path | None = None


def find_forks(source: ByteSource, path: Path | None) -> Forks | None:
    """The forks of the file `source`, whose path (None: unknown) says where to look beside it. None: it has no resource
    fork. Raises OSError."""
    return _of_macbinary(source) or _of_applesingle(source) or (_beside(source, path) if path else None)


def _of_macbinary(source: ByteSource) -> Forks | None:
    size = MacBinary.sizeof()
    if source.size < size:
        return None
    head = bytes(source.read(0, size))
    if head[0] or not 1 <= head[1] <= 63 or head[74] or head[82]:
        return None
    header = MacBinary.parse(head)
    start = size + -(-header.secondaryHeaderLength // 128) * 128
    resource_at = start + -(-header.dataLength // 128) * 128
    if not 0 < header.resourceLength <= MOST_FORK or resource_at + header.resourceLength > source.size:
        return None
    # Version 2 and 3 carry a CRC. Version 1 has nothing but zeros there, and is believed only if its lengths fill the file.
    filled = resource_at + -(-header.resourceLength // 128) * 128 + 128 > source.size and not any(head[99:126])
    if header.crc != _crc16(head[:124]) and not filled:
        return None
    data = SliceSource(source, start, header.dataLength)
    return Forks(data, bytes(source.read(resource_at, header.resourceLength)), "MacBinary")


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM, which MacBinary II uses."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _entries(source: ByteSource, magic: int) -> dict[int, tuple[int, int]] | None:
    """Entry id → (offset, length) of an AppleSingle or AppleDouble file; None if it is none, or damaged."""
    if source.size < _HEADER:
        return None
    head = bytes(source.read(0, _HEADER))
    count = int.from_bytes(head[24:26], "big")
    if int.from_bytes(head[:4], "big") != magic or count > _MOST_ENTRIES or _HEADER + 12 * count > source.size:
        return None
    parsed = AppleDouble.parse(bytes(source.read(0, _HEADER + 12 * count)))
    entries = {entry.id: (entry.offset, entry.length) for entry in parsed.entries}
    return entries if all(offset + length <= source.size for offset, length in entries.values()) else None


def _resource_of(source: ByteSource, entries: dict[int, tuple[int, int]] | None) -> bytes:
    offset, length = (entries or {}).get(_RESOURCE_FORK, (0, 0))
    return bytes(source.read(offset, length)) if length <= MOST_FORK else b""


def _of_applesingle(source: ByteSource) -> Forks | None:
    entries = _entries(source, _SINGLE)
    resource = _resource_of(source, entries)
    if entries is None or not resource:
        return None
    return Forks(SliceSource(source, *entries.get(_DATA_FORK, (0, 0))), resource, "AppleSingle")


def _beside(source: ByteSource, path: Path) -> Forks | None:
    for candidate in (path.with_name("._" + path.name), path.parent / ".AppleDouble" / path.name):
        for file in _opened(candidate):
            resource = _resource_of(file, _entries(file, _DOUBLE))
            if resource:
                return Forks(source, resource, "AppleDouble", candidate)
    for file in _opened(path / "..namedfork" / "rsrc"):
        if 0 < file.size <= MOST_FORK:
            return Forks(source, bytes(file.read(0, file.size)), "named fork")
    resource = _attribute(path)
    return Forks(source, resource, "extended attribute") if resource else None


def _opened(path: Path) -> Iterator[FileSource]:
    """The file, if it is there and a regular one; closed afterwards."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        file = FileSource(path, follow=False)
    except (OSError, NotAnImage):
        return
    try:
        yield file
    finally:
        file.close()


def _attribute(path: Path) -> bytes:
    try:
        return os.getxattr(path, _ATTRIBUTE)
    except OSError:
        return b""
