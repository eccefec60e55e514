"""Page arithmetic: which pages a range of bytes touches, and which slot of a store holds which page of a file. Pure; no
bytes are moved here.

A page is 4096 bytes of a file, a slot is room for one page in a store. A cell of the map is HOLE (the page was never
written: the lower or zeros show), ZERO (written, all zeros, costs nothing) or a slot number.

The map is a dict of small arrays and no sorted list of extents: finding and replacing is O(1) for any order of writes (a
data base writes at random), a full block costs 7 bytes per page, a lonely page 400.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

PAGE = 4096
PAGE_BITS = 12
HOLE = 0
ZERO = 0xFFFF_FFFF

_BLOCK_BITS = 6
_BLOCK = 1 << _BLOCK_BITS
_EMPTY = array("I", bytes(4 * _BLOCK))


class Run(NamedTuple):
    """`length` pages from page `page` in as many slots from `slot` on; all HOLE or all ZERO if that is what `slot` says."""

    page: int
    slot: int
    length: int


def is_stored(slot: int) -> bool:
    """Whether a cell names a slot (and is neither HOLE nor ZERO)."""
    return slot != HOLE and slot != ZERO


def pages_in(size: int) -> int:
    """How many pages `size` bytes take, the last one perhaps in part."""
    return (size + PAGE - 1) >> PAGE_BITS


class Cut(NamedTuple):
    """A range of bytes split at page borders: a part inside page `page` from byte `start`, or whole pages (start 0,
    length a multiple of PAGE)."""

    page: int
    start: int
    length: int


def cut_range(offset: int, length: int) -> list[Cut]:
    """A range of bytes as at most three cuts: the end of a page, whole pages, the beginning of a page."""
    cuts: list[Cut] = []
    end = offset + length
    start = offset & (PAGE - 1)
    if start and length:
        head = min(PAGE - start, length)
        cuts.append(Cut(offset >> PAGE_BITS, start, head))
        offset += head
    whole = (end - offset) & ~(PAGE - 1)
    if whole:
        cuts.append(Cut(offset >> PAGE_BITS, 0, whole))
        offset += whole
    if offset < end:
        cuts.append(Cut(offset >> PAGE_BITS, 0, end - offset))
    return cuts


class PageMap:
    """Page number → slot of one file. `stored`: pages that take a slot. `blocks`: arrays in use (for the accounting)."""

    __slots__ = ("_blocks", "stored")

    def __init__(self) -> None:
        self._blocks: dict[int, array[int]] = {}
        self.stored = 0

    @property
    def blocks(self) -> int:
        return len(self._blocks)

    def copy(self) -> "PageMap":
        copy = PageMap()
        copy._blocks = {number: block[:] for number, block in self._blocks.items()}
        copy.stored = self.stored
        return copy

    def __getitem__(self, page: int) -> int:
        block = self._blocks.get(page >> _BLOCK_BITS)
        return HOLE if block is None else block[page & (_BLOCK - 1)]

    def runs(self, page: int, count: int) -> list[Run]:
        """The pages [page, page+count) as maximal runs, holes included."""
        runs: list[Run] = []
        end = page + count
        start, slot, step, expected = page, -1, 0, -1  # the run being grown: from page `start` in slots from `slot`
        while page < end:
            block = self._blocks.get(page >> _BLOCK_BITS)
            stop = min(end, (page | (_BLOCK - 1)) + 1)
            if block is None:
                if expected != HOLE:
                    if slot >= 0:
                        runs.append(Run(start, slot, page - start))
                    start, slot, step, expected = page, HOLE, 0, HOLE
                page = stop
                continue
            first = page & (_BLOCK - 1)
            for cell in block[first : first + stop - page]:
                if cell != expected:
                    if slot >= 0:
                        runs.append(Run(start, slot, page - start))
                    start, slot = page, cell
                    step = 1 if is_stored(cell) else 0
                    expected = cell
                expected += step
                page += 1
        if slot >= 0:
            runs.append(Run(start, slot, page - start))
        return runs

    def walk(self) -> Iterator[Run]:
        """Everything but holes, in page order."""
        for number in sorted(self._blocks):
            for run in self.runs(number << _BLOCK_BITS, _BLOCK):
                if run.slot != HOLE:
                    yield run

    def stored_from(self, page: int) -> int:
        """How many pages from `page` on are stored. Takes the time of what is there, not of how far it may reach."""
        number, inside = page >> _BLOCK_BITS, page & (_BLOCK - 1)
        count = 0
        for key, block in self._blocks.items():
            if key >= number:
                cells = block if key > number else block[inside:]
                count += len(cells) - cells.count(HOLE) - cells.count(ZERO)
        return count

    def unlike(self, other: "PageMap") -> Iterator[Run]:
        """The pages that are something else here than in `other`, in page order, holes included."""
        for number in sorted(self._blocks.keys() | other._blocks.keys()):
            here, there = self._blocks.get(number, _EMPTY), other._blocks.get(number, _EMPTY)
            if here == there:
                continue
            start = 0
            while start < _BLOCK:
                differs = here[start] != there[start]
                stop = start + 1
                while stop < _BLOCK and (here[stop] != there[stop]) == differs:
                    stop += 1
                if differs:
                    yield from self.runs((number << _BLOCK_BITS) + start, stop - start)
                start = stop

    def new_blocks(self, page: int, count: int) -> int:
        """How many blocks a change of these pages would add."""
        first, last = page >> _BLOCK_BITS, (page + count - 1) >> _BLOCK_BITS
        return sum(number not in self._blocks for number in range(first, last + 1))

    def put(self, run: Run) -> list[Run]:
        """Lets the pages of `run` be what it says; the runs of slots that were there before (stored ones only)."""
        old = [before for before in self.runs(run.page, run.length) if is_stored(before.slot)]
        self.stored -= sum(before.length for before in old)
        step = 1 if is_stored(run.slot) else 0
        self.stored += step * run.length
        page, end, slot = run.page, run.page + run.length, run.slot
        while page < end:
            number = page >> _BLOCK_BITS
            stop = min(end, (page | (_BLOCK - 1)) + 1)
            count = stop - page
            block = self._blocks.get(number)
            if block is None:
                if run.slot == HOLE:
                    page = stop
                    continue
                block = self._blocks[number] = _EMPTY[:]
            first = page & (_BLOCK - 1)
            if count == 1:
                block[first] = slot
            elif step:
                block[first : first + count] = array("I", range(slot, slot + count))
            else:
                block[first : first + count] = array("I", [slot]) * count
            if run.slot == HOLE and block == _EMPTY:
                del self._blocks[number]
            slot += step * count
            page = stop
        return old

    def cut(self, page: int) -> list[Run]:
        """Makes everything from `page` on a hole; the runs of slots that were there."""
        number = page >> _BLOCK_BITS
        old: list[Run] = []
        inside = page & (_BLOCK - 1)
        if inside:
            old += self.put(Run(page, HOLE, _BLOCK - inside))
            number += 1
        for later in sorted(key for key in self._blocks if key >= number):
            runs = [run for run in self.runs(later << _BLOCK_BITS, _BLOCK) if is_stored(run.slot)]
            self.stored -= sum(run.length for run in runs)
            old += runs
            del self._blocks[later]
        return old
