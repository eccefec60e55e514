"""One mount from beginning to end: mount, serve, answer signals, unmount.

Rules that hold here:
- everything is opened, imported and allocated before the mount is ready; after that the daemon touches no path that could
  lie in its own mount, and its working directory is /;
- SIGINT, SIGTERM and SIGHUP unmount. If the mount is busy it goes out of sight and is served until its last user leaves;
  the same signal again ends it at once. The root directory is never unmounted by a signal, nor is what may become one
  (see `liveroot`);
- an internal error never unmounts: an emptied mount point makes a running backup delete the other side. The request loop
  is begun again instead;
- SIGUSR1 puts one line of statistics into the log.
"""

import errno
import gc
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyfuse3
import trio

from dmgfs.fuse import mountpoint
from dmgfs.fuse.boundary import trace
from dmgfs.fuse.channel import Channel
from dmgfs.fuse.liveroot import LiveRoot
from dmgfs.fuse.pool import Pool
from dmgfs.fuse.requests import Requests
from dmgfs.source import forbid_blocking

log = logging.getLogger(__name__)

READ_AHEAD_KB = 1024
"""The kernel's own read-ahead on the mount. The default of 128 costs 15-25 % of sequential speed (measured)."""

_MOST_RESTARTS = 100
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Companion(Protocol):
    """Work beside the requests, in threads or tasks of its own."""

    def start(self) -> None:
        """On the trio thread, before the first request."""

    def stop(self) -> None:
        """After the last one. The image is still open."""


class MountFailed(Exception):
    """The kernel or libfuse refused the mount; the message is theirs."""


class Session:
    """`operations` (already guarded) mounted on `path`, an absolute directory, with libfuse's `options`.

    statistics: makes the line for SIGUSR1. ready: called once, when the mount answers. companions: what runs beside it.
    cover: called in a thread of its own when the mount answers; it makes another file system out of it (raises OSError)
    and returns where that is, which is the mount from then on. live_root: what makes it fit to be a root directory; it is
    one of the companions too. channel: None leaves all requests to pyfuse3.
    """

    def __init__(
        self,
        operations: pyfuse3.Operations,
        path: str,
        options: set[str],
        pool: Pool,
        *,
        statistics: Callable[[], str],
        ready: Callable[[], None],
        companions: Sequence[Companion] = (),
        cover: Callable[[], str] | None = None,
        live_root: LiveRoot | None = None,
        channel: Channel | None = None,
    ) -> None:
        self._operations = operations
        self._path = path
        self._options = options
        self._pool = pool
        self._statistics = statistics
        self._ready = ready
        self._companions = companions
        self._cover = cover
        self._live_root = live_root
        self._channel = channel
        self._device = ""
        self._signals_seen = 0
        self._failure: str | None = None
        self._unmount_at_end = True  # until it is ready, and on a second signal

    def run(self) -> None:
        """Mounts, serves, and returns when the mount is gone. Raises MountFailed, with nothing mounted."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # they would leave a dead mount; _obey_signals lets them in
        with _collected_stderr() as said:
            try:
                pyfuse3.init(self._operations, self._path, self._options)
            except RuntimeError as error:
                raise MountFailed(_last_line(said()) or str(error)) from None
        try:
            self._device = mountpoint.device_of(self._path)
            self._pool.start()
            with Requests(self._channel).instead_of_trio(self._operations):
                trio.run(self._main)
            if self._failure is not None:
                raise MountFailed(self._failure)
        finally:
            if self._channel is not None:
                self._channel.end()
            pyfuse3.close(unmount=self._unmount_at_end)
            for companion in self._companions:
                companion.stop()
            self._pool.stop()

    async def _main(self) -> None:
        self._pool.attach(self._channel.ring if self._channel is not None else None)
        forbid_blocking()
        for companion in self._companions:
            companion.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._obey_signals)
            nursery.start_soon(self._announce)
            await self._serve()
            nursery.cancel_scope.cancel()

    async def _serve(self) -> None:
        """pyfuse3's loop ends when the mount is gone. If it fails otherwise, it is begun again: requests under way are
        lost (their callers can be interrupted), but the mount is not."""
        for _ in range(_MOST_RESTARTS):
            try:
                await pyfuse3.main()
                return
            except Exception as error:
                log.error("the request loop failed and is begun again: %r\n%s", error, trace(error))
        log.critical("the request loop failed %d times: giving up; the mount point stays mounted", _MOST_RESTARTS)

    async def _announce(self) -> None:
        """Waits for the first answer of the mount, then lets the world know."""
        try:
            await trio.to_thread.run_sync(os.stat, self._path, abandon_on_cancel=True)
        except OSError as error:
            self._give_up(f"the mount does not answer: {error.strerror}")
            return
        self._widen_read_ahead()
        if self._cover is not None:
            try:
                self._path = await trio.to_thread.run_sync(self._cover, abandon_on_cancel=True)
            except OSError as error:
                self._give_up(error.strerror or str(error))
                return
            self._device = mountpoint.device_of(self._path)
        os.chdir("/")
        gc.collect()
        gc.freeze()
        if self._live_root is not None:
            self._live_root.harden()
        self._unmount_at_end = False
        self._ready()
        log.info("serving %s", self._path)

    def _give_up(self, why: str) -> None:
        self._failure = why
        pyfuse3.terminate()

    def _widen_read_ahead(self) -> None:
        knob = Path("/sys/class/bdi") / self._device / "read_ahead_kb"
        try:
            if self._device and int(knob.read_text()) < READ_AHEAD_KB:
                knob.write_text(str(READ_AHEAD_KB))
        except (OSError, ValueError):
            pass  # only root may; it is speed, not function

    async def _obey_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        obeyed = (*_ENDING, signal.SIGUSR1)
        with trio.open_signal_receiver(*obeyed) as signals, _let_in(obeyed):
            async with trio.open_nursery() as nursery:
                task_status.started()
                async for number in signals:
                    if number == signal.SIGUSR1:
                        log.info("%s", self._statistics())
                    elif self._live_root is not None:
                        nursery.start_soon(self._live_root.obey, number)
                    elif self._path == "/":
                        log.warning("%s ignored: this mount is the root directory", signal.Signals(number).name)
                    else:
                        self._signals_seen += 1
                        if self._signals_seen > 1:
                            self._unmount_at_end = True
                            pyfuse3.terminate()
                            return
                        nursery.start_soon(self._unmount)

    async def _unmount(self) -> None:
        """In a thread: the kernel may have requests for us before it lets the mount go."""
        try:
            await trio.to_thread.run_sync(self._unmount_now, abandon_on_cancel=True)
        except OSError as error:
            log.error("%s cannot be unmounted: %s; a second signal ends it anyway", self._path, error.strerror)

    def _unmount_now(self) -> None:
        path = self._path
        moved = [mount.path for mount in mountpoint.mounts() if mount.device == self._device]
        if moved and path not in moved:
            path = moved[-1]
        try:
            mountpoint.unmount(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            mountpoint.unmount(path, lazy=True)
            log.warning("%s was busy: out of sight now, and served until its last user is gone", path)


@contextmanager
def _let_in(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Blocked again afterwards: one that came too late to be obeyed is sent again by trio, and would end the process before
    it has tidied up."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)


@contextmanager
def _collected_stderr() -> Iterator[Callable[[], str]]:
    """What libfuse and fusermount3 print meanwhile: they give their reasons only there."""
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)

        def said() -> str:
            os.lseek(sink.fileno(), 0, os.SEEK_SET)
            return os.read(sink.fileno(), 1 << 16).decode("utf-8", "replace")

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
