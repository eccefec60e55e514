"""The request loop: who reads while a handler waits, and that trio has its turn."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyfuse3
import pytest
import trio

from dmgfs.fuse.requests import IN_A_ROW, MOMENT, Gate, Haste, Requests


class Loop:
    """pyfuse3's loop (see _session_loop in its internal.pxi) over a pipe: a byte is a request, its handler gets it."""

    def __init__(self, requests: Requests, handler: Any) -> None:
        self.requests = requests
        self.handler = requests.noticing(handler)
        self.read_end, self.write_end = os.pipe()
        self.readers = 0
        self.tasks = 0

    def send(self, data: bytes) -> None:
        os.write(self.write_end, data)

    async def main(self) -> None:
        async with self.requests.open_nursery() as nursery:
            self.tasks = 1
            nursery.start_soon(self.session, nursery, name="first")

    async def session(self, nursery: Any) -> None:
        while self.readers <= 1:
            self.readers += 1
            try:
                async with self.requests.Lock():
                    if self.read_end < 0:
                        break
                    await self.requests.lowlevel.wait_readable(self.read_end)
            finally:
                self.readers -= 1
            request = os.read(self.read_end, 1)
            if not self.readers and self.tasks < 99:
                self.tasks += 1
                nursery.start_soon(self.session, nursery, name="next")
            if not request:
                os.close(self.read_end)
                self.read_end = -1
                break
            await self.handler(request)
        self.tasks -= 1


@contextmanager
def deadline() -> Iterator[None]:
    with trio.fail_after(5):
        yield


async def test_requests_are_answered_in_order_by_one_task() -> None:
    seen = []

    async def handler(request: bytes) -> None:
        seen.append((request, trio.lowlevel.current_task()))

    loop = Loop(Requests(), handler)
    loop.send(b"abcdef")
    os.close(loop.write_end)
    with deadline():
        await loop.main()
    assert [request for request, _ in seen] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert len({task for _, task in seen}) == 1


async def test_others_are_served_while_a_handler_waits() -> None:
    done = []
    gates = {b"s": trio.Event(), b"t": trio.Event()}

    async def handler(request: bytes) -> None:
        if request in gates:
            await gates[request].wait()
        if request == b"!":
            gates[b"s"].set()
        done.append(request)
        if request == b"s":
            gates[b"t"].set()

    loop = Loop(Requests(), handler)
    loop.send(b"st1!")
    with deadline():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.main)
            await trio.testing.wait_all_tasks_blocked()
            loop.send(b"2")
            await trio.testing.wait_all_tasks_blocked()
            os.close(loop.write_end)
    assert done == [b"1", b"!", b"s", b"t", b"2"]


async def test_a_handler_that_waits_twice_gets_what_it_waits_for() -> None:
    send, receive = trio.open_memory_channel[int](0)
    got = []

    async def handler(request: bytes) -> None:
        if request == b"r":
            got.append(await receive.receive())
            got.append(await receive.receive())
        else:
            await send.send(request[0])

    loop = Loop(Requests(), handler)
    loop.send(b"r12")
    os.close(loop.write_end)
    with deadline():
        await loop.main()
    assert got == [ord("1"), ord("2")]


async def test_an_error_thrown_into_a_waiting_handler_is_its_own() -> None:
    cancelled = []

    async def handler(request: bytes) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(request)
            raise

    loop = Loop(Requests(), handler)
    loop.send(b"xy")
    with deadline():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.main)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert sorted(cancelled) == [b"x", b"y"]
    assert loop.requests._held_up == 0


async def test_trio_has_its_turn_under_any_load() -> None:
    turns = 0
    handled = 0

    async def handler(request: bytes) -> None:
        nonlocal handled
        handled += 1

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    loop = Loop(Requests(), handler)
    loop.send(b"." * 10 * IN_A_ROW)
    os.close(loop.write_end)
    with deadline():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await loop.main()
            nursery.cancel_scope.cancel()
    assert handled == 10 * IN_A_ROW
    assert turns >= 9


async def test_a_request_is_waited_for_only_while_nobody_waits_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = []

    class Poll:
        def register(self, *_: int) -> None:
            pass

        def poll(self, timeout: int) -> list[object]:
            patience.append(timeout)
            return []

    monkeypatch.setattr(select, "poll", Poll)
    event = trio.Event()

    async def handler(request: bytes) -> None:
        if request == b"w":
            await event.wait()

    loop = Loop(Requests(), handler)
    loop.requests.haste.looks = 0
    with deadline():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loop.main)
            for request in (b"a", b"w", b"b"):
                loop.send(request)
                await trio.testing.wait_all_tasks_blocked()
            event.set()
            await trio.testing.wait_all_tasks_blocked()
            loop.send(b"c")
            await trio.testing.wait_all_tasks_blocked()
            os.close(loop.write_end)
    assert patience == [MOMENT, MOMENT, 0, 0, MOMENT]


def test_looking_for_requests_goes_on_while_it_finds_some() -> None:
    haste = Haste()
    for _ in range(1000):
        haste.in_vain()
        haste.found()
        haste.found()
        haste.found()
    assert haste.looks == Haste.LOOKS


def test_looking_in_vain_is_given_up_and_tried_again() -> None:
    haste = Haste()
    for _ in range(Haste.CREDIT // 2):
        assert haste.looks == Haste.LOOKS
        haste.in_vain()
    for _ in range(Haste.REST):
        assert haste.looks == 0
        haste.in_vain()
    for _ in range(Haste.CREDIT // 4):
        assert haste.looks == Haste.LOOKS
        haste.in_vain()
    assert haste.looks == 0


async def test_a_cancelled_wait_at_the_gate_leaves_it_in_order() -> None:
    gate = Gate()
    passed = []

    async def pass_through(name: str) -> None:
        async with gate:
            passed.append(name)

    with deadline():
        async with trio.open_nursery() as nursery:
            await gate.__aenter__()
            with trio.CancelScope() as scope:
                scope.cancel()
                await pass_through("cancelled")
            nursery.start_soon(pass_through, "after")
            await trio.testing.wait_all_tasks_blocked()
            gate.wake()  # held: nobody may be woken
            await trio.testing.wait_all_tasks_blocked()
            assert passed == []
            await gate.__aexit__()
            gate.wake()
    assert passed == ["after"]


def test_pyfuse3_gets_trio_back() -> None:
    module: Any = pyfuse3

    class Fs(pyfuse3.Operations):
        pass

    requests = Requests()
    with requests.instead_of_trio(Fs()):
        assert module.trio is requests
    assert module.trio is trio


class RestlessChannel:
    """A channel with a request each time it is asked, until `left` is used up; then a worker brings something at the very
    moment at which trio's turn has come."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.waiting = 1
        self.left = IN_A_ROW - 2
        self.open = True
        self.settled: list[int] = []

    def take(self) -> bool | None:
        if self.left == 0:
            return None
        self.left -= 1
        return False

    def sleep(self, milliseconds: float) -> bool:
        return True  # "a worker is back", and the row is over

    def settle(self) -> None:
        self.settled.append(self.left)


async def test_what_workers_brought_is_seen_to_before_trio_waits() -> None:
    channel = RestlessChannel()
    requests = Requests(channel)  # type: ignore[arg-type]
    with trio.move_on_after(0.1):
        await requests.wait_readable(0)
    assert channel.settled == [0]
