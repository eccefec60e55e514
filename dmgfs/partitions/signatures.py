"""What stands on a stretch of disk, told by signatures alone.

Rules that hold here:
- nothing is believed but the bytes at the places where each file system keeps its signature;
- an HFS wrapper is resolved to the HFS+ volume inside, one level and no more (threats P7);
- damage never raises: a place that cannot be read is `UNREADABLE` and says why.
"""

from dataclasses import dataclass

from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.partitions.structs import BIOS_PARAMETER_BLOCK, MASTER_DIRECTORY_BLOCK
from dmgfs.source import ByteSource

HFS_PLUS, HFSX, HFS = "HFS+", "HFSX", "HFS"
MFS, APFS, CORE_STORAGE = "MFS", "APFS", "CoreStorage"
FAT, EXFAT, NTFS = "FAT", "exFAT", "NTFS"
ISO_9660, UDF, UFS, EXT, PRODOS = "ISO 9660", "UDF", "UFS", "ext2/3/4", "ProDOS"
WRAPPER = "damaged HFS wrapper"
ABSENT, EMPTY, UNKNOWN, UNREADABLE = "absent", "empty", "unknown", "unreadable"

_AT_1024 = {b"H+": HFS_PLUS, b"HX": HFSX, b"\xd2\xd7": MFS}
_UFS_MAGIC = (0x00011954, 0x19540119)
_EMPTY_SPAN = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """kind: one of the names above. start, length: bytes of the volume on the disk (for a wrapped volume those of the
    inner one). wrapped: it sits in an HFS wrapper. problem: why it cannot be used or how it was found, "" if plain.
    """

    kind: str
    start: int
    length: int
    wrapped: bool = False
    problem: str = ""


def probe(disk: ByteSource, start: int, length: int, *, alternate: bool = True) -> Found:
    """What stands on [start, start+length). Raises OSError where the disk fails and Cold; damage is in the answer.

    alternate: also look for the copy of an HFS+ header at the end. Not to be done on a whole disk that may have a map:
    the copy there belongs to the last partition.
    """
    if length <= 0:
        return Found(ABSENT, start, 0, problem="none of it is in the image")
    try:
        return _probe(disk, start, length, alternate)
    except (CorruptImage, Unsupported) as error:
        return Found(UNREADABLE, start, length, problem=str(error))


def _probe(disk: ByteSource, start: int, length: int, alternate: bool) -> Found:
    def at(offset: int, count: int) -> bytes:
        """Bytes of the stretch, b"" where it is too short to have them."""
        if offset < 0 or offset + count > length:
            return b""
        return bytes(disk.read(start + offset, count))

    signature = at(1024, 2)
    if signature in _AT_1024:
        return Found(_AT_1024[signature], start, length)
    if signature == b"BD":
        return _hfs(disk, start, length)
    for kind, offset, magic in (
        (APFS, 32, b"NXSB"),
        (EXFAT, 3, b"EXFAT   "),
        (NTFS, 3, b"NTFS    "),
        (CORE_STORAGE, 88, b"CS"),
        (ISO_9660, 32769, b"CD001"),
        (UDF, 32769, b"BEA01"),
        (EXT, 1080, b"\x53\xef"),
    ):
        if at(offset, len(magic)) == magic and (kind != CORE_STORAGE or at(10, 2) == b"\x10\x00"):
            return Found(kind, start, length)
    if _is_fat(at(0, 512)):
        return Found(FAT, start, length)
    if _is_ufs(at(9564, 4)) or _is_ufs(at(66908, 4)):
        return Found(UFS, start, length)
    prodos = at(1024, 37)
    if prodos[:2] == b"\0\0" and prodos[4:5] and prodos[4] >> 4 == 0xF and prodos[35:37] == b"\x27\x0d":
        return Found(PRODOS, start, length)
    copy = at(length - 1024, 2)
    if alternate and copy in (b"H+", b"HX"):
        kind = _AT_1024[copy]
        return Found(kind, start, length, problem="the volume header is destroyed, its copy at the end is there")
    head = at(0, min(length, _EMPTY_SPAN))
    if not any(head):
        return Found(EMPTY, start, length, problem=f"the first {len(head)} bytes are zeros")
    shown = f"it begins with {head[:16].hex(' ')}, and at 1024 stands {signature.hex(' ') or 'nothing'}"
    return Found(UNKNOWN, start, length, problem=shown)


def _hfs(disk: ByteSource, start: int, length: int) -> Found:
    """HFS standard, or the HFS+ volume in a wrapper (TN1150, "HFS Wrapper")."""
    size = MASTER_DIRECTORY_BLOCK.sizeof()
    if length < 1024 + size:
        return Found(UNKNOWN, start, length, problem="an HFS volume too short for its master directory block")
    block = MASTER_DIRECTORY_BLOCK.parse(bytes(disk.read(start + 1024, size)))
    if block.drEmbedSigWord != b"H+":
        return Found(HFS, start, length)
    offset = block.drAlBlSt * 512 + block.xdrStABN * block.drAlBlkSiz
    inner = block.xdrNumABlks * block.drAlBlkSiz
    if block.drAlBlkSiz == 0 or block.drAlBlkSiz % 512 or not 0 < offset < offset + 1536 <= length or inner < 1536:
        why = f"the HFS+ volume inside is said to be {inner} bytes at {offset:#x}, the wrapper has {length}"
        return Found(WRAPPER, start, length, problem=why)
    signature = bytes(disk.read(start + offset + 1024, 2))
    if signature not in (b"H+", b"HX"):
        why = f"at {offset + 1024:#x} a volume header was promised, {signature.hex(' ')} stands there"
        return Found(WRAPPER, start, length, problem=why)
    return Found(_AT_1024[signature], start + offset, min(inner, length - offset), wrapped=True)


def _is_fat(sector: bytes) -> bool:
    if sector[510:512] != b"\x55\xaa":
        return False
    if sector[54:57] == b"FAT" or sector[82:87] == b"FAT32":
        return True
    bpb = BIOS_PARAMETER_BLOCK.parse(sector)
    clusters = int(bpb.BPB_SecPerClus)
    return (
        bpb.BS_jmpBoot[0] in (0xEB, 0xE9)
        and bpb.BPB_BytsPerSec in (512, 1024, 2048, 4096)
        and clusters > 0
        and clusters & (clusters - 1) == 0
        and bpb.BPB_RsvdSecCnt > 0
        and bpb.BPB_NumFATs in (1, 2)
        and bpb.BPB_Media >= 0xF0
    )


def _is_ufs(magic: bytes) -> bool:
    return int.from_bytes(magic, "big") in _UFS_MAGIC or int.from_bytes(magic, "little") in _UFS_MAGIC
