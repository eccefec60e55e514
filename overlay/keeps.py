"""Slots that frozen copies of the tree refer to: which ones must not be written or given away while a copy lives.

A moment is when a copy was made. A slot that was filled at a moment or before and is free only since a later one belongs
to the copy. Nothing is noted per page when a copy is made, so that it costs nothing; what is filled before the first
moment has no note at all.

Rule: moments only grow; without any moment nothing is kept and nothing remembered.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from overlay.pages import Run, is_stored

_NEVER = 0xFFFF_FFFF


class Kept(NamedTuple):
    """A run of slots that is free since `died`, was filled after all moments before `born`, and is wanted in between."""

    born: int
    died: int
    run: Run


class Keeps:
    """The living moments and what is kept for them."""

    def __init__(self) -> None:
        self._moments: list[int] = []
        self._now = 0
        self._born = array("I")  # by slot: the first moment that may have it; 0 for slots that are not noted
        self._kept: list[Kept] = []

    @property
    def pages(self) -> int:
        """Slots that only copies refer to."""
        return sum(kept.run.length for kept in self._kept)

    def begin(self) -> int:
        """A copy is made now: its moment."""
        moment = self._now
        self._now += 1
        insort(self._moments, moment)
        return moment

    def is_shared(self, slot: int) -> bool:
        """Whether a copy may refer to this slot, which is in use."""
        return bool(self._moments) and self._birth(slot) <= self._moments[-1]

    @property
    def active(self) -> bool:
        return bool(self._moments)

    def _birth(self, slot: int) -> int:
        return self._born[slot] if slot < len(self._born) else 0

    def filled(self, run: Run) -> None:
        """These slots have new bytes."""
        if self._moments and is_stored(run.slot):
            end = run.slot + run.length
            if end > len(self._born):
                self._born.extend(array("I", bytes(4 * (end - len(self._born)))))
            self._born[run.slot : end] = array("I", [self._now]) * run.length

    def release(self, runs: Iterable[Run]) -> list[Run]:
        """The tree refers to these slots no more: those that nobody else wants."""
        if not self._moments:
            return list(runs)
        free: list[Run] = []
        for run in runs:
            start, end = run.slot, run.slot + run.length
            while start < end:
                born = self._birth(start)
                stop = start + 1
                while stop < end and self._birth(stop) == born:
                    stop += 1
                part = Run(0, start, stop - start)
                if self._wanted(born, self._now):
                    self._kept.append(Kept(born, self._now, part))
                else:
                    free.append(part)
                start = stop
        return free

    def _wanted(self, born: int, died: int) -> bool:
        """Whether there is a moment in [born, died)."""
        index = bisect_left(self._moments, born)
        return index < len(self._moments) and self._moments[index] < died

    def end(self, moment: int) -> list[Run]:
        """A copy is gone: the slots that nobody wants any more."""
        self._moments.remove(moment)
        free = [kept.run for kept in self._kept if not self._wanted(kept.born, kept.died)]
        self._kept = [kept for kept in self._kept if self._wanted(kept.born, kept.died)]
        if not self._moments:
            del self._born[:]
        return free

    def rebuild(self, copies: Mapping[int, Sequence[Run]], live: Sequence[Run]) -> None:
        """Everything but the moments anew. copies: what is in use by the copy of each moment. live: by the tree. A slot
        that some moments in between do not have is kept for them as well."""
        end = max((run.slot + run.length for runs in (*copies.values(), live) for run in runs), default=0)
        first, last = array("I", [_NEVER]) * end, array("I", [0]) * end
        for moment in sorted(copies):
            for _, slot, count in copies[moment]:
                last[slot : slot + count] = array("I", [moment]) * count
        for moment in sorted(copies, reverse=True):
            for _, slot, count in copies[moment]:
                first[slot : slot + count] = array("I", [moment]) * count
        self._born = array("I", bytes(4 * end))
        for _, slot, count in live:
            here = slice(slot, slot + count)
            self._born[here] = array("I", [self._now if born == _NEVER else born for born in first[here]])
            first[here] = array("I", [_NEVER]) * count
        self._kept = []
        for runs in copies.values():
            for _, slot, count in runs:
                self._kept += _alike(first, last, slot, slot + count)
                first[slot : slot + count] = array("I", [_NEVER]) * count

    def revive(self, moment: int, slots: AbstractSet[int]) -> None:
        """The tree becomes the copy of `moment` again, which refers to `slots`: those are in use. (Others may look as if it
        had them, because they were in use before and after.)"""
        kept, self._kept = self._kept, []
        for one in kept:
            if not one.born <= moment < one.died:
                self._kept.append(one)
                continue
            start, end = one.run.slot, one.run.slot + one.run.length
            while start < end:
                used = start in slots
                stop = start + 1
                while stop < end and (stop in slots) == used:
                    stop += 1
                if not used:
                    self._kept.append(Kept(one.born, one.died, Run(0, start, stop - start)))
                start = stop


def _alike(first: "array[int]", last: "array[int]", start: int, end: int) -> Iterator[Kept]:
    """The slots of [start, end) that are kept, neighbours of the same fate together."""
    while start < end:
        fate = first[start], last[start]
        stop = start + 1
        while stop < end and (first[stop], last[stop]) == fate:
            stop += 1
        if fate[0] != _NEVER:
            yield Kept(fate[0], fate[1] + 1, Run(0, start, stop - start))
        start = stop
