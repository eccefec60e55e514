"""Worker threads for everything that decodes or waits for a disk, so that the thread that serves FUSE never does.

Rules that hold here:
- plain threads and two queues, not trio's: half the cost per hand-over (measured), and two priorities. A reader who waits
  (foreground) goes before reading ahead (background), and with more than one worker one of them never takes background
  work, so nobody waits behind a chunk that nobody has asked for;
- single flight: one load per key is under way; a reader who wants what is being read ahead waits for that same flight;
- all bookkeeping happens on the trio thread. Workers run loads and hand the flight back, nothing else. They wake that
  thread only for a flight that somebody waits for: what was read ahead is entered when the books are opened next;
- who waits is called when all of its flights have landed, on the trio thread; the asynchronous ways are built on that;
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
    """One piece of work under way. After `landed`: `value`, or `error` if it failed. wanted: somebody waits for it. then:
    whom to call when it lands."""

    __slots__ = ("_ticket", "error", "key", "landed", "run", "then", "value", "wanted")

    def __init__(self, key: Hashable, run: Callable[[], object]) -> None:
        self.key = key
        self.run = run
        self.landed = False
        self.then: list[Callable[[], None]] = []
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


class _Landing:
    """Counts down: calls `then` when as many flights have landed."""

    __slots__ = ("_left", "_then")

    def __init__(self, left: int, then: Callable[[], None]) -> None:
        self._left = left
        self._then = then

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self._then()


class Pool:
    """`workers` threads. `start` them before trio runs, `attach` inside of it, `stop` at the end. landed: what workers
    have handed back and `land` has not entered yet."""

    PATIENCE = 5.0  # seconds for a load that hangs (a dead network disk) before `stop` leaves it behind

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.foreground = 0
        self.background = 0
        self._flights: dict[Hashable, Flight] = {}
        self._urgent: queue.SimpleQueue[Flight | None] = queue.SimpleQueue()
        self._ahead: deque[Flight] = deque()
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.landed: deque[Flight] = deque()
        self._landing = False
        self._ring: Callable[[], bool] = _nobody
        self._trio: trio.lowlevel.TrioToken | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self.workers):
            target = self._serve_urgent if number == 0 and self.workers > 1 else self._serve_all
            thread = threading.Thread(target=target, name=f"dmgfs-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def attach(self, ring: Callable[[], bool] | None = None) -> None:
        """Call on the trio thread, before the first request. ring: called in a worker when a flight has come back that
        somebody waits for; False if the trio thread does not listen to it now, so that trio is to wake it."""
        self._trio = trio.lowlevel.current_trio_token()
        self._ring = ring if ring is not None else _nobody

    def stop(self) -> None:
        """Lets the workers finish what they run and end. What waits in the queues is dropped."""
        self._ahead.clear()
        for _ in self._threads:
            self._urgent.put(None)
            self._tokens.put(False)
        for thread in self._threads:
            thread.join(self.PATIENCE)
        self._threads.clear()

    def begin(self, loads: Iterable[Load], then: Callable[[], None]) -> bool:
        """Runs the loads (joins those under way) and calls `then` when all have landed; True: they have already, and
        nobody is called. Their failures are not told: whoever asks again finds them out."""
        flights = [self._board(load) for load in loads]
        self.land()  # one that ended before it was wanted has woken nobody
        flying = [flight for flight in flights if not flight.landed]
        if flying:
            landing = _Landing(len(flying), then) if len(flying) > 1 else then
            for flight in flying:
                flight.then.append(landing)
        return not flying

    def begin_call(
        self, function: Callable[..., object], arguments: Iterable[object], then: Callable[[], None]
    ) -> Flight:
        """function(*arguments) in a worker. Calls `then` when it is done; the flight has its result."""
        flight = Flight(object(), lambda: function(*arguments))
        flight.then.append(then)
        self._urge(flight)
        return flight

    async def fetch(self, loads: Iterable[Load]) -> None:
        """As `begin`; returns when all have landed."""
        landed = trio.Event()
        if not self.begin(loads, landed.set):
            await landed.wait()

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """function(*arguments) in a worker. Raises what it raises."""
        landed = trio.Event()
        flight = self.begin_call(function, arguments, landed.set)
        await landed.wait()
        if flight.error is not None:
            raise flight.error
        value: T = flight.value
        return value

    def read_ahead(self, load: Load) -> Flight | None:
        """Queues a background load and returns its flight; None if that key is under way already."""
        self.land()
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
        flight.landed = True
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
        self.landed.append(flight)  # before the look at `wanted`: see `fetch`
        if not flight.wanted:
            return
        if self._ring():
            return
        assert self._trio is not None
        try:
            self._trio.run_sync_soon(self.land, idempotent=True)
        except trio.RunFinishedError:
            pass  # the mount is gone, nobody waits

    def land(self) -> None:
        """Enters what workers have handed back, and calls who waits for it. On the trio thread. Within such a call it does
        nothing: what has come back meanwhile has its turn afterwards."""
        if self._landing:
            return
        self._landing = True
        try:
            while self.landed:
                flight = self.landed.popleft()
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]
                flight.landed = True
                for then in flight.then:
                    then()
                flight.then.clear()
        finally:
            self._landing = False


def _nobody() -> bool:
    return False
