"""Master boot record: four primary entries, and the chain of extended boot records behind an extended one.

Rules that hold here:
- a sector counts as MBR only if all four entries are plausible: boot sectors of volumes end in 55AA as well;
- the extended chain is followed for at most 64 links, strictly forwards and inside the extended partition (threats P6).
"""

from typing import Any

from dmgfs.partitions.partition import Partition, PartitionMap, clamped
from dmgfs.partitions.structs import MBR_ENTRY
from dmgfs.source import ByteSource

SECTOR = 512
EXTENDED = (0x05, 0x0F, 0x85)
MOST_LINKS = 64


def read_mbr(disk: ByteSource) -> PartitionMap | None:
    """The table, None if the disk has none that is plausible. Raises what `disk.read` raises."""
    entries = _entries(disk, 0)
    if entries is None or not all(_plausible(entry) for entry in entries):
        return None
    used = [(index, entry) for index, entry in enumerate(entries, 1) if _in_use(entry)]
    if not used:
        return None
    warnings: list[str] = []
    partitions: list[Partition] = []
    logical: list[tuple[int, int, int]] = []
    for index, entry in used:
        if entry.OSType in EXTENDED:
            logical += _chain(disk, int(entry.StartingLBA), int(entry.SizeInLBA), warnings)
        else:
            partitions.append(_partition(disk, index, entry.OSType, entry.StartingLBA, entry.SizeInLBA))
    partitions += [_partition(disk, index, *where) for index, where in enumerate(logical, 5)]
    return PartitionMap("MBR", SECTOR, partitions, warnings)


def _partition(disk: ByteSource, index: int, type_: int, first: int, sectors: int) -> Partition:
    return clamped(index, "MBR", f"{type_:#04X}".replace("X", "x"), "", first * SECTOR, sectors * SECTOR, disk.size)


def _entries(disk: ByteSource, offset: int) -> list[Any] | None:
    if offset + SECTOR > disk.size:
        return None
    sector = bytes(disk.read(offset, SECTOR))
    if sector[510:512] != b"\x55\xaa":
        return None
    return [MBR_ENTRY.parse(sector[at : at + 16]) for at in range(446, 510, 16)]


def _plausible(entry: Any) -> bool:
    return entry.BootIndicator in (0x00, 0x80) and (not _in_use(entry) or entry.StartingLBA > 0)


def _in_use(entry: Any) -> bool:
    return bool(entry.OSType != 0 and entry.SizeInLBA > 0)


def _chain(disk: ByteSource, base: int, sectors: int, warnings: list[str]) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the logical partitions of the extended partition at sector `base`."""
    found: list[tuple[int, int, int]] = []
    here = base
    for _ in range(MOST_LINKS):
        entries = _entries(disk, here * SECTOR)
        if entries is None:
            warnings.append(f"the extended boot record at sector {here} is missing; the chain ends there")
            return found
        if _in_use(entries[0]) and entries[0].OSType not in EXTENDED:
            found.append((int(entries[0].OSType), here + int(entries[0].StartingLBA), int(entries[0].SizeInLBA)))
        if not _in_use(entries[1]) or entries[1].OSType not in EXTENDED:
            return found
        following = base + int(entries[1].StartingLBA)
        if not here < following < base + sectors:
            warnings.append(f"the extended boot record at sector {here} leads back or outside; the chain ends there")
            return found
        here = following
    warnings.append(f"the chain of extended boot records is longer than {MOST_LINKS}; the rest is not read")
    return found
