"""The trio driver of the overlay: runs an operation's steps and fulfils each Ask at once when everything it needs is in
memory (no hand-over: that would cost more than the request), in a worker when not.

Rules that hold here:
- steps run on the trio thread only, so the overlay needs no locks; workers see the lower and never the overlay;
- this thread has called `forbid_blocking`: an Ask that would decode or wait raises Cold, with the loads that cure it. They
  are run in the pool, and the Ask is made again. One that stays cold (its chunks do not fit in the cache together) is made
  whole in a worker, as is one that says of itself that it is slow;
- what an Ask raises is raised inside the operation, at the yield;
- an operation that waits for workers is a Pursuit: called back when they are done, it goes on from there. Nothing of trio
  is in its way, which costs as much as decoding a small chunk.
"""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Generic, TypeVar

import trio

from dmgfs.fuse.pool import Flight, Pool
from dmgfs.source import Cold
from overlay.vfs import Ask, Steps

T = TypeVar("T")


class Held(Generic[T]):
    """An operation that cannot go on at once. cold: what its Ask lacks; None for one that is slow in any case."""

    __slots__ = ("ask", "cold", "steps")

    def __init__(self, steps: Steps[T], ask: Ask, cold: Cold | None) -> None:
        self.steps = steps
        self.ask = ask
        self.cold = cold


class Disk:
    """How long to look for bytes that the disk has been asked for. A fast one brings them before a worker has woken up."""

    PATIENCE = 250e-6  # seconds
    CREDIT = 8  # bytes that came earn 1, bytes that did not cost 2
    REST = 512  # times that are not waited for at all, when the credit is used up

    def __init__(self) -> None:
        self._credit = self.CREDIT
        self._rest = 0

    def looks(self) -> Iterator[None]:
        """For each look, as long as it may still pay. Whoever has found the bytes does not come back."""
        yield
        if self._rest:
            self._rest -= 1
            if not self._rest:
                self._credit = self.CREDIT // 2
            return
        limit = perf_counter() + self.PATIENCE
        try:
            while perf_counter() < limit:
                yield
        except GeneratorExit:
            self._credit = min(self._credit + 1, self.CREDIT)
            raise
        self._credit -= 2
        if self._credit <= 0:
            self._rest = self.REST


class Driver:
    """Runs operations. `hits` counts Asks that were answered at once, `misses` those that needed the pool."""

    ROUNDS = 4

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.disk = Disk()
        self.hits = 0
        self.misses = 0

    async def run(self, steps: Steps[T]) -> T:
        """The result of the operation. Raises what it raises. When cancelled, the operation ends at its last yield."""
        result = self.now(steps)
        return await self.finish(result) if isinstance(result, Held) else result

    async def ask(self, function: Callable[..., T], *arguments: object) -> T:
        """One call into the lower, outside of an operation."""
        return await self.run(_single(Ask(function, arguments)))

    def now(self, steps: Steps[T]) -> T | Held[T]:
        """The result of an operation that has everything in memory; else what `finish` goes on with. Raises what the
        operation raises."""
        try:
            return self.go_on(steps, next(steps))
        except StopIteration as end:
            result: T = end.value
            return result

    async def finish(self, held: Held[T]) -> T:
        """The rest of an operation."""
        ended = trio.Event()
        outcome: list[Outcome[T]] = []

        def deliver(result: Outcome[T]) -> None:
            outcome.append(result)
            ended.set()

        pursuit = Pursuit(self, held, deliver)
        pursuit.start()
        try:
            await ended.wait()
        finally:
            pursuit.close()
        return outcome[0]()

    def go_on(self, steps: Steps[T], ask: Ask) -> T | Held[T]:
        """From `ask` as far as memory goes."""
        decoded = 0
        try:
            while not ask.slow:
                try:
                    answer = ask.function(*ask.arguments)
                except Cold as cold:
                    if decoded == self.ROUNDS or not self._decode(cold):
                        return Held(steps, ask, cold)
                    decoded += 1
                except Exception as error:
                    self.hits += 1
                    ask = steps.throw(error)
                else:
                    self.hits += 1
                    decoded = 0
                    ask = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        return Held(steps, ask, None)

    def _decode(self, cold: Cold) -> bool:
        """Runs the one load that is missing here, if that takes less time than handing it over, and nobody does already."""
        if len(cold.loads) != 1 or cold.loads[0].quick is None or self.pool.has(cold.loads[0]):
            return False
        quick = cold.loads[0].quick
        for _ in self.disk.looks():
            try:
                quick()
            except Cold:
                continue  # its bytes are on their way from the disk
            except Exception:
                return False  # damaged: that is for a worker to find out
            self.misses += 1
            return True
        return False


class Pursuit(Generic[T]):
    """The rest of an operation that waits for workers. deliver(outcome) is called when it has ended, on this thread,
    perhaps before `start` returns; `outcome()` gives the result or raises what the operation raised.

    An Ask that stays cold after its loads (one failed, or was evicted at once), or too often, is made whole in a worker,
    which shows what is the matter.
    """

    __slots__ = ("_cold", "_deliver", "_driver", "_flight", "_held", "_rounds", "_steps")

    def __init__(self, driver: Driver, held: Held[T], deliver: "Callable[[Outcome[T]], object]") -> None:
        self._driver = driver
        self._deliver = deliver
        self._steps: Steps[T] | None = held.steps
        self._held = held
        self._cold = held.cold
        self._rounds = 0
        self._flight: Flight | None = None

    def start(self) -> None:
        self._driver.misses += 1
        self._wait()

    def close(self) -> None:
        """Ends the operation where it is; nothing is delivered any more."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()

    def _wait(self) -> None:
        pool, ask = self._driver.pool, self._held.ask
        while self._steps is not None:
            if self._cold is None or self._rounds == Driver.ROUNDS:
                self._flight = pool.begin_call(ask.function, ask.arguments, self._called)
                return
            self._rounds += 1
            if not pool.begin(self._cold.loads, self._fetched):
                return
            self._try_again()

    def _fetched(self) -> None:
        if self._steps is not None:
            self._try_again()
            self._wait()

    def _try_again(self) -> None:
        ask, before = self._held.ask, self._cold
        assert before is not None
        try:
            answer = ask.function(*ask.arguments)
        except Cold as still:
            if set(still.loads) == set(before.loads):
                self._rounds = Driver.ROUNDS
            self._cold = still
        except Exception as error:
            self._go_on(None, error)
        else:
            self._go_on(answer, None)

    def _called(self) -> None:
        assert self._flight is not None
        if self._steps is not None:
            self._go_on(self._flight.value, self._flight.error)
            self._wait()

    def _go_on(self, answer: object, error: BaseException | None) -> None:
        steps = self._steps
        assert steps is not None
        try:
            ask = steps.send(answer) if error is None else steps.throw(error)
            result = self._driver.go_on(steps, ask)
        except StopIteration as end:
            self._end(Outcome(end.value, None))
        except BaseException as failure:
            self._end(Outcome(None, failure))
        else:
            if isinstance(result, Held):
                self._driver.misses += 1
                self._held, self._cold, self._rounds = result, result.cold, 0
            else:
                self._end(Outcome(result, None))

    def _end(self, outcome: "Outcome[T]") -> None:
        self._steps = None
        self._deliver(outcome)


class Outcome(Generic[T]):
    """What an operation came to."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: T | None, error: BaseException | None) -> None:
        self._result = result
        self._error = error

    def __call__(self) -> T:
        if self._error is not None:
            raise self._error
        result: Any = self._result
        return result  # type: ignore[no-any-return]


def _single(ask: Ask) -> Steps[Any]:
    return (yield ask)
