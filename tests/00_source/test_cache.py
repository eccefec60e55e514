"""The chunk cache: bounded in bytes, one decode per unit, and a failure that is told to all and remembered by none."""

import gc
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.source import Cold, forbid_blocking


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), max_size=60))
def test_never_over_budget_and_always_right(budget: int, uses: list[tuple[int, int]]) -> None:
    cache: ChunkCache[bytes] = ChunkCache(budget)
    sizes: dict[int, int] = {}
    for key, size in uses:
        size = sizes.setdefault(key, size)
        assert cache.get(key, lambda key=key, size=size: bytes([key]) * size) == bytes([key]) * size
        statistics = cache.statistics()
        assert statistics.bytes <= budget or (statistics.entries == 1 and key in cache)
        assert statistics.bytes == sum(sizes[k] for k in sizes if k in cache)
    assert cache.statistics().hits + cache.statistics().misses == len(uses)


def test_the_least_recently_used_goes_first() -> None:
    cache: ChunkCache[bytes] = ChunkCache(30)
    for key in "abc":
        cache.get(key, lambda: b"x" * 10)
    cache.get("a", lambda: pytest.fail("a is in the cache"))
    cache.get("d", lambda: b"x" * 10)
    assert "b" not in cache
    assert all(key in cache for key in "acd")


@pytest.mark.parametrize("budget", [100, 0], ids=["kept", "dropped at once"])
def test_eight_readers_one_decode(budget: int) -> None:
    cache: ChunkCache[bytes] = ChunkCache(budget)
    started, release = threading.Event(), threading.Event()
    decodes: list[int] = []

    def load() -> bytes:
        decodes.append(1)
        started.set()
        assert release.wait(10)
        return b"unit"

    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(cache.get("k", load))) for _ in range(8)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while sum(t.is_alive() for t in threads) < 8:
        pass
    threading.Timer(0.2, release.set).start()
    for thread in threads:
        thread.join(10)
    assert results == [b"unit"] * 8
    # What is not kept has to be decoded again for a thread that came after the flight had landed.
    assert len(decodes) == 1 or (budget == 0 and len(decodes) < 8)


def test_a_failed_decode_is_not_remembered() -> None:
    cache: ChunkCache[bytes] = ChunkCache(100)

    def fail() -> bytes:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        cache.get("k", fail)
    assert cache.get("k", lambda: b"ok") == b"ok"


def test_damage_is_found_out_once() -> None:
    cache: ChunkCache[bytes] = ChunkCache(100)
    decodes = []

    def damaged(key: int) -> bytes:
        decodes.append(key)
        raise CorruptImage("layer", f"chunk {key}", "it is damaged")

    for _ in range(3):
        with pytest.raises(CorruptImage, match="chunk 1"):
            cache.get(1, lambda: damaged(1))
    assert decodes == [1]
    forbid_blocking()
    try:
        assert cache.load_for(1, lambda: damaged(1)) == ()
        with pytest.raises(CorruptImage, match="chunk 1"):
            cache.get(1, lambda: damaged(1))
        with pytest.raises(Cold):
            cache.get(2, lambda: damaged(2))
    finally:
        forbid_blocking(False)
    for key in range(2, 3000):
        with pytest.raises(CorruptImage):
            cache.get(key, lambda key=key: damaged(key))
    with pytest.raises(CorruptImage):
        cache.get(1, lambda: damaged(1))
    assert decodes.count(1) == 2, "what is remembered is bounded"


def test_a_thread_that_must_not_block_is_told_what_to_load() -> None:
    cache: ChunkCache[bytes] = ChunkCache(100)
    forbid_blocking()
    try:
        with pytest.raises(Cold) as caught:
            cache.get("k", lambda: b"slow")
        (load,) = caught.value.loads
        worker = threading.Thread(target=load.run)
        worker.start()
        worker.join()
        assert cache.get("k", lambda: pytest.fail("is here")) == b"slow"
        assert cache.load_for("k", lambda: b"slow") == ()
        assert [needed.key for needed in cache.load_for("j", lambda: b"")] == ["j"]
    finally:
        forbid_blocking(False)


def test_a_quick_unit_is_decoded_in_any_thread_and_says_itself_when_it_is_cold() -> None:
    cache: ChunkCache[bytes] = ChunkCache(10)
    cold = Cold(())

    def not_yet() -> bytes:
        raise cold

    forbid_blocking()
    try:
        with pytest.raises(Cold) as caught:
            cache.get_inline("k", not_yet)
        assert caught.value is cold
        assert cache.get_inline("k", lambda: b"12345") == b"12345"
        assert cache.get_inline("k", lambda: pytest.fail("is here")) == b"12345"
    finally:
        forbid_blocking(False)
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.bytes) == (1, 1, 5)


def test_a_quick_unit_that_another_thread_was_quicker_to_keep_is_counted_once() -> None:
    cache: ChunkCache[bytes] = ChunkCache(10)

    def overtaken() -> bytes:
        cache.get_inline("k", lambda: b"1234")
        return b"1234"

    assert cache.get_inline("k", overtaken) == b"1234"
    assert cache.statistics().bytes == 4


def test_what_is_evicted_is_freed() -> None:
    """The LRU underneath has forgotten to give references up before."""

    class Unit(bytearray):
        pass

    cache: ChunkCache[Unit] = ChunkCache(1000)
    alive = [weakref.ref(cache.get(number, lambda: Unit(bytes(100)))) for number in range(100)]
    gc.collect()
    assert sum(1 for one in alive if one() is not None) == 10
