"""Whether the loop that serves still turns: a task of the loop counts, a thread beside it looks.

Rules that hold here:
- the service manager hears WATCHDOG=1 from the task, so from a loop that turns, never from a thread beside a dead one;
- a stall is said once, with the place where the loop's thread stands, and its end with its length;
- time in which the whole process stood still (SIGSTOP, a suspended machine) is nobody's stall: the thread did not run
  either.
"""

import logging
import sys
import threading
import time
from types import FrameType

import trio

from dmgfs.fuse.notify import Notifier

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0
STALL_SECONDS = 10.0
_DEPTH = 12


class Watchdog:
    """A companion of the session."""

    def __init__(self, notifier: Notifier, stall_seconds: float = STALL_SECONDS) -> None:
        self._notifier = notifier
        self._stall = stall_seconds
        self._turn = min(TURN_SECONDS, stall_seconds / 4)
        if notifier.watchdog_seconds is not None:
            self._turn = min(self._turn, notifier.watchdog_seconds / 3)
        self._turns = 0
        self.stalls = 0
        self._ending = threading.Event()
        self._loop_thread = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._loop_thread = threading.get_ident()
        trio.lowlevel.spawn_system_task(self._count)
        self._thread = threading.Thread(target=self._look, name="dmgfs-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()

    def describe(self) -> str:
        return f"stalls {self.stalls}"

    async def _count(self) -> None:
        while True:
            self._turns += 1
            self._notifier.tell("WATCHDOG=1")
            await trio.sleep(self._turn)

    def _look(self) -> None:
        seen, still, reported = -1, 0.0, False
        before = time.monotonic()
        while not self._ending.wait(self._turn):
            now = time.monotonic()
            passed, before = min(now - before, 2 * self._turn), now
            if self._turns != seen:
                if reported:
                    log.warning("the loop turns again after %.0f s", still)
                seen, still, reported = self._turns, 0.0, False
                continue
            still += passed
            if still >= self._stall and not reported:
                reported = True
                self.stalls += 1
                log.error("the loop has stood still for %.0f s in\n%s", still, self._place())

    def _place(self) -> str:
        """Where the loop's thread is, innermost first; without reading source files."""
        lines: list[str] = []
        frame: FrameType | None = sys._current_frames().get(self._loop_thread)
        while frame is not None and len(lines) < _DEPTH:
            lines.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
            frame = frame.f_back
        return "\n".join(lines)
