"""The trio driver: warm Asks inline, cold ones through the pool and again, errors at the yield."""

import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dmgfs.cache import ChunkCache
from dmgfs.fuse.driver import Disk, Driver
from dmgfs.fuse.pool import Pool
from dmgfs.source import Cold, Load, forbid_blocking
from overlay.vfs import Ask, Steps


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    pool = Pool(2)
    pool.start()
    pool.attach()
    forbid_blocking()
    try:
        yield Driver(pool)
    finally:
        forbid_blocking(False)
        pool.stop()


def asking(function, *arguments) -> Steps[object]:
    answer = yield Ask(function, arguments)
    return answer


async def test_a_warm_ask_is_answered_in_this_thread(driver):
    assert await driver.run(asking(threading.get_ident)) == threading.get_ident()
    assert (driver.hits, driver.misses) == (1, 0)


async def test_an_operation_without_asks(driver):
    def steps() -> Steps[int]:
        return 5
        yield

    assert await driver.run(steps()) == 5


async def test_a_miss_is_decoded_elsewhere_and_answered_here(driver):
    cache: ChunkCache[bytes] = ChunkCache(1 << 20)
    decoded_in = []
    answered_in = []

    def read() -> bytes:
        unit = cache.get("chunk", lambda: decoded_in.append(threading.get_ident()) or b"data")
        answered_in.append(threading.get_ident())
        return unit

    assert await driver.run(asking(read)) == b"data"
    assert threading.get_ident() not in decoded_in
    assert answered_in == [threading.get_ident()]
    assert (driver.hits, driver.misses) == (0, 1)


async def test_reads_that_become_warm_level_by_level(driver):
    cache: ChunkCache[int] = ChunkCache(1 << 20, weigh=lambda unit: 1)

    def descend() -> int:
        return sum(cache.get(level, lambda level=level: level) for level in range(1, 4))

    assert await driver.run(asking(descend)) == 6


async def test_a_read_larger_than_the_cache_still_ends(driver):
    cache: ChunkCache[bytes] = ChunkCache(4)

    def read() -> bytes:
        return b"".join(cache.get(part, lambda part=part: b"%04d" % part) for part in range(10))

    with trio.fail_after(10):
        assert await driver.run(asking(read)) == b"".join(b"%04d" % part for part in range(10))


async def test_the_error_of_a_load_reaches_the_operation_as_it_is(driver):
    cache: ChunkCache[bytes] = ChunkCache(100)

    def damaged() -> bytes:
        raise ValueError("this very chunk")

    def steps() -> Steps[str]:
        try:
            yield Ask(cache.get, ("chunk", damaged))
        except ValueError as error:
            return str(error)
        return "no error"

    assert await driver.run(steps()) == "this very chunk"


async def test_an_error_that_the_operation_does_not_catch_is_raised(driver):
    def fail() -> None:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        await driver.run(asking(fail))


async def test_a_stop_iteration_from_below_is_an_error_and_not_the_end(driver):
    def fail() -> None:
        raise StopIteration("not a result")

    with pytest.raises(RuntimeError):
        await driver.run(asking(fail))


async def test_a_cancelled_operation_ends_at_its_yield(driver):
    gate = threading.Event()
    seen = []

    def cold() -> None:
        raise Cold([Load("never", lambda: gate.wait(5))])

    def steps() -> Steps[None]:
        try:
            yield Ask(cold, ())
        except GeneratorExit:
            seen.append("closed")
            raise

    with trio.move_on_after(0.05) as scope:
        await driver.run(steps())
    gate.set()
    assert scope.cancelled_caught
    assert seen == ["closed"]


async def test_another_request_is_answered_while_one_decodes(driver):
    gate = threading.Event()
    order = []

    state = {"warm": False}

    def slow() -> str:
        if not state["warm"]:
            raise Cold([Load("slow", lambda: (gate.wait(5), state.update(warm=True)))])
        return "slow"

    async def run(function) -> None:
        order.append(await driver.run(asking(function)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, slow)
        await trio.testing.wait_all_tasks_blocked()
        await run(lambda: "quick")
        gate.set()
    assert order == ["quick", "slow"]


async def test_a_slow_ask_never_runs_here(driver):
    def steps() -> Steps[int]:
        thread = yield Ask(threading.get_ident, (), slow=True)
        return thread

    assert await driver.run(steps()) != threading.get_ident()


async def test_ask_outside_of_an_operation(driver):
    cache: ChunkCache[bytes] = ChunkCache(100)
    assert await driver.ask(cache.get, "chunk", lambda: b"data") == b"data"
    assert await driver.ask(cache.get, "chunk", lambda: b"other") == b"data"
    assert (driver.hits, driver.misses) == (1, 1)


def test_bytes_that_come_from_the_disk_at_once_are_waited_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dmgfs.fuse.driver.perf_counter", lambda: now[0])
    disk = Disk()
    for _ in range(100):
        for number, _ in enumerate(disk.looks()):
            now[0] += Disk.PATIENCE / 10
            if number == 3:
                break
        assert number == 3


def test_a_slow_disk_is_not_waited_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("dmgfs.fuse.driver.perf_counter", lambda: now[0])
    disk = Disk()
    looked = []
    for _ in range(Disk.REST + 10):
        looks = 0
        for _ in disk.looks():
            looks += 1
            now[0] += Disk.PATIENCE / 10
        looked.append(looks)
    assert looked[0] > 5
    assert set(looked[Disk.CREDIT : Disk.REST - Disk.CREDIT]) == {1}
    assert max(looked[Disk.REST :]) > 5  # now and then it is tried again


async def test_a_quick_load_whose_bytes_are_under_way_is_tried_again(driver):
    tries = []

    def quick() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Cold([Load("bytes", lambda: None)])

    def read() -> bytes:
        if len(tries) < 3:
            raise Cold([Load("chunk", lambda: None, quick)])
        return b"data"

    assert await driver.run(asking(read)) == b"data"
    assert len(tries) == 3


async def test_a_closed_operation_is_not_gone_on_with(driver):
    gate = threading.Event()
    ended = []

    def steps() -> Steps[int]:
        try:
            yield Ask(lambda: (_ for _ in ()).throw(Cold([Load("slow", lambda: gate.wait(5))])), ())
        finally:
            ended.append(True)
        return 1

    with trio.move_on_after(0.05) as scope:
        await driver.run(steps())
    assert scope.cancelled_caught
    assert ended == [True]
    gate.set()
    await driver.pool.call(lambda: None)
    assert ended == [True]
