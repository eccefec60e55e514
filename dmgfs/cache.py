"""ChunkCache: decoded units (chunks, B-tree nodes, decmpfs blocks) under one budget in bytes, least recently used first.

Rules that hold here:
- the budget counts bytes, not items. The newest unit stays even if it is larger than the whole budget: a chunk is asked
  for in parts, and would be decoded for every one of them;
- single flight: two threads that want one unit decode it once, and the second takes it from the first one's flight, so it
  gets it even if the cache dropped it meanwhile;
- a hit takes no lock: one operation of the LRU is atomic, since it is C and our keys compare in C. The counts of hits may
  miss one now and then;
- decoding happens outside the lock; a failed decode is raised to everybody who waited. Damage is remembered like a unit,
  because the image does not change, and finding it out again takes as long as a decode; other failures are not;
- a thread that must not block gets `Cold` on a miss (see `dmgfs.source`).
Data chunks and B-tree nodes live in two caches with two budgets: a sequential copy must not evict the catalog.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lru import LRU

from dmgfs.errors import CorruptImage
from dmgfs.source import Cold, Load, may_block

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """hits, misses, evictions: counts since start. bytes, budget: now. entries: units held now."""

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int
    budget: int


class _Flight(Generic[T]):
    """One decode under way. `done` is set when `value` or `error` is."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None


class ChunkCache(Generic[T]):
    """Units of type T by key, `budget` bytes of them. `weigh(unit)` gives a unit's bytes (default: len)."""

    # lru-dict bounds the number of items; ours is bounded in bytes, so its own bound only has to be out of reach.
    _MANY = 1 << 30
    _MOST_DAMAGED = 1024

    def __init__(self, budget: int, weigh: Callable[[T], int] = len) -> None:  # type: ignore[assignment]
        self.budget = budget
        self._weigh = weigh
        self._units: LRU[Hashable, T] = LRU(self._MANY)
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._damaged: dict[Hashable, CorruptImage] = {}
        self._lock = threading.Lock()
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def get(self, key: Hashable, load: Callable[[], T], *, quick: bool = False) -> T:
        """The unit; decoded by `load()` if it is not here. Raises what `load` raises, or Cold in a thread that must not
        block. quick: `load` takes a few hundred microseconds at most (see `Load`)."""
        unit: T | None = self._units.get(key)
        if unit is not None:
            self._hits += 1
            return unit
        with self._lock:
            unit = self._units.get(key)  # somebody may have brought it in the meantime
            if unit is not None:
                self._hits += 1
                return unit
            damage = self._damaged.get(key)
            if damage is not None:
                raise damage.with_traceback(None)
            if not may_block():
                raise Cold((self._load(key, load, quick),))
            flight = self._flights.get(key)
            mine = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
                self._misses += 1
        if mine:
            self._fly(key, flight, load)
        else:
            flight.done.wait()
        if flight.error is not None:
            raise flight.error
        assert flight.value is not None
        return flight.value

    def get_inline(self, key: Hashable, load: Callable[[], T]) -> T:
        """As `get`, for units that take microseconds once their bytes are at hand (B-tree nodes): on a miss `load` runs
        in this thread whether it may block or not, and raises Cold itself where the bytes below are cold. No flights:
        two threads may decode one unit twice. Raises what `load` raises."""
        unit: T | None = self._units.get(key)
        if unit is not None:
            self._hits += 1
            return unit
        unit = load()
        with self._lock:
            self._misses += 1
            if key not in self._units:
                self._keep(key, unit)
        return unit

    def _fly(self, key: Hashable, flight: _Flight[T], load: Callable[[], T]) -> None:
        try:
            flight.value = load()
        except BaseException as error:
            flight.error = error
        with self._lock:
            if flight.value is not None:
                self._keep(key, flight.value)
            elif isinstance(flight.error, CorruptImage):
                if len(self._damaged) >= self._MOST_DAMAGED:
                    del self._damaged[next(iter(self._damaged))]
                self._damaged[key] = flight.error
            del self._flights[key]
        flight.done.set()

    def _keep(self, key: Hashable, unit: T) -> None:
        self._units[key] = unit
        self._bytes += self._weigh(unit)
        while self._bytes > self.budget and len(self._units) > 1:
            # Not popitem: in lru-dict 1.4.1 it never gives its reference up, and every evicted unit would stay in memory.
            last = self._units.peek_last_item()
            assert last is not None
            key, oldest = last
            del self._units[key]
            self._bytes -= self._weigh(oldest)
            self._evictions += 1

    def __contains__(self, key: Hashable) -> bool:
        """Whether the unit is here now. Does not count as a use."""
        return key in self._units

    def load_for(self, key: Hashable, load: Callable[[], T], *, quick: bool = False) -> tuple[Load, ...]:
        """What `ByteSource.cold` answers for one unit: nothing if it is here or known to be damaged, else its load."""
        if key in self._units or key in self._damaged:
            return ()
        return (self._load(key, load, quick),)

    def _load(self, key: Hashable, load: Callable[[], T], quick: bool) -> Load:
        return Load(key, lambda: self.get(key, load), (lambda: self.get_inline(key, load)) if quick else None)

    def statistics(self) -> CacheStatistics:
        with self._lock:
            return CacheStatistics(
                self._hits, self._misses, self._evictions, len(self._units), self._bytes, self.budget
            )
