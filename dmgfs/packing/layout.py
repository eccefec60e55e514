"""A partition map put around a volume: GPT or Apple's own, as hdiutil makes disks, or none.

Rules that hold here:
- the disk is as large as its parts need, the volume is where Apple's tools put it and nothing is copied;
- identifiers come from `seed`, so the same volume gives the same disk.
"""

import uuid
import zlib

from dmgfs.errors import Unwritable
from dmgfs.partitions.gpt import TYPES
from dmgfs.partitions.structs import APM_ENTRY, DRIVER_DESCRIPTOR, GPT_ENTRY, GPT_HEADER, MBR_ENTRY
from dmgfs.source import ByteSource, MemorySource, Run, RunSource

SECTOR = 512
LAYOUTS = ("gpt", "apm", "none")

_GPT_START = 40
"""Sectors: the first multiple of 4 KiB behind the entries."""
_GPT_ENTRIES, _GPT_ENTRY = 128, 128
_GPT_TABLE = _GPT_ENTRIES * _GPT_ENTRY // SECTOR
_APM_START = 64
_APM_MAP = 63
_MOST_APM_SECTORS = 1 << 32
_APM_FLAGS = 0x40000033
"""Valid, allocated, readable, writable; mounted at start."""
_HFS_TYPE = next(guid for guid, name in TYPES.items() if name == "Apple_HFS")


def overhead(layout: str) -> int:
    """Bytes of the disk that are not volume."""
    return {"gpt": (_GPT_START + _GPT_TABLE + 1) * SECTOR, "apm": _APM_START * SECTOR, "none": 0}[layout]


def start_of(layout: str) -> int:
    """Where on the disk the volume begins, bytes."""
    return {"gpt": _GPT_START, "apm": _APM_START, "none": 0}[layout] * SECTOR


def partitioned(volume: ByteSource, layout: str, seed: bytes, size: int | None = None) -> ByteSource:
    """The disk. volume: whole sectors. size: bytes of the disk, where it shall be larger than needed. Raises Unwritable."""
    room = 0 if size is None else max(0, (size - overhead(layout) - volume.size) // SECTOR * SECTOR)
    if layout == "none":
        return RunSource([Run(volume, 0, volume.size), Run(None, 0, room)]) if room else volume
    sectors = volume.size // SECTOR
    if layout == "apm" and sectors >= _MOST_APM_SECTORS - _APM_START:
        raise Unwritable(
            "Apple's partition map counts sectors in 32 bits, this volume has more; --layout gpt holds it"
        )
    head, tail = (_gpt if layout == "gpt" else _apm)(sectors, room // SECTOR, seed)
    return RunSource(
        [
            Run(MemorySource(head), 0, len(head)),
            Run(volume, 0, volume.size),
            Run(None, 0, room),
            Run(MemorySource(tail), 0, len(tail)),
        ]
    )


def _gpt(sectors: int, free: int, seed: bytes) -> tuple[bytes, bytes]:
    disk_sectors = _GPT_START + sectors + free + _GPT_TABLE + 1
    last = disk_sectors - 1
    entry = GPT_ENTRY.build(
        {
            "PartitionTypeGUID": uuid.UUID(_HFS_TYPE).bytes_le,
            "UniquePartitionGUID": _identifier(seed, "partition"),
            "StartingLBA": _GPT_START,
            "EndingLBA": _GPT_START + sectors - 1,
            "Attributes": 0,
            "PartitionName": "disk image".encode("utf-16-le").ljust(72, b"\0"),
        }
    )
    table = entry.ljust(_GPT_TABLE * SECTOR, b"\0")

    def header(here: int, other: int, entries: int) -> bytes:
        fields = {
            "Signature": b"EFI PART",
            "Revision": 0x10000,
            "HeaderSize": GPT_HEADER.sizeof(),
            "HeaderCRC32": 0,
            "MyLBA": here,
            "AlternateLBA": other,
            "FirstUsableLBA": 2 + _GPT_TABLE,
            "LastUsableLBA": last - 1 - _GPT_TABLE,
            "DiskGUID": _identifier(seed, "disk"),
            "PartitionEntryLBA": entries,
            "NumberOfPartitionEntries": _GPT_ENTRIES,
            "SizeOfPartitionEntry": _GPT_ENTRY,
            "PartitionEntryArrayCRC32": zlib.crc32(table),
        }
        fields["HeaderCRC32"] = zlib.crc32(GPT_HEADER.build(fields))
        return bytes(GPT_HEADER.build(fields)).ljust(SECTOR, b"\0")

    protective = MBR_ENTRY.build(
        {
            "BootIndicator": 0,
            "StartingCHS": b"\x00\x02\x00",
            "OSType": 0xEE,
            "EndingCHS": b"\xff\xff\xff",
            "StartingLBA": 1,
            "SizeInLBA": min(last, 0xFFFFFFFF),
        }
    )
    boot = bytes(446) + protective.ljust(64, b"\0") + b"\x55\xaa"
    head = boot + header(1, last, 2) + table
    return head.ljust(_GPT_START * SECTOR, b"\0"), table + header(last, 1, last - _GPT_TABLE)


def _identifier(seed: bytes, what: str) -> bytes:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{seed.hex()} {what}").bytes_le


def _apm(sectors: int, free: int, seed: bytes) -> tuple[bytes, bytes]:
    parts: tuple[tuple[str, str, int, int], ...] = (
        ("Apple", "Apple_partition_map", 1, _APM_MAP),
        ("disk image", "Apple_HFS", _APM_START, sectors),
    )
    if free:
        parts = (*parts, ("", "Apple_Free", _APM_START + sectors, free))
    descriptor = DRIVER_DESCRIPTOR.build(
        {
            "sbSig": b"ER",
            "sbBlkSize": SECTOR,
            "sbBlkCount": _APM_START + sectors + free,
            "sbDevType": 0,
            "sbDevId": 0,
            "sbData": 0,
            "sbDrvrCount": 0,
        }
    )
    entries = [
        APM_ENTRY.build(
            {
                "pmSig": b"PM",
                "pmSigPad": 0,
                "pmMapBlkCnt": len(parts),
                "pmPyPartStart": start,
                "pmPartBlkCnt": count,
                "pmPartName": name.encode().ljust(32, b"\0"),
                "pmParType": kind.encode().ljust(32, b"\0"),
                "pmLgDataStart": 0,
                "pmDataCnt": count,
                "pmPartStatus": 0 if kind == "Apple_Free" else _APM_FLAGS,
            }
        )
        for name, kind, start, count in parts
    ]
    head = b"".join(part.ljust(SECTOR, b"\0") for part in (descriptor, *entries))
    return head.ljust(_APM_START * SECTOR, b"\0"), b""
