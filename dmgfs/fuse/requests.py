"""pyfuse3's request loop with fewer trips through trio: most requests are answered in microseconds, and one way through
trio's scheduler and back costs more than that.

pyfuse3 takes everything asynchronous from its module global `trio`, so that it can be exchanged (`pyfuse3.asyncio` does);
here is what it is exchanged for.

Rules that hold here:
- one task at a time reads requests: the one that has passed the gate. After an answer that waited for nothing the same
  task goes on reading; another one is woken when this one is held up inside a handler, or ends;
- the next request is waited for inside the system call, for a moment: whoever asked once will ask again soon. Not while a
  handler waits for a worker, because only trio brings the worker's result;
- before it sleeps, the thread looks a few times whether the next request is there. Waking a processor takes longer than
  most answers (30 of the 60 us of a small request in a virtual machine), but looking pays only where a processor is to
  spare, so it is given up as soon as it is in vain;
- after so many requests in a row trio has its turn: signals and everything else goes on under any load.
"""

import select
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyfuse3
import trio

from dmgfs.fuse.channel import Channel

T = TypeVar("T")

MOMENT = 2
"""Milliseconds. By so much later signals and threads are noticed, at worst."""

IN_A_ROW = 64
"""Requests until trio has its turn."""


class Haste:
    """Whether looking for the next request instead of sleeping pays. looks: how many times to look, 0 while it does not."""

    LOOKS = 80  # of about a microsecond each
    CREDIT = 8  # a look that found a request earns 1, one in vain costs 2
    REST = 1024  # requests until it is tried again, with half the credit

    def __init__(self) -> None:
        self.looks = self.LOOKS
        self._credit = self.CREDIT
        self._rest = 0

    def found(self) -> None:
        if self._credit < self.CREDIT:
            self._credit += 1

    def in_vain(self) -> None:
        if self.looks:
            self._credit -= 2
            if self._credit <= 0:
                self.looks = 0
                self._rest = self.REST
        else:
            self._rest -= 1
            if not self._rest:
                self.looks = self.LOOKS
                self._credit = self.CREDIT // 2


class Gate:
    """The lock of pyfuse3's loop. Whoever is running goes first, so it is passed without a wait nearly always."""

    def __init__(self) -> None:
        self._held = False
        self._parked: list[trio.lowlevel.Task] = []

    async def __aenter__(self) -> None:
        while self._held:
            task = trio.lowlevel.current_task()

            def leave(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._parked.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            self._parked.append(task)
            await trio.lowlevel.wait_task_rescheduled(leave)
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False

    def wake(self) -> None:
        """The task that read last does something else now: let another one read."""
        if self._parked and not self._held:
            trio.lowlevel.reschedule(self._parked.pop())


class _Nursery:
    """A trio nursery whose tasks leave the gate to the others when they end."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._opened = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> "_Nursery":
        self._nursery = await self._opened.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._opened.__aexit__(*error)

    def start_soon(self, function: Callable[..., Awaitable[None]], *arguments: Any, name: str) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._run, function, arguments, name=name)

    async def _run(self, function: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> None:
        try:
            await function(*arguments)
        finally:
            self._gate.wake()


class Requests:
    """What pyfuse3 gets for trio and for `trio.lowlevel`."""

    ClosedResourceError = trio.ClosedResourceError
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(self, channel: Channel | None = None) -> None:
        self.lowlevel = self
        self.haste = Haste()
        self._channel = channel
        self._gate = Gate()
        self._held_up = 0  # handlers that wait for something
        self._in_a_row = 0
        self._descriptor = -1
        self._poll = select.poll()

    @contextmanager
    def instead_of_trio(self, operations: pyfuse3.Operations) -> Iterator[None]:
        """Within, pyfuse3 reads its requests here. `operations` must have passed `guard`: their handlers are in the
        instance, and get wrapped once more."""
        for name, handler in list(vars(operations).items()):
            if hasattr(pyfuse3.Operations, name) and callable(handler):
                setattr(operations, name, self.noticing(handler))
        module: Any = pyfuse3
        module.trio = self
        try:
            yield
        finally:
            module.trio = trio

    def noticing(self, handler: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Awaitable[T]]:
        """`handler`; while it waits for something, another task reads requests."""

        @types.coroutine
        def handle(*arguments: Any) -> Generator[Any, Any, T]:
            handling = handler(*arguments)
            try:
                trap = handling.send(None)
            except StopIteration as end:
                result: T = end.value
                return result
            self._held_up += 1
            self._gate.wake()
            try:
                while True:
                    try:
                        sent = yield trap
                    except BaseException as error:  # what trio throws in is the handler's business
                        trap = handling.throw(error)
                    else:
                        trap = handling.send(sent)
            except StopIteration as end:
                result = end.value
                return result
            finally:
                self._held_up -= 1

        return handle

    # -- trio's part in pyfuse3, by trio's names ---------------------------------------------------------------------

    def Lock(self) -> Gate:
        return self._gate

    def open_nursery(self) -> _Nursery:
        if self._channel is not None:
            self._channel.begin_again()
        return _Nursery(self._gate)

    def notify_closing(self, descriptor: int) -> None:
        trio.lowlevel.notify_closing(descriptor if self._channel is None else self._channel.poll.fileno())

    async def wait_readable(self, descriptor: int) -> None:
        """Returns when pyfuse3 has a request to read there."""
        if self._channel is not None:
            if not self._channel.open:
                self._channel.begin(descriptor)
            await self._take(self._channel)
            return
        if descriptor != self._descriptor:
            self._descriptor = descriptor
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        self._in_a_row += 1
        if self._in_a_row < IN_A_ROW:
            poll = self._poll.poll
            if self._held_up:
                if poll(0):
                    return
            else:
                for _ in range(self.haste.looks):
                    if poll(0):
                        self.haste.found()
                        return
                self.haste.in_vain()
                if poll(MOMENT):
                    return
        self._in_a_row = 0
        await trio.lowlevel.wait_readable(descriptor)

    async def _take(self, channel: Channel) -> None:
        """Until the channel has a request for pyfuse3."""
        while True:
            self._in_a_row += 1
            if self._in_a_row < IN_A_ROW:
                taken = channel.take()
                if taken is None and not self._held_up:
                    taken = self._look(channel)
                    if taken is None and channel.sleep(MOMENT):
                        continue
                if taken:
                    return
                if taken is not None:
                    continue
            channel.settle()
            self._in_a_row = 0
            await trio.lowlevel.wait_readable(channel.poll.fileno())

    def _look(self, channel: Channel) -> bool | None:
        """As `channel.take`, a few times; not while a worker decodes for a request, who would have to wait for this."""
        if channel.waiting:
            return None
        for _ in range(self.haste.looks):
            taken = channel.take()
            if taken is not None:
                self.haste.found()
                return taken
        self.haste.in_vain()
        return None
