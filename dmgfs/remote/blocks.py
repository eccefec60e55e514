"""The object in blocks of one size: in memory, on the disk, or on the way.

Rules that hold here:
- a block is fetched once, however many threads want it; who comes second waits for the first one's flight;
- neighbours that are missing are one request, so a chunk of the image is one range; small reads become whole blocks, so
  headers and trees do not cost a request each;
- who reads on where somebody read before gets blocks fetched ahead, twice as many each time;
- where blocks are kept for other processes as well, who is about to fetch one claims it there, and who finds it claimed
  waits for it to appear: so many mounts of one machine fetch it once. Nobody waits longer than CLAIMED, and after that not
  at all for a while: who claimed it may have been stopped;
- a failure is raised to everybody who waits for that flight and then forgotten: the next read asks again.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from dmgfs.remote.ahead import Streams
from dmgfs.remote.thread import Unwaited

BLOCK = 256 << 10
MOST_SPAN = 16
"""Blocks in one request."""

CLAIMED = 5.0
"""Seconds to wait for a block that another process fetches."""

IMPATIENT = 60.0
_LOOK = 0.03

MEMORY = 16 << 20
MOST_AHEAD = 16
"""Blocks on the way that nobody has asked for yet: far away from the server a sequential read waits for one round trip
instead of one for each block, and small files that lie together come in one request."""

_STORING = Unwaited()


class Kept(Protocol):
    """Where blocks are beyond this process."""

    def get(self, index: int) -> bytes | None: ...

    def put(self, index: int, data: bytes) -> None: ...

    def has(self, index: int) -> bool: ...

    def claim(self, index: int) -> bool:
        """False: somebody else is fetching it."""
        ...

    def release(self, index: int) -> None: ...


class _Flight:
    __slots__ = ("data", "done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.data = b""
        self.error: BaseException | None = None


@dataclass(slots=True)
class Tally:
    """Blocks found in memory, on the disk, and fetched; ahead: of these, before anybody asked."""

    memory: int = 0
    disk: int = 0
    fetched: int = 0
    ahead: int = 0


class Blocks:
    """fetch(first, last) brings blocks first to last-1 as one string of bytes (fewer at the object's end); result waits for
    it. count: of blocks in the object. kept: None: nowhere."""

    def __init__(
        self,
        count: int,
        fetch: "Callable[[int, int], Future[bytes]]",
        result: "Callable[[Future[bytes]], bytes]",
        kept: Kept | None,
        memory: int = MEMORY,
    ) -> None:
        self.tally = Tally()
        self._fetch = fetch
        self._result = result
        self._kept = kept
        self._most = max(memory // BLOCK, 1)
        self._memory: OrderedDict[int, bytes] = OrderedDict()
        self._flights: dict[int, _Flight] = {}
        self._ended = threading.Event()
        self._patient_from = 0.0
        self._streams = Streams(count, MOST_SPAN)
        self._ahead = 0
        self._lock = threading.Lock()

    def in_memory(self, first: int, last: int) -> list[bytes] | None:
        """Blocks first to last-1 if all are there. Waits for nothing."""
        with self._lock:
            blocks = [self._memory.get(index) for index in range(first, last)]
            if None in blocks:
                return None
            for index in range(first, last):
                self._memory.move_to_end(index)
            self.tally.memory += last - first
        return [block for block in blocks if block is not None]

    def get(self, first: int, last: int) -> list[bytes]:
        """Blocks first to last-1. Raises what fetching raises."""
        found: dict[int, bytes] = {}
        flights: dict[int, _Flight] = {}
        mine: list[int] = []
        with self._lock:
            for index in range(first, last):
                data = self._memory.get(index)
                if data is not None:
                    self._memory.move_to_end(index)
                    self.tally.memory += 1
                    found[index] = data
                    continue
                flight = self._flights.get(index)
                if flight is None:
                    flight = self._flights[index] = _Flight()
                    mine.append(index)
                flights[index] = flight
        spans = self._begin(mine) if mine else []
        self._read_ahead(first, last)
        if mine:
            self._finish(mine, spans)
        for index, flight in flights.items():
            flight.done.wait()
            if flight.error is not None:
                raise flight.error.with_traceback(None)
            found[index] = flight.data
        return [found[index] for index in range(first, last)]

    def end(self) -> None:
        """Nobody waits for other processes any more."""
        self._ended.set()

    def put(self, index: int, data: bytes) -> None:
        """A block that came otherwise."""
        with self._lock:
            self._keep(index, data)
        if self._kept is not None:
            self._kept.put(index, data)

    def _begin(self, mine: list[int]) -> "list[tuple[int, int, Future[bytes]]]":
        """Takes these blocks, whose flights are ours, from the disk and asks for the rest: (first, last + 1, answer) of
        each request. What has landed is taken out of `mine`; what fails is landed as failed."""
        try:
            claimed = []
            for index in list(mine):
                if self._from_disk(index):
                    mine.remove(index)
                elif self._claim(index):
                    if self._from_disk(index):  # whoever had it claimed was done just now
                        self._release([index])
                        mine.remove(index)
                    else:
                        claimed.append(index)
            return [(start, end, self._fetch(start, end)) for start, end in runs(claimed)]
        except BaseException as error:
            self._release(mine)
            self._fail(mine, error)
            mine.clear()
            return []

    def _finish(self, mine: list[int], spans: "list[tuple[int, int, Future[bytes]]]") -> None:
        """Lands the rest of `mine`: what the requests bring, then what other processes have claimed."""
        try:
            for start, end, future in spans:
                for index, data in _cut(start, end, self._result(future)):
                    self._fetched(index, data)
                    mine.remove(index)
            self._wait_for_others(mine)
            for start, end, future in [(start, end, self._fetch(start, end)) for start, end in runs(mine)]:
                for index, data in _cut(start, end, self._result(future)):
                    self._fetched(index, data)
                    mine.remove(index)
        except BaseException as error:
            self._release(mine)
            self._fail(mine, error)

    def _wait_for_others(self, mine: list[int]) -> None:
        """Lands what appears on the disk. What is left then is for us to fetch."""
        end = time.monotonic() + CLAIMED
        ours: set[int] = set()
        while mine and len(ours) < len(mine) and time.monotonic() > self._patient_from:
            for index in [index for index in mine if index not in ours]:
                if self._from_disk(index):
                    mine.remove(index)
                elif self._claim(index):
                    ours.add(index)
            if len(ours) == len(mine) or self._ended.wait(_LOOK):
                return
            if time.monotonic() > end:
                self._patient_from = time.monotonic() + IMPATIENT
                return

    def _from_disk(self, index: int) -> bool:
        if self._kept is None or not self._kept.has(index):
            return False
        data = self._kept.get(index)
        if data is None:
            return False
        self.tally.disk += 1
        self._land(index, data)
        return True

    def _fetched(self, index: int, data: bytes) -> None:
        self.tally.fetched += 1
        self._land(index, data)
        if self._kept is not None:
            self._kept.put(index, data)
            self._kept.release(index)

    def _claim(self, index: int) -> bool:
        return self._kept is None or self._kept.claim(index)

    def _release(self, indices: Sequence[int]) -> None:
        if self._kept is not None:
            for index in indices:
                self._kept.release(index)

    def _read_ahead(self, first: int, last: int) -> None:
        """Fetches on behind `last` if this read goes on where another one ended."""
        with self._lock:
            found = self._streams.note(first, last)
        if found is None:
            return
        stream, wanted = found
        stored = {index for index in wanted if self._kept is not None and self._kept.has(index)}
        mine = []
        with self._lock:
            for index in wanted:
                if self._ahead >= MOST_AHEAD:
                    break
                stream.end = index + 1
                if index in stored or index in self._memory or index in self._flights or not self._claim(index):
                    continue
                self._flights[index] = _Flight()
                self._ahead += 1
                mine.append(index)
        for start, stop in runs(mine):
            try:
                future = self._fetch(start, stop)
            except OSError as error:
                self._arrived(range(start, stop), error)
                continue
            future.add_done_callback(partial(self._arrive, start, stop))

    def _arrive(self, start: int, end: int, future: "Future[bytes]") -> None:
        """On the loop's thread: nothing slow."""
        try:
            blocks = list(_cut(start, end, self._result(future)))
        except BaseException as error:
            self._arrived(range(start, end), error)
            return
        for index, data in blocks:
            self.tally.fetched += 1
            self.tally.ahead += 1
            self._land(index, data)
        with self._lock:
            self._ahead -= end - start
        if self._kept is not None:
            _STORING.submit(self._store, blocks)

    def _store(self, blocks: list[tuple[int, bytes]]) -> None:
        assert self._kept is not None
        for index, data in blocks:
            self._kept.put(index, data)
            self._kept.release(index)

    def _arrived(self, indices: Sequence[int], error: BaseException) -> None:
        self._release(indices)
        self._fail(indices, error)
        with self._lock:
            self._ahead -= len(indices)

    def _land(self, index: int, data: bytes) -> None:
        with self._lock:
            flight = self._flights.pop(index)
            self._keep(index, data)
        flight.data = data
        flight.done.set()

    def _fail(self, indices: Sequence[int], error: BaseException) -> None:
        with self._lock:
            flights = [self._flights.pop(index) for index in indices]
        for flight in flights:
            flight.error = error
            flight.done.set()

    def _keep(self, index: int, data: bytes) -> None:
        self._memory[index] = data
        self._memory.move_to_end(index)
        while len(self._memory) > self._most:
            self._memory.popitem(last=False)


def runs(indices: Sequence[int], most: int = MOST_SPAN) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last + 1) of neighbours, `most` at a time."""
    start = end = -1
    for index in indices:
        if index == end and end - start < most:
            end += 1
            continue
        if start >= 0:
            yield start, end
        start, end = index, index + 1
    if start >= 0:
        yield start, end


def _cut(start: int, end: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    for index in range(start, end):
        at = (index - start) * BLOCK
        yield index, data[at : at + BLOCK]
