"""Forks of HFS standard: from extents to a byte source. Three extents stand beside the file, the rest in the extents
overflow tree, found by file, fork and the first block they cover.

What no extent covers cannot be read (CorruptImage, never zeros); what is covered stays readable.
"""

from collections.abc import Sequence

from dmgfs.errors import CorruptImage
from dmgfs.hfs.btree import BTree
from dmgfs.hfs.structs import EXTENT_RECORD, SECTOR
from dmgfs.source import Buffer, ByteSource, Load, Run, RunSource, check_range

LAYER = "HFS extents"

ExtentKey = tuple[int, int, int]
"""File number, fork type, first block covered: the order of the tree."""


def read_key(data: bytes, start: int, end: int) -> ExtentKey | None:
    """The KeyReader of the extents overflow tree."""
    if end - start != 7:
        return None
    number = int.from_bytes(data[start + 1 : start + 5])
    return number, data[start], int.from_bytes(data[start + 5 : end])


def used_extents(record: bytes) -> list[tuple[int, int]]:
    """(start, count) of the extents in an extent record of 12 bytes: up to the first empty one."""
    fields = EXTENT_RECORD.unpack(record)
    used = []
    for start, count in zip(fields[::2], fields[1::2], strict=True):
        if count == 0:
            break
        used.append((start, count))
    return used


class ForkSource:
    """The bytes of one fork: `size` of them, of which the first `covered` can be read."""

    def __init__(self, runs: RunSource, size: int, name: str) -> None:
        self._runs = runs
        self._name = name
        self.size = size
        self.covered = min(runs.size, size)

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        if length and offset + length > self.covered:
            why = f"{self.size} bytes, but only {self.covered} have a place on the volume"
            raise CorruptImage(LAYER, self._name, why, offset)
        return self._runs.read(offset, length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return self._runs.cold(offset, min(length, self.size - offset))


class Extents:
    """Opens the forks of a volume. block_size: bytes of an allocation block. first: where block 0 is, in sectors.
    total_blocks: of the volume. overflow is the extents tree once it is open; its own fork has no overflow."""

    def __init__(self, volume: ByteSource, block_size: int, first: int, total_blocks: int) -> None:
        self._volume = volume
        self._block_size = block_size
        self._first = first * SECTOR
        # Where the volume is longer than what holds it, the blocks beyond are as good as not there.
        self._total_blocks = min(total_blocks, max(0, volume.size - self._first) // block_size)
        self.overflow: BTree[ExtentKey] | None = None

    def open(self, record: bytes, size: int, file_number: int, fork_type: int, name: str) -> ForkSource:
        """The fork whose first extents are `record`. Raises CorruptImage where the overflow tree cannot be read."""
        runs: list[Run] = []
        covered = 0
        needed = -(-size // self._block_size)
        extents = used_extents(record)
        while extents:
            for start, count in extents:
                inside = min(count, self._total_blocks - start)
                if inside > 0:
                    runs.append(Run(self._volume, self._first + start * self._block_size, inside * self._block_size))
                if inside < count:
                    return ForkSource(RunSource(runs), size, name)
                covered += count
            extents = self._overflow(file_number, fork_type, covered) if covered < needed else []
        return ForkSource(RunSource(runs), size, name)

    def _overflow(self, file_number: int, fork_type: int, block: int) -> list[tuple[int, int]]:
        """The extents that go on at `block` of the fork. None of them is empty, so whoever asks comes to an end."""
        if self.overflow is None:
            return []
        found = self.overflow.find((file_number, fork_type, block))
        if found is None:
            return []
        leaf, place = found
        record = leaf.record(place.slot)
        if len(record) < EXTENT_RECORD.size:
            raise CorruptImage(LAYER, f"file {file_number}: block {block}", f"a record of {len(record)} bytes")
        return used_extents(record[: EXTENT_RECORD.size])
