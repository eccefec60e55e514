"""Partition maps: from a disk of bytes to the stretches on it. APM, GPT, MBR, or no map at all.

Rules that hold here:
- order of search: Apple's map, GPT, a bare volume, MBR (a volume's boot sector may look like an MBR), nothing;
- where both APM and GPT are present, the one that leads to an HFS volume wins, else GPT;
- no nested maps: what a partition holds is not searched for another map (threats P7);
- where the disk cannot be read there is no map, and a warning says why: the volumes may be sound all the same.
"""

from collections.abc import Sequence
from dataclasses import replace

from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.partitions.apm import read_apm
from dmgfs.partitions.gpt import read_gpt
from dmgfs.partitions.mbr import read_mbr
from dmgfs.partitions.partition import Partition, PartitionMap
from dmgfs.partitions.signatures import ABSENT, EMPTY, HFS, HFS_PLUS, HFSX, UNKNOWN, Found, probe
from dmgfs.source import Buffer, ByteSource, Load

__all__ = ["MOST_PROBED", "Found", "Partition", "PartitionMap", "probe", "read_map"]

MOST_PROBED = 64
"""Partitions that are looked into: no real map has more volumes, and each look may decode a chunk."""


def read_map(disk: ByteSource) -> PartitionMap:
    """The partition map of the disk; scheme "none" with one partition, index 0, where there is none. Raises OSError where
    the disk fails, and Cold."""
    forgiving = _Forgiving(disk)
    found = _find(forgiving)
    return replace(found, warnings=[*found.warnings, *forgiving.faults])


class _Forgiving:
    """A disk whose damaged places read as zeros. faults: what was met there, each once."""

    def __init__(self, disk: ByteSource) -> None:
        self._disk = disk
        self.size = disk.size
        self.faults: list[str] = []

    def read(self, offset: int, length: int) -> Buffer:
        try:
            return self._disk.read(offset, length)
        except (CorruptImage, Unsupported) as error:
            fault = f"no partition map can be told at {offset:#x}: {error}"
            if fault not in self.faults:
                self.faults.append(fault)
            return bytes(length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return self._disk.cold(offset, length)


def _find(disk: ByteSource) -> PartitionMap:
    apm, gpt = read_apm(disk), read_gpt(disk)
    if apm is not None and gpt is not None:
        return apm if _leads_to_hfs(disk, apm) and not _leads_to_hfs(disk, gpt) else gpt
    if apm is not None or gpt is not None:
        return apm or gpt or _whole(disk)
    if probe(disk, 0, disk.size, alternate=False).kind not in (ABSENT, UNKNOWN, EMPTY):
        return _whole(disk)
    return read_mbr(disk) or _whole(disk)


def _whole(disk: ByteSource) -> PartitionMap:
    return PartitionMap("none", 512, (Partition(0, "none", "", "", 0, disk.size),))


def _leads_to_hfs(disk: ByteSource, found: PartitionMap) -> bool:
    volumes = [partition for partition in found.partitions if partition.may_hold_volume][:MOST_PROBED]
    return any(probe(disk, one.start, one.length).kind in (HFS_PLUS, HFSX, HFS) for one in volumes)
