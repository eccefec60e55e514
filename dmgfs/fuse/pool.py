"""Worker threads for everything that decodes or waits for a disk, so that the thread that serves FUSE never does.

Rules that hold here:
- plain threads and two queues, not trio's: half the cost per hand-over (measured), and two priorities. A reader who waits
  (foreground) goes before reading ahead (background), and with more than one worker one of them never takes background
  work, so nobody waits behind a chunk that nobody has asked for;
- single flight: one load per key is under way; a reader who wants what is being read ahead waits for that same flight;
- all bookkeeping happens on the trio thread. Workers run loads and hand the flight back, nothing else. They wake that
  thread only for a flight that somebody waits for: what was read ahead is entered when the books are opened next;
- a load's own failure is kept with its flight and never ends a worker.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import trio

from dmgfs.source import Load

T = TypeVar("T")


class Flight:
    """One piece of work under way. After `landed`: `value`, or `error` if it failed. wanted: somebody waits for it."""

    __slots__ = ("_ticket", "error", "key", "landed", "run", "value", "wanted")

    def __init__(self, key: Hashable, run: Callable[[], object]) -> None:
        self.key = key
        self.run = run
        self.landed = trio.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.wanted = False
        self._ticket = deque((None,))

    def claim(self) -> bool:
        """True for exactly one caller, of any thread: that one runs (or drops) the flight."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    @property
    def waiting(self) -> bool:
        """Nobody has begun with it."""
        return bool(self._ticket)


class Pool:
    """`workers` threads. `start` them before trio runs, `attach` inside of it, `stop` at the end."""

    PATIENCE = 5.0  # seconds for a load that hangs (a dead network disk) before `stop` leaves it behind

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.foreground = 0
        self.background = 0
        self._flights: dict[Hashable, Flight] = {}
        self._urgent: queue.SimpleQueue[Flight | None] = queue.SimpleQueue()
        self._ahead: deque[Flight] = deque()
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._done: deque[Flight] = deque()
        self._trio: trio.lowlevel.TrioToken | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self.workers):
            target = self._serve_urgent if number == 0 and self.workers > 1 else self._serve_all
            thread = threading.Thread(target=target, name=f"dmgfs-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def attach(self) -> None:
        """Call on the trio thread, before the first request."""
        self._trio = trio.lowlevel.current_trio_token()

    def stop(self) -> None:
        """Lets the workers finish what they run and end. What waits in the queues is dropped."""
        self._ahead.clear()
        for _ in self._threads:
            self._urgent.put(None)
            self._tokens.put(False)
        for thread in self._threads:
            thread.join(self.PATIENCE)
        self._threads.clear()

    async def fetch(self, loads: Iterable[Load]) -> None:
        """Runs the loads (joins those under way) and returns when all have landed. Their failures are not raised here:
        whoever asks again finds them out."""
        flights = [self._board(load) for load in loads]
        self._land()  # one that ended before it was wanted has woken nobody
        for flight in flights:
            if not flight.landed.is_set():
                await flight.landed.wait()

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """function(*arguments) in a worker. Raises what it raises."""
        flight = Flight(object(), lambda: function(*arguments))
        self._urge(flight)
        await flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        value: T = flight.value
        return value

    def read_ahead(self, load: Load) -> Flight | None:
        """Queues a background load and returns its flight; None if that key is under way already."""
        self._land()
        if load.key in self._flights:
            return None
        self.background += 1
        flight = self._flights[load.key] = Flight(load.key, load.run)
        self._ahead.append(flight)
        self._tokens.put(True)
        return flight

    def has(self, load: Load) -> bool:
        """Whether that work is under way or waits."""
        return load.key in self._flights

    def drop(self, flight: Flight) -> bool:
        """Takes back a background flight that nobody has begun or waits for. False if it is too late."""
        if flight.wanted or not flight.claim():
            return False
        self._flights.pop(flight.key, None)
        flight.landed.set()
        return True

    def _board(self, load: Load) -> Flight:
        flight = self._flights.get(load.key)
        if flight is None:
            flight = self._flights[load.key] = Flight(load.key, load.run)
            self._urge(flight)
        elif flight.waiting:
            self._urge(flight)  # it stands among the background work: let it overtake
        flight.wanted = True
        return flight

    def _urge(self, flight: Flight) -> None:
        self.foreground += 1
        flight.wanted = True
        self._urgent.put(flight)
        self._tokens.put(True)

    def _serve_urgent(self) -> None:
        while (flight := self._urgent.get()) is not None:
            self._fly(flight)

    def _serve_all(self) -> None:
        while self._tokens.get():
            try:
                flight = self._urgent.get_nowait()
            except queue.Empty:
                try:
                    flight = self._ahead.popleft()
                except IndexError:
                    continue  # another worker took what this token stood for
            if flight is None:
                return
            self._fly(flight)

    def _fly(self, flight: Flight) -> None:
        if not flight.claim():
            return
        try:
            flight.value = flight.run()
        except BaseException as error:
            flight.error = error
        self._done.append(flight)  # before the look at `wanted`: see `fetch`
        if not flight.wanted:
            return
        assert self._trio is not None
        try:
            self._trio.run_sync_soon(self._land, idempotent=True)
        except trio.RunFinishedError:
            pass  # the mount is gone, nobody waits

    def _land(self) -> None:
        while self._done:
            flight = self._done.popleft()
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            flight.landed.set()
