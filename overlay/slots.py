"""Which slots of a store are free: extents that join with their neighbours, found by size in O(1). Pure.

Extents are filed by the power of two below their length, so a request is met from the smallest file that surely fits, and
split over the largest extents when nothing fits. `near` keeps a growing file in one piece.
"""

from collections import defaultdict
from typing import NamedTuple


class Extent(NamedTuple):
    slot: int
    length: int


class Slots:
    """`free`: how many slots are free."""

    def __init__(self) -> None:
        self.free = 0
        self._lengths: dict[int, int] = {}  # first slot → length
        self._starts: dict[int, int] = {}  # slot behind the last → first slot
        self._files: defaultdict[int, dict[int, None]] = defaultdict(
            dict
        )  # bit length of the length → first slots, oldest first

    def _add(self, slot: int, count: int) -> None:
        self._lengths[slot] = count
        self._starts[slot + count] = slot
        self._files[count.bit_length()][slot] = None

    def _remove(self, slot: int) -> int:
        count = self._lengths.pop(slot)
        del self._starts[slot + count]
        file = self._files[count.bit_length()]
        del file[slot]
        if not file:
            del self._files[count.bit_length()]
        return count

    def give(self, slot: int, count: int) -> None:
        """These slots are free from now on. They must not be free already."""
        self.free += count
        before = self._starts.get(slot)
        if before is not None:
            count += self._remove(before)
            slot = before
        if slot + count in self._lengths:
            count += self._remove(slot + count)
        self._add(slot, count)

    def _carve(self, slot: int, count: int) -> Extent:
        length = self._remove(slot)
        if length > count:
            self._add(slot + count, length - count)
        else:
            count = length
        self.free -= count
        return Extent(slot, count)

    def take(self, count: int, near: int = 0) -> list[Extent]:
        """`count` slots in as few extents as can be had quickly, from slot `near` on if that is free. The caller made
        sure that so many are free."""
        assert count <= self.free
        taken: list[Extent] = []
        if near in self._lengths:
            extent = self._carve(near, count)
            taken.append(extent)
            count -= extent.length
        while count:
            bits = (count - 1).bit_length() + 1  # every extent in this file or above is long enough
            fitting = [number for number in self._files if number >= bits]
            number = min(fitting) if fitting else max(self._files)
            extent = self._carve(next(iter(self._files[number])), count)
            taken.append(extent)
            count -= extent.length
        return taken

    def take_whole(self, count: int) -> Extent | None:
        """`count` slots in a row; None if no free extent is long enough."""
        for number in sorted(self._files):
            if number >= count.bit_length():
                for slot in self._files[number]:
                    if self._lengths[slot] >= count:
                        return self._carve(slot, count)
        return None

    def take_before(self, end: int, stop: int, count: int) -> Extent | None:
        """Of the free extent that ends at slot `end`, at most `count` slots up to slot `stop`; None if none are left."""
        start = self._starts.get(end)
        if start is None or start >= stop:
            return None
        first = max(start, stop - count)
        self._remove(start)
        if start < first:
            self._add(start, first - start)
        if stop < end:
            self._add(stop, end - stop)
        self.free -= stop - first
        return Extent(first, stop - first)

    def long_extents(self, length: int) -> list[Extent]:
        """Those at least as long as `length`, a power of two, in any order, without a look at the shorter ones."""
        return [
            Extent(slot, self._lengths[slot])
            for number, file in self._files.items()
            if number >= length.bit_length()
            for slot in file
        ]

    def extents(self) -> list[Extent]:
        """All free extents, by slot: for checks and for giving memory back."""
        return [Extent(slot, self._lengths[slot]) for slot in sorted(self._lengths)]
