"""The store in memory: slots in anonymous mappings, and one budget for everything.

Rules that hold here:
- the budget counts pages and the tree with its frozen copies; a commit that would pass it raises ENOSPC and did nothing.
  The last part of it is kept for changes that free something, so that a full overlay can be emptied;
- memory is reserved by the segment and taken from the system when written. Freed slots are used again first; once there
  are many they go back to the system (MADV_DONTNEED);
- a run of slots is contiguous memory: a write is one copy per run, a read is a view. Slot 0 of every segment is never
  used, so no run crosses segments, and slot 0 can mean HOLE.
"""

import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

from overlay.change import Change, Fill, Patch, Place
from overlay.pages import HOLE, PAGE, PAGE_BITS, ZERO, PageMap, Run, is_stored
from overlay.slots import Slots
from overlay.store import Sync
from overlay.tree import Tree
from overlay.vfs import Buffer

SEGMENT_BITS = 14
SEGMENT = 1 << SEGMENT_BITS
"""Slots per mapping: 64 MiB."""

_STALE_LIMIT = 256
_DONTNEED_LOCKED = 24  # MADV_DONTNEED_LOCKED, Linux 5.18: the same for memory under mlockall
_RESERVE_DIVISOR = 128
_EMPTY = PageMap()


class RamStore:
    """budget in bytes. Must be used by one thread."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._tree = Tree()
        self._pages = 0
        self._segments: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        self._slots = Slots()
        self._stale: list[Run] = []  # free, but still backed by memory

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def used(self) -> int:
        return self._tree.weight + self._tree.copies + (self._pages << PAGE_BITS)

    def resize(self, budget: int) -> None:
        if budget < self.used:
            raise OSError(errno.ENOSPC, f"{self.used} bytes are in use")
        self._budget = budget

    def load(self, tree: Tree) -> None:
        self._tree = tree

    def commit(self, change: Change) -> None:
        new_pages = change.new_pages
        if change.shared is not None:
            new_pages += self._shared_pages(change, change.shared)
        grows = change.weight + (new_pages << PAGE_BITS)
        if grows > 0:
            limit = self._budget
            if not change.removing:
                limit -= min(limit // _RESERVE_DIVISOR, 1 << 20)
            if self.used + grows > limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if new_pages > self._slots.free:
            self._grow(new_pages)
        for item in change.items:
            if type(item) is Fill:
                self._fill(change, item)
            elif type(item) is Patch:
                self._patch(change, item)

    def _shared_pages(self, change: Change, shared: Callable[[int], bool]) -> int:
        """How many pages this change must move, because a frozen copy needs what is in their slots."""
        count = 0
        for item in change.items:
            if type(item) is Fill or type(item) is Patch:
                file = self._tree.file(item.ino)
                if file is not None and file.pages is not None:
                    length = item.length if type(item) is Fill else 1
                    for run in file.pages.runs(item.page, length):
                        if is_stored(run.slot):
                            count += sum(map(shared, range(run.slot, run.slot + run.length)))
        return count

    def _patch(self, change: Change, item: Patch) -> None:
        file = self._tree.file(item.ino)
        assert file is not None
        assert file.pages is not None
        slot = file.pages[item.page]
        if change.shared is not None and change.shared(slot):
            old = self.view(slot, 1)
            [(slot, _)] = self._take(1, 0)
            self._write(slot, memoryview(old))
            change.placed.append(Place(item.ino, Run(item.page, slot, 1)))
        start = ((slot & (SEGMENT - 1)) << PAGE_BITS) + item.start
        self._views[slot >> SEGMENT_BITS][start : start + len(item.data)] = item.data

    def _fill(self, change: Change, item: Fill) -> None:
        file = self._tree.file(item.ino)
        pages = _EMPTY if file is None or file.pages is None else file.pages
        data = memoryview(item.data)
        near = pages[item.page - 1] if item.page else HOLE
        near = near + 1 if is_stored(near) else 0
        for run in _to_be_filled(pages.runs(item.page, item.length), change.shared):
            start = (run.page - item.page) << PAGE_BITS
            if run.slot not in (HOLE, ZERO):
                self._write(run.slot, data[start : start + (run.length << PAGE_BITS)])
                near = run.slot + run.length
                continue
            page = run.page
            for slot, count in self._take(run.length, near):
                stop = start + (count << PAGE_BITS)
                self._write(slot, data[start:stop])
                change.placed.append(Place(item.ino, Run(page, slot, count)))
                page, start, near = page + count, stop, slot + count

    def _write(self, slot: int, data: memoryview) -> None:
        start = (slot & (SEGMENT - 1)) << PAGE_BITS
        self._views[slot >> SEGMENT_BITS][start : start + len(data)] = data

    def view(self, slot: int, count: int) -> Buffer:
        start = (slot & (SEGMENT - 1)) << PAGE_BITS
        return self._views[slot >> SEGMENT_BITS][start : start + (count << PAGE_BITS)]

    view_now = view

    # -- slots -----------------------------------------------------------------------------------------------------------

    def _grow(self, count: int) -> None:
        """Reserves segments until `count` slots are free, stale ones not counted."""
        self._return_stale()
        while count > self._slots.free:
            try:
                segment = mmap.mmap(-1, SEGMENT * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
            except (OSError, MemoryError) as error:
                raise OSError(errno.ENOSPC, "no memory for another segment") from error
            first = len(self._segments) << SEGMENT_BITS
            self._segments.append(segment)
            self._views.append(memoryview(segment))
            self._slots.give(first + 1, SEGMENT - 1)

    def _take(self, count: int, near: int) -> list[tuple[int, int]]:
        self._pages += count
        if self._stale and self._stale[-1].length >= count:
            run = self._stale.pop()
            if run.length > count:
                self._stale.append(Run(0, run.slot + count, run.length - count))
            return [(run.slot, count)]
        return [(extent.slot, extent.length) for extent in self._slots.take(count, near)]

    def free(self, runs: Sequence[Run]) -> None:
        self._stale += runs
        self._pages -= sum(run.length for run in runs)
        if sum(run.length for run in self._stale) > _STALE_LIMIT:
            self._return_stale()

    def _return_stale(self) -> None:
        """Gives the memory of stale slots back, whole neighbourhoods at once."""
        joined: list[list[int]] = []
        for _, slot, count in sorted(self._stale, key=lambda run: run.slot):
            self._slots.give(slot, count)
            if joined and joined[-1][1] == slot:
                joined[-1][1] = slot + count
            else:
                joined.append([slot, slot + count])
        self._stale.clear()
        for first, end in joined:
            segment = self._segments[first >> SEGMENT_BITS]
            start = (first & (SEGMENT - 1)) << PAGE_BITS
            for advice in (mmap.MADV_DONTNEED, _DONTNEED_LOCKED):
                try:
                    segment.madvise(advice, start, (end - first) << PAGE_BITS)
                    break
                except OSError:
                    continue  # locked memory on an old kernel stays ours; the slots are free all the same

    # -- life ------------------------------------------------------------------------------------------------------------

    def begin_sync(self) -> Sync | None:
        """Memory is as safe as it gets."""
        return None

    def end_sync(self, sync: Sync) -> None:
        """Never called."""

    def close(self) -> None:
        self._views.clear()
        self._segments.clear()


_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def _to_be_filled(runs: Sequence[Run], shared: Callable[[int], bool] | None) -> Iterator[Run]:
    """The same runs; where the bytes must not go where the old ones are, as holes."""
    for run in runs:
        if shared is None or not is_stored(run.slot):
            yield run
            continue
        start = 0
        while start < run.length:
            moves = shared(run.slot + start)
            stop = start + 1
            while stop < run.length and shared(run.slot + stop) == moves:
                stop += 1
            yield Run(run.page + start, HOLE if moves else run.slot + start, stop - start)
            start = stop
