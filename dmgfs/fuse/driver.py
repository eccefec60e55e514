"""The trio driver of the overlay: runs an operation's steps and fulfils each Ask at once when everything it needs is in
memory (no hand-over: that would cost more than the request), in a worker when not.

Rules that hold here:
- steps run on the trio thread only, so the overlay needs no locks; workers see the lower and never the overlay;
- this thread has called `forbid_blocking`: an Ask that would decode or wait raises Cold, with the loads that cure it. They
  are run in the pool, and the Ask is made again. One that stays cold (its chunks do not fit in the cache together) is made
  whole in a worker, as is one that says of itself that it is slow;
- what an Ask raises is raised inside the operation, at the yield.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dmgfs.fuse.pool import Pool
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


class Driver:
    """Runs operations. `hits` counts Asks that were answered at once, `misses` those that needed the pool."""

    ROUNDS = 4

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
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
            return self._go_on(steps, next(steps))
        except StopIteration as end:
            result: T = end.value
            return result

    async def finish(self, held: Held[T]) -> T:
        """The rest of an operation."""
        steps = held.steps
        try:
            while True:
                self.misses += 1
                try:
                    if held.cold is None:
                        answer = await self.pool.call(held.ask.function, *held.ask.arguments)
                    else:
                        answer = await self._warm(held.ask, held.cold)
                except Exception as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
                result = self._go_on(steps, ask)
                if not isinstance(result, Held):
                    return result
                held = result
        except StopIteration as end:
            ended: T = end.value
            return ended
        finally:
            steps.close()

    def _go_on(self, steps: Steps[T], ask: Ask) -> T | Held[T]:
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
        try:
            cold.loads[0].quick()
        except Exception:
            return False  # its bytes are on the disk, or it is damaged: that is for a worker to find out
        self.misses += 1
        return True

    async def _warm(self, ask: Ask, cold: Cold) -> Any:
        for _ in range(self.ROUNDS):
            await self.pool.fetch(cold.loads)
            try:
                return ask.function(*ask.arguments)
            except Cold as still:
                if set(still.loads) == set(cold.loads):
                    break  # a load failed, or was evicted at once: the whole Ask shows which
                cold = still
        return await self.pool.call(ask.function, *ask.arguments)


def _single(ask: Ask) -> Steps[Any]:
    return (yield ask)
