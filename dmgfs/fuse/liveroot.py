"""`-o liveroot`: a mount that somebody's root directory may be. Its daemon must outlive everything: the files it was
started from, /proc and /dev, signals meant for all processes, a shortage of memory.

Rules that hold here:
- everything is imported, opened and locked into memory before the mount is announced; nothing is imported after that;
- SIGINT, SIGTERM and SIGHUP make changes safe and are otherwise ignored. The mount ends when it is unmounted;
- changes become safe by themselves a few seconds after they were made: at the end of a shutdown nobody asks for it;
- what the system refuses is said once in the log, and the mount goes on without it.
"""

import logging
import signal
import threading
from collections.abc import Awaitable, Callable

import trio

from dmgfs.fuse import hardening
from dmgfs.fuse.notify import Notifier
from dmgfs.fuse.preload import ImportGuard, preload
from dmgfs.fuse.watchdog import Watchdog

log = logging.getLogger(__name__)

SAFE_SECONDS = 5.0
_STACK = 1 << 20
"""Bytes for a thread: all of it gets locked, touched or not."""


class LiveRoot:
    """A companion of the session. Make it before any thread runs, on the main thread, with the log open."""

    def __init__(self) -> None:
        self.guard = ImportGuard()
        self._watchdog = Watchdog(Notifier())
        self._make_safe: Callable[[], Awaitable[None]] | None = None
        modules = preload()
        threading.stack_size(_STACK)
        log.info("live root: %d modules are imported", modules)

    def keep_safe(self, make_safe: Callable[[], Awaitable[None]]) -> None:
        """make_safe: brings all changes so far onto their disk; run on the trio thread."""
        self._make_safe = make_safe

    def start(self) -> None:
        self._watchdog.start()
        trio.lowlevel.spawn_system_task(self._keep_safe)

    def stop(self) -> None:
        self._watchdog.stop()
        self.guard.open()

    def describe(self) -> str:
        return f"late imports refused {len(self.guard.refused)}, {self._watchdog.describe()}"

    def harden(self) -> None:
        """When the mount answers, before it is announced. Call on the main thread."""
        for what, held in (
            ("the mark that systemd spares", hardening.mark_as_root_storage()),
            ("being spared by killall5", hardening.register_with_sysvinit()),
            ("continuing when stopped", hardening.keep_continuing()),
            ("being spared when memory runs out", hardening.spare_from_oom()),
            ("writing without waiting for ourselves", hardening.flush_io()),
            ("memory locked", hardening.lock_memory()),
        ):
            log.log(logging.INFO if held.holds else logging.WARNING, "live root: %s: %s", what, held.detail)
        self.guard.close()

    async def obey(self, number: int) -> None:
        """A signal that ends other processes."""
        log.info("%s: changes are made safe; a live root ends when it is unmounted", signal.Signals(number).name)
        await self._safe()

    async def _keep_safe(self) -> None:
        while True:
            await trio.sleep(SAFE_SECONDS)
            await self._safe()

    async def _safe(self) -> None:
        if self._make_safe is not None:
            try:
                await self._make_safe()
            except OSError as error:
                log.error("changes are not safe: %s", error.strerror)
