"""The worker pool: one flight per key, foreground before background, failures that stay with their flight."""

import threading
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from dmgfs.fuse.pool import Pool
from dmgfs.source import Load


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2)
    pool.start()
    pool.attach()
    yield pool
    pool.stop()


async def test_a_load_runs_in_another_thread(pool):
    threads = []
    await pool.fetch([Load("one", lambda: threads.append(threading.current_thread().name))])
    assert len(threads) == 1
    assert threads[0].startswith("dmgfs-worker")


async def test_two_readers_of_one_key_load_it_once(pool):
    gate = threading.Event()
    runs = []

    def slow() -> None:
        gate.wait(5)
        runs.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.fetch, [Load("chunk", slow)])
        nursery.start_soon(pool.fetch, [Load("chunk", slow)])
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert runs == [1]
    await pool.fetch([Load("chunk", slow)])
    assert runs == [1, 1], "a landed flight is not remembered: the cache is"


async def test_call_returns_and_raises_what_the_function_does(pool):
    assert await pool.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.call(divmod, 1, 0)


@pytest.mark.parametrize("failure", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
async def test_a_failing_load_ends_neither_worker_nor_waiter(pool, failure):
    def fail() -> None:
        raise failure

    for number in range(4):
        await pool.fetch([Load(number, fail)])
    assert await pool.call(lambda: "alive") == "alive"


async def test_a_cancelled_waiter_leaves_the_flight_to_the_others(pool):
    gate = threading.Event()
    done = []
    load = Load("chunk", lambda: (gate.wait(5), done.append(1)))
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(pool.fetch, [load])
            scope.cancel()
            await pool.fetch([load])
        assert scope.cancelled_caught
        gate.set()
    assert done == [1]


async def test_a_reader_overtakes_reading_ahead():
    pool = Pool(1)
    pool.start()
    pool.attach()
    gate = threading.Event()
    order = []
    try:
        blocking = pool.read_ahead(Load("first", lambda: gate.wait(5)))
        assert blocking is not None
        for number in range(5):
            assert pool.read_ahead(Load(number, lambda number=number: order.append(number))) is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.fetch, [Load(4, lambda: pytest.fail("not the flight that is under way"))])
            nursery.start_soon(pool.fetch, [Load("new", lambda: order.append("new"))])
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert set(order[:2]) == {4, "new"}
        await pool.call(lambda: None)
    finally:
        pool.stop()
    assert sorted(order[2:]) == order[2:]


async def test_background_work_never_takes_all_workers(pool):
    gate = threading.Event()
    for number in range(8):
        pool.read_ahead(Load(number, lambda: gate.wait(5)))
    with trio.fail_after(4):
        assert await pool.call(lambda: "at once") == "at once"
    gate.set()


async def test_dropped_work_is_not_done():
    pool = Pool(1)
    pool.start()
    pool.attach()
    gate = threading.Event()
    ran = []
    try:
        pool.read_ahead(Load("first", lambda: gate.wait(5)))
        flights = [pool.read_ahead(Load(number, lambda: ran.append(1))) for number in range(3)]
        assert all(pool.drop(flight) for flight in flights if flight is not None)
        assert not pool.drop(flights[0]), "once is enough"
        gate.set()
        await pool.fetch([Load(0, lambda: ran.append("wanted after all"))])
    finally:
        pool.stop()
    assert ran == ["wanted after all"]


async def test_what_is_under_way_is_not_queued_twice(pool):
    gate = threading.Event()
    assert pool.read_ahead(Load("chunk", lambda: gate.wait(5))) is not None
    assert pool.read_ahead(Load("chunk", lambda: gate.wait(5))) is None
    gate.set()


async def test_a_flight_that_somebody_waits_for_is_not_dropped():
    pool = Pool(1)
    pool.start()
    pool.attach()
    gate = threading.Event()
    ran = []
    try:
        pool.read_ahead(Load("first", lambda: gate.wait(5)))
        flight = pool.read_ahead(Load("chunk", lambda: ran.append(1)))
        assert flight is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.fetch, [Load("chunk", lambda: None)])
            await trio.testing.wait_all_tasks_blocked()
            assert not pool.drop(flight)
            gate.set()
    finally:
        pool.stop()
    assert ran == [1]


async def test_what_was_read_ahead_wakes_nobody_and_is_found_landed(pool: Pool) -> None:
    flight = pool.read_ahead(Load("ahead", lambda: None))
    assert flight is not None
    deadline = time.monotonic() + 5
    while not pool.landed and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251  # trio must not have its turn
    assert not flight.landed
    runs: list[int] = []
    again = Load("ahead", lambda: runs.append(1))
    with trio.fail_after(5):
        await pool.fetch([again])
    assert flight.landed
    assert runs == []  # the flight of before was waited for, and it was there already
    assert pool.read_ahead(again) is not None
