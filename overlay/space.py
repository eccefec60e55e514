"""The slots of a shadow file: which are free, which must wait before they are used again, what each holds.

Rules that hold here:
- time is cut into epochs by the syncs: beginning one ends the epoch, and when it has returned the epoch is durable;
- a freed slot waits until the epoch in which it was freed is durable, because until then the medium may come back to
  before. A slot that was filled in the epoch that still runs is free at once: no state to come back to refers to it, or,
  if one does, its checksum tells;
- a few slots are kept for changes that free something;
- free slots that were written to hold room of the medium for nothing. `litter` says how much, `reclaim` gives it back piece
  by piece. While a piece is under way its slots are not free, so nobody can take what is about to be thrown away.
"""

import errno
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from overlay.disk import Disk
from overlay.log import Segment
from overlay.pages import PAGE, Run
from overlay.slots import Extent, Slots

MARGIN = 8
"""Slots that only changes which free something may take."""

_PIECE = 16384
"""Slots that are given back at once: 64 MiB."""

_PIECE_MIN = 16
"""A power of two. A shorter free extent is left as it is: it will be used again soon."""

_GROW_MIN = 256
_GROW_MAX = 16384


class Space:
    """budget: bytes that the file may take, None for what the medium has. sums: CRC-32 of what each slot holds. born: epoch
    in which it was filled. epoch: the one that runs. durable: the last one that is safe."""

    def __init__(self, disk: Disk, budget: int | None) -> None:
        self._disk = disk
        self.budget = budget
        self.sums = array("I")
        self.born = array("I")
        self.epoch = 1
        self.durable = 0
        self._slots = Slots()
        self._waiting: list[tuple[int, Extent]] = []
        self._worn = bytearray()  # by slot: 1 if it was written since it last was a hole

    def begin(self, sums: "array[int]", free: Sequence[Extent]) -> None:
        """The file as it was found: all of it durable."""
        self.sums = sums
        self.born = array("I", [0]) * len(sums)
        self._worn = bytearray(len(sums))
        for slot, length in free:
            self._slots.give(slot, length)

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self._disk.size - (self._slots.free + self.waiting) * PAGE

    @property
    def waiting(self) -> int:
        """Slots that a sync would set free."""
        return sum(extent.length for _, extent in self._waiting)

    def tail(self) -> int:
        """Bytes at the end of the file that nothing uses."""
        extents = self._slots.extents()
        return extents[-1].length * PAGE if extents and sum(extents[-1]) == self._disk.size // PAGE else 0

    def cut(self) -> None:
        """The file was cut off inside of its free end."""
        end, old = self._disk.size // PAGE, len(self.sums)
        self._slots.take_before(old, old, old - end)
        for column in (self.sums, self.born, self._worn):
            del column[end:]

    # -- getting -----------------------------------------------------------------------------------------------------------

    def stretch(self) -> None:
        """Whatever the file has grown by is free."""
        first, end = len(self.sums), self._disk.size // PAGE
        if end > first:
            self.sums.extend(array("I", [0]) * (end - first))
            self.born.extend(array("I", [0]) * (end - first))
            self._worn.extend(bytes(end - first))
            self._slots.give(first, end - first)

    def grow(self, count: int) -> bool:
        """At least `count` more slots at the end of the file, or False."""
        size = self._disk.size // PAGE
        for more in (count + min(max(_GROW_MIN, size // 8), _GROW_MAX), count):
            if self.budget is not None and (size + more) * PAGE > self.budget:
                continue
            try:
                self._disk.grow((size + more) * PAGE)
            except OSError:
                continue
            self.stretch()
            return True
        return False

    def has(self, count: int) -> bool:
        """Whether `count` slots are free, after growing the file if need be."""
        return count <= self._slots.free or self.grow(count - self._slots.free)

    def take(self, count: int, near: int) -> list[Extent]:
        """`count` slots (see `Slots.take`); ENOSPC."""
        if count > self._slots.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._slots.take(count, near)

    def segment(self, length: int) -> Segment | None:
        """Slots in a row for the log; None if there is no room."""
        extent = self._slots.take_whole(length)
        if extent is None and self.grow(length):
            extent = self._slots.take_whole(length)
        if extent is None:
            return None
        self._worn[extent.slot : extent.slot + extent.length] = b"\1" * extent.length
        return Segment(*extent)

    def filled(self, slot: int, sums: Sequence[int]) -> None:
        """These slots hold pages with these checksums now."""
        self.sums[slot : slot + len(sums)] = array("I", sums)
        self._worn[slot : slot + len(sums)] = b"\1" * len(sums)
        self.born[slot : slot + len(sums)] = array("I", [self.epoch]) * len(sums)

    # -- giving back -------------------------------------------------------------------------------------------------------

    def give_unused(self, extents: Sequence[Extent]) -> None:
        """Taken, and then nothing came of it."""
        for slot, length in extents:
            self._slots.give(slot, length)

    def give_later(self, slot: int, length: int) -> None:
        """Free once the running epoch is durable."""
        self._waiting.append((self.epoch, Extent(slot, length)))

    def free(self, runs: Sequence[Run]) -> None:
        """Pages that nothing refers to any more."""
        for run in runs:
            first, end = run.slot, run.slot + run.length
            while first < end:
                young = self.born[first] == self.epoch
                stop = first + 1
                while stop < end and (self.born[stop] == self.epoch) == young:
                    stop += 1
                if young:
                    self._slots.give(first, stop - first)
                else:
                    self.give_later(first, stop - first)
                first = stop

    def synced(self, epoch: int) -> None:
        """Everything up to `epoch` is on the medium."""
        self.durable = max(self.durable, epoch)
        waiting, self._waiting = self._waiting, []
        for freed, extent in waiting:
            if freed <= self.durable:
                self._slots.give(extent.slot, extent.length)
            else:
                self._waiting.append((freed, extent))

    # -- giving back to the medium -----------------------------------------------------------------------------------

    def litter(self) -> int:
        """Bytes of the medium that free slots hold for nothing, as far as is known, waiting ones included."""
        long = self._slots.long_extents(_PIECE_MIN)
        return (sum(self._worn.count(1, slot, slot + length) for slot, length in long) + self.waiting) * PAGE

    def reclaim(self, first: int, *, everything: bool) -> Iterator[Callable[[], None]]:
        """Gives free slots from slot `first` on back: yields calls that do it, for any thread; the next one may be asked
        for when one has returned. everything: also what seems to be a hole already."""
        for end in sorted(map(sum, self._slots.long_extents(_PIECE_MIN))):
            stop = end
            while (piece := self._slots.take_before(end, stop, _PIECE)) is not None:
                stop = piece.slot
                start = max(piece.slot, first)
                length = piece.slot + piece.length - start
                try:
                    if length > 0 and (everything or self._worn.find(1, start, start + length) >= 0):
                        yield partial(self._disk.punch, start * PAGE, length * PAGE)
                        self._worn[start : start + length] = bytes(length)
                except GeneratorExit:
                    raise  # given up, perhaps while a worker is still at it: nobody may have these slots any more
                except BaseException:
                    self._slots.give(*piece)
                    raise
                self._slots.give(*piece)
