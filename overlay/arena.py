"""Slots in anonymous memory: taken, written, looked at, given back to the system.

Rules that hold here:
- memory is reserved by the segment and taken from the system when written. Freed slots are used again first; once there
  are many they go back to the system (MADV_DONTNEED);
- a run of slots is contiguous memory: a write is one copy per run, a look is a view. Slot 0 of every segment is never
  used, so no run crosses segments, and slot 0 can mean HOLE.
"""

import errno
import mmap
from collections.abc import Sequence

from overlay.pages import PAGE, PAGE_BITS, Run
from overlay.slots import Extent, Slots
from overlay.vfs import Buffer

SEGMENT_BITS = 14
SEGMENT = 1 << SEGMENT_BITS
"""Slots per mapping: 64 MiB."""

_STALE_LIMIT = 256
_DONTNEED_LOCKED = 24  # MADV_DONTNEED_LOCKED, Linux 5.18: the same for memory under mlockall
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Arena:
    """slots: which are free, `stale` ones not counted. stale: free, but still backed by memory. Must be used by one
    thread, but for `view`."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.stale: list[Run] = []
        self._segments: list[mmap.mmap] = []
        self._views: list[memoryview] = []

    @property
    def segments(self) -> int:
        return len(self._segments)

    def reserve(self, count: int) -> None:
        """Lets `count` slots be free. OSError(ENOSPC)."""
        if count <= self.slots.free:
            return
        self.return_stale()
        while count > self.slots.free:
            try:
                segment = mmap.mmap(-1, SEGMENT * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
            except (OSError, MemoryError) as error:
                raise OSError(errno.ENOSPC, "no memory for another segment") from error
            first = len(self._segments) << SEGMENT_BITS
            self._segments.append(segment)
            self._views.append(memoryview(segment))
            self.slots.give(first + 1, SEGMENT - 1)

    def take(self, count: int, near: int) -> list[Extent]:
        """`count` reserved slots, from slot `near` on if that is free."""
        if self.stale and self.stale[-1].length >= count:
            run = self.stale.pop()
            if run.length > count:
                self.stale.append(Run(0, run.slot + count, run.length - count))
            return [Extent(run.slot, count)]
        return self.slots.take(count, near)

    def give(self, runs: Sequence[Run]) -> None:
        """These slots are free, and their bytes of no use."""
        self.stale += runs
        if sum(run.length for run in self.stale) > _STALE_LIMIT:
            self.return_stale()

    def return_stale(self) -> None:
        """Gives the memory of stale slots back, whole neighbourhoods at once."""
        joined: list[list[int]] = []
        for _, slot, count in sorted(self.stale, key=lambda run: run.slot):
            self.slots.give(slot, count)
            if joined and joined[-1][1] == slot:
                joined[-1][1] = slot + count
            else:
                joined.append([slot, slot + count])
        self.stale.clear()
        for first, end in joined:
            self.punch(first, end - first)

    def punch(self, slot: int, count: int) -> None:
        """The memory of these slots goes back to the system; they read as zeros."""
        segment = self._segments[slot >> SEGMENT_BITS]
        start = (slot & (SEGMENT - 1)) << PAGE_BITS
        for advice in (mmap.MADV_DONTNEED, _DONTNEED_LOCKED):
            try:
                segment.madvise(advice, start, count << PAGE_BITS)
                break
            except OSError:
                continue  # locked memory on an old kernel stays ours; the slots are free all the same

    def write(self, slot: int, data: Buffer, start: int = 0) -> None:
        """Into slots in a row, from byte `start` of the first one on."""
        start += (slot & (SEGMENT - 1)) << PAGE_BITS
        self._views[slot >> SEGMENT_BITS][start : start + len(data)] = data

    def view(self, slot: int, count: int) -> memoryview:
        """The bytes of slots in a row, as they are."""
        start = (slot & (SEGMENT - 1)) << PAGE_BITS
        return self._views[slot >> SEGMENT_BITS][start : start + (count << PAGE_BITS)]

    def close(self) -> None:
        self._views.clear()
        self._segments.clear()
