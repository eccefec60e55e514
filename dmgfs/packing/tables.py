"""Which block tables a UDIF has: one for each partition, for each part of the partition map, and for each gap, named and
numbered as Apple's tools do.

Rules that hold here:
- the tables cover the disk from its first sector to its last, in order, each sector once;
- a partition or a part of a map that overlaps what came before gets no table of its own: its sectors are in the other's.
The names were taken from real images: GPT, APM, MBR and disks without a map.
"""

from collections.abc import Iterator
from typing import NamedTuple

from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.packing.pieces import SECTOR
from dmgfs.partitions import Partition, PartitionMap, probe
from dmgfs.partitions.gpt import TYPES
from dmgfs.partitions.signatures import APFS, HFS, HFS_PLUS, HFSX
from dmgfs.partitions.structs import GPT_HEADER
from dmgfs.source import ByteSource

FREE = "Apple_Free"
DEVICE, PARTITION = 1, 2

_OF_VOLUME = {HFS_PLUS: "Apple_HFS", HFSX: "Apple_HFS", HFS: "Apple_HFS", APFS: "Apple_APFS"}
_OF_MBR_TYPE = {
    "0x04": "Windows_FAT_16",
    "0x06": "Windows_FAT_16",
    "0x0E": "Windows_FAT_16",
    "0x0B": "Windows_FAT_32",
    "0x0C": "Windows_FAT_32",
    "0x07": "Windows_NTFS",
    "0x83": "Linux",
    "0xA8": "Apple_UFS",
    "0xAB": "Apple_Boot",
    "0xAF": "Apple_HFS",
}
_GUIDS = {name: guid for guid, name in TYPES.items() if not name.startswith("Apple_")}
"""Apple names its own types in words, the others by their GUID."""


class TablePlan(NamedTuple):
    """One table to be. id, descriptor: its numbers. start, sectors: what it covers. free: it belongs to nobody, so zeros
    in it need not be kept."""

    name: str
    id: int
    descriptor: int
    start: int
    sectors: int
    free: bool


class _Claim(NamedTuple):
    """Somebody's stretch of the disk, bytes. kind: the type in the table's name."""

    start: int
    length: int
    name: str
    kind: str


def whole(disk: ByteSource) -> list[TablePlan]:
    """One table for a disk without a partition map. Raises OSError where the disk fails."""
    kind = _OF_VOLUME.get(probe(disk, 0, disk.size).kind, "unknown partition")
    return [TablePlan(f"whole disk ({kind} : 0)", 0, -2, 0, -(-disk.size // SECTOR), False)]


def of_map(disk: ByteSource, found: PartitionMap) -> list[TablePlan]:
    """The tables of a disk with this map. Raises OSError where the disk fails."""
    if found.scheme == "none":
        return whole(disk)
    claims = {"APM": _apm, "GPT": _gpt, "MBR": _mbr}[found.scheme](disk, found)
    plans = []
    # The numbers of an APM's tables begin at -1, as the driver descriptor counts as none of them.
    shift = -1 if found.scheme == "APM" else 0
    for number, claim in enumerate(_tiled(sorted(claims), disk.size)):
        name = f"{_clean(claim.name)} ({_clean(claim.kind)} : {number})"
        start, sectors = claim.start // SECTOR, -(-claim.length // SECTOR)
        plans.append(TablePlan(name, number - 1, number + shift, start, sectors, claim.kind == FREE))
    return plans


def _tiled(claims: list[_Claim], size: int) -> Iterator[_Claim]:
    """The claims that do not overlap, with the gaps between them, up to the end of the disk."""
    end = 0
    for claim in claims:
        # (the last of a disk that does not end with a sector may be odd)
        if claim.start < end or claim.length <= 0 or claim.start + claim.length > size:
            continue
        if claim.start % SECTOR or (claim.length % SECTOR and claim.start + claim.length < size):
            continue
        if claim.start > end:
            yield _Claim(end, claim.start - end, "", FREE)
        yield claim
        end = claim.start + claim.length
    if end < size:
        yield _Claim(end, size - end, "", FREE)


def _apm(disk: ByteSource, found: PartitionMap) -> list[_Claim]:
    parts = [
        _Claim(one.start, one.length, "" if one.type == FREE else one.name, one.type) for one in found.partitions
    ]
    return [_Claim(0, found.block_size, "Driver Descriptor Map", "DDM"), *parts]


def _mbr(disk: ByteSource, found: PartitionMap) -> list[_Claim]:
    parts = [
        _Claim(one.start, one.length, one.name, _OF_MBR_TYPE.get(one.type, one.type)) for one in found.partitions
    ]
    return [_Claim(0, SECTOR, "Master Boot Record", "MBR"), *parts]


def _gpt(disk: ByteSource, found: PartitionMap) -> list[_Claim]:
    block = found.block_size
    claims = [_Claim(0, block, "Protective Master Boot Record", "MBR")]
    last = (disk.size // block - 1) * block
    for which, at in (("Primary", block), ("Backup", last)):
        entries = _gpt_entries(disk, at, block)
        if entries is not None:
            claims.append(_Claim(at, block, "GPT Header", f"{which} GPT Header"))
            claims.append(_Claim(*entries, "GPT Partition Data", f"{which} GPT Table"))
    return claims + [_gpt_claim(one) for one in found.partitions]


def _gpt_claim(one: Partition) -> _Claim:
    return _Claim(one.start, one.length, one.name, _GUIDS.get(one.type, one.type))


def _gpt_entries(disk: ByteSource, header_at: int, block: int) -> tuple[int, int] | None:
    """(start, length) of the entries that the header there speaks of, None if there is no header."""
    size = GPT_HEADER.sizeof()
    if header_at < block or header_at + size > disk.size:
        return None
    try:
        header = GPT_HEADER.parse(bytes(disk.read(header_at, size)))
    except (CorruptImage, Unsupported):
        return None  # whoever copies the disk will say so
    if header.Signature != b"EFI PART":
        return None
    length = header.NumberOfPartitionEntries * header.SizeOfPartitionEntry
    return header.PartitionEntryLBA * block, -(-length // block) * block


def _clean(name: str) -> str:
    """A name that a property list can hold."""
    return "".join(char if char.isprintable() else "_" for char in name)
