"""What a service manager hears of a mount that stays in the foreground (`Type=notify`): that it answers, what it is, that
its loop turns, that it ends.

Rule: a live root has a watchdog of its own (`liveroot`); there must not be two.
"""

from dmgfs.fuse.notify import Notifier
from dmgfs.fuse.watchdog import Watchdog


class Service:
    """A companion of the session. Costs nothing where no manager listens."""

    def __init__(self, *, watched: bool) -> None:
        self._notifier = Notifier()
        self._watchdog = Watchdog(self._notifier) if watched and self._notifier.watchdog_seconds is not None else None

    def start(self) -> None:
        if self._watchdog is not None:
            self._watchdog.start()

    def ready(self, status: str) -> None:
        """The mount answers. status: one line."""
        self._notifier.tell(f"READY=1\nSTATUS={status}")

    def stop(self) -> None:
        """The mount is gone; changes may still have to reach their file."""
        self._notifier.tell("STOPPING=1\nSTATUS=unmounted")
        if self._watchdog is not None:
            self._watchdog.stop()
