"""The patience with a server: a range is asked for again until it is there or waiting makes no sense any more.

Rules that hold here:
- what arrived before a connection broke is kept, and the rest asked for; the version is checked every time;
- three bounds: an attempt ends after a third of the timeout without a byte; the read after the whole of it, or when it is
  slower than SLOWEST all in all. Between attempts the wait doubles, with jitter, and never goes past a bound;
- after a read has failed for want of an answer, the next ones get a tenth of the time until one succeeds: whoever reads a
  hundred things from a dead server must not wait a hundred times;
- everything runs on the network's loop and can be cut off at any time (`close`): the end of a mount waits for no server.
"""

import asyncio
import errno
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from dmgfs.remote.thread import network_loop
from dmgfs.remote.transport import Changed, Take, Transient, Transport, Version

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT = 0.2
MOST_WAIT = 5.0
LEAST = 0.2
"""Seconds that an attempt must have: one that is cut off at once says nothing but that."""

SLOWEST = 8 << 10
"""Bytes per second: a range that comes slower than this is given up after the timeout and that time."""

OPENING = 10.0
"""Seconds to reach a server at all, if the timeout is not less."""


@dataclass(slots=True)
class Counts:
    """requests: attempts. bytes: taken. retries: attempts that followed a failed one. failures: ranges given up."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    failures: int = 0


class Fetcher:
    """Ranges of one object, from any thread. version: what was opened, after `open`. counts: so far.
    notice: told, on the loop's thread, what is wrong with the server from now on, or None when it answers again."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self.transport = transport
        self.timeout = timeout
        self.version = Version(0)
        self.counts = Counts()
        self._loop = network_loop()
        self._lock = threading.Lock()
        self._running: set[Future[Any]] = set()
        self._closed = False
        self.notice: Callable[[str | None], None] = lambda trouble: None
        self._trouble: tuple[str, float] | None = None
        self._silent = False

    @property
    def url(self) -> str:
        return self.transport.url

    @property
    def trouble(self) -> tuple[str, float] | None:
        """What is wrong and since when (seconds since 1970); None while the server answers."""
        return self._trouble

    def open(self, length: int) -> bytes:
        """Finds the object; up to `length` bytes of its beginning. Raises as `open_remote`."""
        start = bytearray()

        async def attempt(take: Take) -> None:
            start.clear()

            def keep(piece: bytes) -> None:
                start.extend(piece)
                take(piece)

            self.version = await self.transport.begin(length, keep)

        try:
            self.result(self.submit(self._patiently(attempt, min(self.timeout, OPENING), 0, lambda: True)))
        except OSError as error:
            if self._trouble is None:
                raise
            raise OSError(errno.EHOSTUNREACH, error.strerror, self.url) from None  # may be late: see --wait
        return bytes(start)

    def fetch(self, start: int, end: int) -> "Future[bytes]":
        """[start, end), exactly. The future raises OSError(EIO): given up, changed, gone, or closed."""
        return self.submit(self._range(start, end))

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Runs a coroutine on the loop. Raises OSError when closed."""
        with self._lock:
            if self._closed:
                work.close()
                raise self._fault("the mount is ending")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._running.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._running.discard(future)

    def result(self, future: "Future[T]") -> T:
        """What it brought. Raises what it raised; OSError when it was cut off."""
        try:
            return future.result()
        except CancelledError:
            raise self._fault("the mount is ending") from None

    def abandon(self) -> None:
        """Cuts off what is under way and refuses the rest. May be called twice, from any thread but the loop's."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for future in running:
            future.cancel()

    def close(self) -> None:
        """As `abandon`, and gives up the connections. May be called twice."""
        self.abandon()
        try:
            asyncio.run_coroutine_threadsafe(self.transport.close(), self._loop).result(2.0)
        except Exception as error:  # the connections end with the process, then
            log.debug("%s: closing: %r", self.url, type(error))

    async def _range(self, start: int, end: int) -> bytes:
        got = bytearray()
        most = end - start

        async def attempt(take: Take) -> None:
            before = len(got)

            def keep(piece: bytes) -> None:
                if len(got) + len(piece) > most:
                    del got[before:]
                    raise Transient("the server sends more than was asked for")
                got.extend(piece)
                take(piece)

            await self.transport.fetch(self.version, start + before, end, keep)

        def whole() -> bool:
            return len(got) == most

        short = max(1.0, self.timeout / 10)
        try:
            await self._patiently(attempt, short if self._silent else self.timeout, most, whole)
        except Changed as error:
            self.counts.failures += 1
            self._note(error.strerror or "changed")
            raise
        except (
            Exception
        ) as error:  # whatever it is, it is about the image's bytes: ENOENT would say a file is not there
            self.counts.failures += 1
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            if self._trouble is None or not self._silent:
                self._note(why)
            raise self._fault(why or type(error).__name__) from None
        self._recovered()
        return bytes(got)

    async def _patiently(
        self, attempt: Callable[[Take], Awaitable[None]], patience: float, length: int, whole: Callable[[], bool]
    ) -> None:
        clock = self._loop.time
        last = clock()
        final = last + patience + length / SLOWEST
        silence = max(patience / 3, min(patience, 1.0)) if self.transport.streams else patience
        wait = FIRST_WAIT
        while True:
            self.counts.requests += 1
            after = None
            try:
                async with asyncio.timeout_at(min(clock() + silence, last + patience, final)) as limit:

                    def take(piece: bytes, limit: asyncio.Timeout = limit) -> None:
                        nonlocal last
                        last = clock()
                        self.counts.bytes += len(piece)
                        if not limit.expired():  # it may be at that, just now
                            limit.reschedule(min(last + silence, final))

                    await attempt(take)
                if whole():
                    return
                why = "the answer was cut short"
            except TimeoutError:
                why = "no answer"
            except Transient as error:
                why, after = error.why, error.after
            pause = after if after is not None else wait * random.uniform(0.5, 1.0)
            wait = min(2 * wait, MOST_WAIT)
            if clock() + pause + LEAST >= min(last + patience, final):
                raise self._gave_up(why)
            self.counts.retries += 1
            await asyncio.sleep(pause)

    def _gave_up(self, why: str) -> OSError:
        self._silent = True
        self._note(f"the image cannot be read: {why}")
        return self._fault(f"{why}, also after several attempts")

    def _fault(self, why: str) -> OSError:
        return OSError(errno.EIO, why, self.url)

    def _note(self, trouble: str) -> None:
        if self._trouble is None or self._trouble[0] != trouble:
            self._trouble = trouble, time.time()
            self.notice(trouble)

    def _recovered(self) -> None:
        self._silent = False
        if self._trouble is not None:
            self._trouble = None
            self.notice(None)
