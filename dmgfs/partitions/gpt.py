"""GUID partition table: primary header behind the first block, backup in the last.

Rules that hold here:
- the place of the signature tells the block size (512, 1024, 2048 or 4096);
- a header whose own and whose entries' CRC-32 are right wins, primary first; if none is right, the first whose numbers are
  sane is used and a warning says so;
- at most 1024 entries of 128 to 4096 bytes are read, empty ones in between are passed over (threats P5).
"""

import uuid
import zlib
from dataclasses import dataclass
from typing import Any

from dmgfs.partitions.partition import Partition, PartitionMap, clamped
from dmgfs.partitions.structs import GPT_ENTRY, GPT_HEADER
from dmgfs.source import ByteSource

SIGNATURE = b"EFI PART"
BLOCK_SIZES = (512, 1024, 2048, 4096)
MOST_ENTRIES = 1024
ENTRY_SIZES = range(128, 4097, 8)

TYPES = {
    "48465300-0000-11AA-AA11-00306543ECAC": "Apple_HFS",
    "7C3457EF-0000-11AA-AA11-00306543ECAC": "Apple_APFS",
    "53746F72-6167-11AA-AA11-00306543ECAC": "Apple_CoreStorage",
    "426F6F74-0000-11AA-AA11-00306543ECAC": "Apple_Boot",
    "5265636F-7665-11AA-AA11-00306543ECAC": "Apple_TV_Recovery",
    "52414944-0000-11AA-AA11-00306543ECAC": "Apple_RAID",
    "52414944-5F4F-11AA-AA11-00306543ECAC": "Apple_RAID_Offline",
    "4A6F7572-6E61-11AA-AA11-00306543ECAC": "Apple_Journal",
    "4C616265-6C00-11AA-AA11-00306543ECAC": "Apple_Label",
    "55465300-0000-11AA-AA11-00306543ECAC": "Apple_UFS",
    "69646961-6700-11AA-AA11-00306543ECAC": "Apple_APFS_ISC",
    "52637672-7900-11AA-AA11-00306543ECAC": "Apple_APFS_Recovery",
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "Microsoft Basic Data",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "Linux",
}
"""GUID to the name that `diskutil list` and the block tables of a UDIF use."""


@dataclass(frozen=True)
class _Table:
    """A header that passed the sanity checks, and why it is not to be trusted fully (empty: it is)."""

    header: Any
    block_size: int
    entries: bytes
    faults: tuple[str, ...]


def read_gpt(disk: ByteSource) -> PartitionMap | None:
    """The table, None if the disk has no GPT header with sane numbers. Raises what `disk.read` raises."""
    tables: list[_Table] = []
    failures: list[str] = []
    for place, offset, block_size in _places(disk.size):
        table = _table(disk, offset, block_size, place, failures)
        if table is not None and not table.faults:
            # What was wrong with the headers before this one.
            earlier = [fault for other in tables for fault in other.faults]
            return _map(
                disk, table, [*failures, *earlier, *([f"the {place} is used"] if failures or earlier else [])]
            )
        if table is not None:
            tables.append(table)
    if not tables:
        return None
    return _map(disk, tables[0], [*failures, *tables[0].faults, "used all the same, no header is better"])


def _places(size: int) -> list[tuple[str, int, int]]:
    """(what, offset, block size) of every place where a header may stand, the likely ones first."""
    primary = [("primary GPT header", block_size, block_size) for block_size in BLOCK_SIZES]
    backup = [("backup GPT header", (size // block_size - 1) * block_size, block_size) for block_size in BLOCK_SIZES]
    return [place for place in primary + backup if place[1] > 0 and place[1] + 512 <= size]


def _table(disk: ByteSource, offset: int, block_size: int, place: str, failures: list[str]) -> _Table | None:
    if disk.read(offset, 8) != SIGNATURE:
        return None
    raw = bytes(disk.read(offset, 512))
    header = GPT_HEADER.parse(raw)
    if offset != block_size and header.MyLBA * block_size != offset:
        # The last blocks of 512 and 4096 bytes may coincide; the header knows where it stands.
        return None
    size, count = int(header.SizeOfPartitionEntry), int(header.NumberOfPartitionEntries)
    start = int(header.PartitionEntryLBA) * block_size
    if size not in ENTRY_SIZES:
        failures.append(f"{place}: an entry size of {size} is not possible")
        return None
    if count == 0 or start < block_size or start + size > disk.size:
        failures.append(f"{place}: {count} entries at {start:#x} do not lie inside the disk ({disk.size:#x})")
        return None
    faults = []
    if not 92 <= header.HeaderSize <= 512:
        faults.append(f"{place}: a header size of {header.HeaderSize} is not possible")
    else:
        cleared = raw[:16] + bytes(4) + raw[20 : header.HeaderSize]
        if zlib.crc32(cleared) != header.HeaderCRC32:
            faults.append(f"{place}: its checksum is wrong")
    usable = min(count, MOST_ENTRIES, (disk.size - start) // size)
    if usable < count:
        faults.append(f"{place}: {count} entries are claimed, {usable} are read")
    entries = bytes(disk.read(start, usable * size))
    if usable == count and zlib.crc32(entries) != header.PartitionEntryArrayCRC32:
        faults.append(f"{place}: the checksum of its entries is wrong")
    return _Table(header, block_size, entries, tuple(faults))


def _map(disk: ByteSource, table: _Table, warnings: list[str]) -> PartitionMap:
    size = int(table.header.SizeOfPartitionEntry)
    partitions: list[Partition] = []
    for index in range(1, len(table.entries) // size + 1):
        raw = table.entries[(index - 1) * size : index * size]
        if not any(raw[:16]):
            continue
        entry = GPT_ENTRY.parse(raw)
        if entry.EndingLBA < entry.StartingLBA:
            warnings.append(f"partition {index} ends before it begins and is passed over")
            continue
        guid = str(uuid.UUID(bytes_le=entry.PartitionTypeGUID)).upper()
        name = entry.PartitionName.decode("utf-16-le", "replace").split("\0", 1)[0]
        start = entry.StartingLBA * table.block_size
        length = (entry.EndingLBA - entry.StartingLBA + 1) * table.block_size
        unique = str(uuid.UUID(bytes_le=entry.UniquePartitionGUID)).upper()
        partitions.append(clamped(index, "GPT", TYPES.get(guid, guid), name, start, length, disk.size, unique))
    return PartitionMap("GPT", table.block_size, partitions, warnings)
