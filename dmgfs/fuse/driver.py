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
from typing import Any, TypeVar, cast

from dmgfs.fuse.pool import Pool
from dmgfs.source import Cold
from overlay.vfs import Ask, Steps

T = TypeVar("T")


class Driver:
    """Runs operations. `hits` counts Asks that were answered at once, `misses` those that needed the pool."""

    ROUNDS = 4

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.hits = 0
        self.misses = 0

    async def run(self, steps: Steps[T]) -> T:
        """The result of the operation. Raises what it raises. When cancelled, the operation ends at its last yield."""
        try:
            ask = next(steps)
            while True:
                try:
                    answer = await self._answer(ask)
                except Exception as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def ask(self, function: Callable[..., T], *arguments: object) -> T:
        """One call into the lower, outside of an operation."""
        return cast(T, await self._answer(Ask(function, arguments)))

    async def _answer(self, ask: Ask) -> Any:
        if not ask.slow:
            try:
                answer = ask.function(*ask.arguments)
            except Cold as cold:
                self.misses += 1
                return await self._warm(ask, cold)
            self.hits += 1
            return answer
        self.misses += 1
        return await self.pool.call(ask.function, *ask.arguments)

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
