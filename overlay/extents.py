"""Where a file may hold something: told from what is known of its pages, without a look at its bytes. All the rest of it is
zeros, so that whoever copies a file of terabytes with a page in it copies the page.

What is named may be zeros all the same: of what belongs to the lower only another overlay can tell.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from overlay.facts import Facts
from overlay.pages import PAGE_BITS, is_stored
from overlay.state import State
from overlay.tree import File


class Extent(NamedTuple):
    """The bytes [start, stop) of a file."""

    start: int
    stop: int


@runtime_checkable
class Sparse(Protocol):
    """A `vfs.Content` that can tell as much."""

    def extents(self) -> Sequence[Extent]: ...


def extents(state: State, facts: Facts, ino: int, gap: int = 1) -> list[Extent]:
    """In order, apart from each other. gap: zeros of fewer bytes, also at the beginning and the end, count as something."""
    size = state.attr(facts, ino).size
    file = state.tree.file(ino)
    if state.is_changed(ino):
        found = _changed(state, facts, ino, file) if file is not None else iter(())
    else:
        found = iter(_below(facts, ino, size))
    whole: list[Extent] = []
    for start, stop in found:
        last = whole[-1].stop if whole else 0
        stop = min(stop, size)
        if stop > start and start - last < gap:
            whole[-1:] = [Extent(whole[-1].start if whole else 0, stop)]
        elif stop > start:
            whole.append(Extent(start, stop))
    last = whole[-1].stop if whole else 0
    if last < size < last + gap:
        whole[-1:] = [Extent(whole[-1].start if whole else 0, size)]
    return whole


def _changed(state: State, facts: Facts, ino: int, file: File) -> Iterator[tuple[int, int]]:
    """Of a file that is not simply the lower's: the pages that it stores, and the lower's where it has none."""
    if file.inline is not None:
        yield 0, len(file.inline)
        return
    below = _below(facts, ino, file.limit) if file.limit else ()
    done = 0
    for run in file.pages.walk() if file.pages is not None else ():
        start, stop = run.page << PAGE_BITS, (run.page + run.length) << PAGE_BITS
        yield from _between(below, done, start)
        if is_stored(run.slot):
            yield start, stop
        done = stop
    yield from _between(below, done, file.limit)


def _below(facts: Facts, ino: int, size: int) -> Sequence[Extent]:
    if not size:
        return ()
    content = facts.open(ino)
    return content.extents() if isinstance(content, Sparse) else (Extent(0, size),)


def _between(below: Sequence[Extent], start: int, stop: int) -> Iterator[tuple[int, int]]:
    """What of the lower's lies in [start, stop)."""
    number = max(0, bisect_right(below, (start, 0)) - 1)
    while start < stop and number < len(below) and below[number].start < stop:
        yield max(start, below[number].start), min(stop, below[number].stop)
        number += 1
