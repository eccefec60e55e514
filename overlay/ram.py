"""The store in memory, and one budget for everything.

Rules that hold here:
- the budget counts pages and the tree with its frozen copies; a commit that would pass it raises ENOSPC and did nothing.
  The last part of it is kept for changes that free something, so that a full overlay can be emptied;
- pages are in slots of an `overlay.arena`; nothing else is kept outside of the tree.
"""

import errno
import os
from collections.abc import Callable, Generator, Iterator, Sequence

from overlay.arena import Arena
from overlay.change import Change, Fill, Patch, Place
from overlay.history import History
from overlay.pages import HOLE, PAGE_BITS, ZERO, PageMap, Run, is_stored
from overlay.slots import Extent
from overlay.store import Sync
from overlay.tree import Tree
from overlay.vfs import Buffer

_RESERVE_DIVISOR = 128
_EMPTY = PageMap()


class RamStore:
    """budget in bytes. Must be used by one thread."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._tree = Tree()
        self._pages = 0
        self.arena = Arena()

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

    def history(self) -> History | None:
        return None

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
        self.arena.reserve(new_pages)
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
            self._write(slot, old)
            change.placed.append(Place(item.ino, Run(item.page, slot, 1)))
        self._write(slot, item.data, item.start)

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

    # -- slots -----------------------------------------------------------------------------------------------------------

    def _take(self, count: int, near: int) -> list[Extent]:
        self._pages += count
        return self.arena.take(count, near)

    def _write(self, slot: int, data: Buffer, start: int = 0) -> None:
        self.arena.write(slot, data, start)

    def view(self, slot: int, count: int) -> Buffer:
        return self.arena.view(slot, count)

    view_now = view

    def warm(self, slot: int, count: int) -> None:
        """Memory is warm."""

    def copy(self, slot: int, count: int) -> Buffer:
        return self.arena.view(slot, count)  # a page that a frozen copy has stays as it is

    def free(self, runs: Sequence[Run]) -> None:
        self._pages -= sum(run.length for run in runs)
        self.arena.give(runs)

    # -- life ------------------------------------------------------------------------------------------------------------

    def litter(self) -> int:
        return 0

    def reclaim(self, everything: bool) -> Generator[Callable[[], None], None, None]:
        """At once: it never waits."""
        self.arena.return_stale()
        yield from ()

    def begin_sync(self) -> Sync | None:
        """Memory is as safe as it gets."""
        return None

    def end_sync(self, sync: Sync) -> None:
        """Never called."""

    def close(self) -> None:
        self.arena.close()


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
