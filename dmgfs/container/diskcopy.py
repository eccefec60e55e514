"""DiskCopy 4.2, the floppy image of System 6 and 7: a header of 84 bytes, the sectors, then 12 tag bytes for each sector
(kept apart, unused since HFS). The disk is a window of the file.

Rule that holds here: the format has a weak mark (0x0100), so it is believed only if name, lengths and file size agree.
"""

from pathlib import Path

from construct import Bytes, Const, Int8ub, Int32ub, Struct

from dmgfs.container import Container
from dmgfs.source import ByteSource, SliceSource

HEADER_SIZE = 84
SECTOR = 512

Header = Struct(
    "nameLength" / Int8ub,
    "name" / Bytes(63),
    "dataSize" / Int32ub,
    "tagSize" / Int32ub,
    "dataChecksum" / Int32ub,
    "tagChecksum" / Int32ub,
    "encoding" / Int8ub,
    "format" / Int8ub,
    "private" / Const(b"\x01\x00"),
)
assert Header.sizeof() == HEADER_SIZE


def recognise(source: ByteSource) -> bool:
    """Whether the file is a DiskCopy 4.2 image: its mark, a possible name, and lengths that fill the file."""
    if source.size <= HEADER_SIZE:
        return False
    head = bytes(source.read(0, HEADER_SIZE))
    if head[82:84] != b"\x01\x00" or not 1 <= head[0] <= 63:
        return False
    header = Header.parse(head)
    sectors, rest = divmod(header.dataSize, SECTOR)
    whole = HEADER_SIZE + header.dataSize + header.tagSize
    return sectors > 0 and rest == 0 and header.tagSize in (0, 12 * sectors) and whole <= source.size < whole + SECTOR


def open_diskcopy(source: ByteSource, path: Path | None) -> Container:
    """The floppy inside a file that `recognise` accepted."""
    header = Header.parse(bytes(source.read(0, HEADER_SIZE)))
    disk = SliceSource(source, HEADER_SIZE, header.dataSize)
    details = {
        "size": disk.size,
        "name": header.name[: header.nameLength].decode("mac_roman"),
        "tag_bytes": header.tagSize,
        "warnings": [],
    }
    return Container("DiskCopy 4.2", disk, details, [path] if path else [])
