"""The store in memory with its cold pages compressed: a RamStore where groups of 16 neighbouring slots are kept packed in
an arena of their own, while the memory that they stood in goes back to the system.

64 KiB are packed together because single pages do not pay. On programs, libraries and texts zstd at level 1 saved nothing
of what single pages take (whole slots), 42 % in groups of 16 KiB, 53 % of 64 KiB, 57 % of 256 KiB; unpacking a group, which
a read of one page has to wait for, took 34, 97 and 377 microseconds.

Rules that hold here:
- slots keep their numbers, so nobody above notices: a page map, a frozen copy and a snapshot refer to a packed slot as to
  any other, and share what is packed;
- a packed group is never written: a page in it that changes moves to another slot, as one that a frozen copy has;
- only groups of which every slot is in use are packed, and only if that saves a quarter;
- what a packed group takes is counted in whole slots with its record. One of which a quarter is gone is packed anew, one
  that takes more than the pages which are still wanted of it is unpacked. So `used` is what the process has grown by, and
  never more than without packing;
- packing is done in two halves: `candidates` and `install` on the thread of the store, `pack` anywhere. A group that was
  written in between stays as it is. A commit that does not fit packs some groups itself before it gives up;
- two unpacked groups are kept for the next read, 128 KiB that are not counted.
"""

import errno
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from overlay.arena import SEGMENT, Arena
from overlay.change import Change
from overlay.pages import PAGE, PAGE_BITS, Run, pages_in
from overlay.ram import RamStore
from overlay.slots import Extent
from overlay.vfs import Buffer

GROUP_BITS: Final = 4
GROUP: Final = 1 << GROUP_BITS
GROUP_BYTES: Final = GROUP << PAGE_BITS
WORTH_IT: Final = GROUP * 3 // 4
"""A group that takes more slots when it is packed stays as it is."""

COLD: Final = 30
"""Seconds without a touch after which a group is packed."""

PRESSED: Final = 1
"""The same where little of the budget is left."""

_RECORD: Final = 400
"""What a packed group takes besides (measured)."""

_WARM: Final = 2
_LOOKED_AT: Final = 4096
_TRIES: Final = 32
_AT_ONCE: Final = 4
_EVERY: Final = (1 << GROUP) - 1

# What a group is.
_LOOSE: Final = 0  # some slots are free
_FULL: Final = 1
_PACKED: Final = 2
_TRIED: Final = 3  # full, and not worth packing as long as it is not written to


class Codec(NamedTuple):
    """name: as users call it. pack: in any thread, several at a time. unpack: its result, and the length it must have."""

    name: str
    pack: Callable[[Buffer], bytes]
    unpack: Callable[[Buffer, int], bytes]


class Job(NamedTuple):
    """A group to be packed. version: of its content. view: its bytes."""

    group: int
    version: int
    view: memoryview


class _Group:
    """A packed group. alive: bit n for its n-th slot being in use. then: how many were when it was packed."""

    __slots__ = ("alive", "extents", "length", "slots", "then")

    def __init__(self, extents: Sequence[Extent], length: int, alive: int) -> None:
        self.extents = tuple(extents)
        self.length = length
        self.slots = sum(extent.length for extent in extents)
        self.alive = alive
        self.then = alive.bit_count()


class SqueezedStore(RamStore):
    """clock: seconds. cold: seconds without a touch. Must be used by one thread, but for `copy` and `pack`."""

    def __init__(
        self, budget: int, codec: Codec, *, clock: Callable[[], float] = time.monotonic, cold: int = COLD
    ) -> None:
        super().__init__(budget)
        self.codec = codec
        self._clock = clock
        self._cold = cold
        self._vault = Arena()  # what is packed
        self._groups: dict[int, _Group] = {}
        self._squeezed = 0  # pages in use that are packed
        self._vaulted = 0  # slots that they take in the vault
        self._warm: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.RLock()  # of everything that `copy` looks at
        self._kind = bytearray()  # by group, as the next three
        self._live = bytearray()  # slots in use, of groups that are not packed
        self._touched = array("I")  # when
        self._version = array("I")
        self._hand = 0
        self._thin: dict[int, None] = {}  # groups of which a quarter is gone since they were packed

    # -- books -----------------------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        return super().used + ((self._vaulted - self._squeezed) << PAGE_BITS) + _RECORD * len(self._groups)

    @property
    def squeezed(self) -> tuple[int, int]:
        """How many pages are packed, and the bytes that they take."""
        return self._squeezed, (self._vaulted << PAGE_BITS) + _RECORD * len(self._groups)

    def _now(self) -> int:
        return int(self._clock())

    def _take(self, count: int, near: int) -> list[Extent]:
        extents = super()._take(count, near)
        missing = self.arena.segments * (SEGMENT >> GROUP_BITS) - len(self._kind)
        if missing:
            for book in (self._kind, self._live):
                book.extend(bytes(missing))
            for stamps in (self._touched, self._version):
                stamps.extend(array("I", bytes(4 * missing)))
        for slot, length in extents:
            for group, _, part in _by_group(slot, length):
                self._live[group] += part
                if self._live[group] == GROUP:
                    self._kind[group] = _FULL
        return extents

    def _write(self, slot: int, data: Buffer, start: int = 0) -> None:
        super()._write(slot, data, start)
        now = self._now()
        for group in range(slot >> GROUP_BITS, ((slot + pages_in(start + len(data)) - 1) >> GROUP_BITS) + 1):
            self._touched[group] = now
            self._version[group] = (self._version[group] + 1) & 0xFFFF_FFFF
            if self._kind[group] == _TRIED:
                self._kind[group] = _FULL

    def free(self, runs: Sequence[Run]) -> None:
        loose: list[Run] = []
        for run in runs:
            for group, slot, part in _by_group(run.slot, run.length):
                if self._kind[group] == _PACKED:
                    self._lose(group, slot & (GROUP - 1), part)
                    continue
                self._live[group] -= part
                self._kind[group] = _LOOSE
                if loose and sum(loose[-1][1:]) == slot:
                    loose[-1] = Run(0, loose[-1].slot, loose[-1].length + part)
                else:
                    loose.append(Run(0, slot, part))
        super().free(loose)

    # -- committing ------------------------------------------------------------------------------------------------------

    def commit(self, change: Change) -> None:
        kept = change.shared

        def stays(slot: int) -> bool:
            return slot >> GROUP_BITS in self._groups or (kept is not None and kept(slot))

        for _ in range(_TRIES):
            change.shared = stays if self._groups else kept
            try:
                super().commit(change)
                return
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._relieve():
                    raise
        super().commit(change)

    def _relieve(self) -> bool:
        """Packs a few groups at once, so that a change may fit. False if there are none to try."""
        if self.repack(_AT_ONCE):
            return True
        jobs = self.candidates(_AT_ONCE, 0)
        for job in jobs:
            self.install(job, self.pack(job))
        return bool(jobs)

    # -- reading ---------------------------------------------------------------------------------------------------------

    def view(self, slot: int, count: int) -> Buffer:
        first, last = slot >> GROUP_BITS, (slot + count - 1) >> GROUP_BITS
        self._touched[first : last + 1] = array("I", [self._now()]) * (last + 1 - first)
        if not any(group in self._groups for group in range(first, last + 1)):
            return self.arena.view(slot, count)
        parts: list[Buffer] = []
        with self._lock:
            for group, start, length in _by_group(slot, count):
                if group in self._groups:
                    inside = (start & (GROUP - 1)) << PAGE_BITS
                    parts.append(memoryview(self._unpacked(group))[inside : inside + (length << PAGE_BITS)])
                else:
                    parts.append(self.arena.view(start, length))
            return b"".join(parts)

    view_now = view

    def copy(self, slot: int, count: int) -> Buffer:
        with self._lock:
            return bytes(self.view(slot, count))

    def _unpacked(self, group: int) -> bytes:
        data = self._warm.get(group)
        if data is None:
            packed = self._groups[group]
            parts = [self._vault.view(*extent) for extent in packed.extents]
            whole = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
            data = self.codec.unpack(whole[: packed.length], GROUP_BYTES)
            self._warm[group] = data
            if len(self._warm) > _WARM:
                self._warm.popitem(last=False)
        return data

    # -- packing ---------------------------------------------------------------------------------------------------------

    @property
    def relaxed(self) -> bool:
        """Whether an eighth of the budget is free."""
        return self.used < self.budget - self.budget // 8

    @property
    def patience(self) -> int:
        """Seconds without a touch after which a group should be packed, as things are."""
        return self._cold if self.relaxed else min(PRESSED, self._cold)

    def candidates(self, limit: int, age: int) -> list[Job]:
        """Up to `limit` groups that nobody touched for `age` seconds. Goes round: the next call looks further on."""
        jobs: list[Job] = []
        now = self._now()
        start = self._hand
        wrapped = False
        for _ in range(_LOOKED_AT):
            group = self._kind.find(_FULL, self._hand)
            if group < 0 and not wrapped:
                self._hand, wrapped = 0, True
                continue
            if group < 0 or (wrapped and group >= start):
                break
            self._hand = group + 1
            if now - self._touched[group] >= age:
                jobs.append(Job(group, self._version[group], self.arena.view(group << GROUP_BITS, GROUP)))
                if len(jobs) == limit:
                    break
        return jobs

    def pack(self, job: Job) -> bytes | None:
        """None if it is not worth it. In any thread: what is written meanwhile makes the result worthless."""
        data = self.codec.pack(job.view)
        return data if pages_in(len(data)) <= WORTH_IT else None

    def install(self, job: Job, data: bytes | None) -> bool:
        """The group is packed from now on, if it is still what it was."""
        group = job.group
        if self._version[group] != job.version or self._kind[group] != _FULL:
            return False
        if data is None:
            self._kind[group] = _TRIED
            return False
        packed = self._lock_away(data, _EVERY)
        if packed is None:
            return False
        with self._lock:
            self._groups[group] = packed
            self._kind[group] = _PACKED
            self.arena.punch(group << GROUP_BITS, GROUP)
        self._squeezed += GROUP
        return True

    def _lock_away(self, data: bytes, alive: int) -> _Group | None:
        """Into the vault; None without memory for it."""
        count = pages_in(len(data))
        try:
            self._vault.reserve(count)
        except OSError:
            return None
        extents = self._vault.take(count, 0)
        rest = memoryview(data)
        for slot, length in extents:
            self._vault.write(slot, rest[: length * PAGE])
            rest = rest[length * PAGE :]
        self._vaulted += count
        return _Group(extents, len(data), alive)

    def _give_up(self, packed: _Group) -> None:
        """Nobody needs this place in the vault any more."""
        self._vault.give([Run(0, *extent) for extent in packed.extents])
        self._vaulted -= packed.slots

    def repack(self, limit: int) -> int:
        """Packs up to `limit` groups anew of which a quarter is gone, without it; how many there were."""
        groups = list(self._thin)[:limit]
        for group in groups:
            del self._thin[group]
            old = self._groups[group]
            with self._lock:
                data = bytearray(self._unpacked(group))
                for start, length, lives in _stretches(old.alive):
                    if not lives:
                        data[start << PAGE_BITS : (start + length) << PAGE_BITS] = bytes(length << PAGE_BITS)
                packed = self._lock_away(self.codec.pack(data), old.alive)
                if packed is None:
                    break
                if packed.slots >= old.slots:
                    self._give_up(packed)
                    old.then = packed.then
                    continue
                self._groups[group] = packed
            self._give_up(old)
        self._vault.return_stale()
        return len(groups)

    def _lose(self, group: int, first: int, count: int) -> None:
        """Slots of a packed group are free."""
        packed = self._groups[group]
        packed.alive &= ~(((1 << count) - 1) << first)
        self._pages -= count
        self._squeezed -= count
        alive = packed.alive.bit_count()
        if (packed.slots << PAGE_BITS) + _RECORD <= alive << PAGE_BITS:
            if alive * 4 <= packed.then * 3:
                self._thin[group] = None
            return
        self._thin.pop(group, None)
        with self._lock:
            data = self._unpacked(group) if alive else b""
            del self._groups[group]
            self._warm.pop(group, None)
            for start, length, lives in _stretches(packed.alive):
                slot = (group << GROUP_BITS) + start
                if lives:
                    self.arena.write(slot, data[start << PAGE_BITS : (start + length) << PAGE_BITS])
                else:
                    self.arena.slots.give(slot, length)
        self._give_up(packed)
        self._squeezed -= alive
        self._live[group] = alive
        self._kind[group] = _LOOSE

    def close(self) -> None:
        super().close()
        self._vault.close()


def _by_group(slot: int, count: int) -> list[tuple[int, int, int]]:
    """A run of slots as (group, first slot, how many) per group."""
    parts = []
    end = slot + count
    while slot < end:
        stop = min(end, (slot | (GROUP - 1)) + 1)
        parts.append((slot >> GROUP_BITS, slot, stop - slot))
        slot = stop
    return parts


def _stretches(alive: int) -> list[tuple[int, int, bool]]:
    """The slots of a group as (first, how many, whether in use)."""
    found: list[tuple[int, int, bool]] = []
    start = 0
    while start < GROUP:
        lives = bool(alive >> start & 1)
        stop = start + 1
        while stop < GROUP and bool(alive >> stop & 1) == lives:
            stop += 1
        found.append((start, stop - start, lives))
        start = stop
    return found
