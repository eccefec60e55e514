"""Beside the requests: space that removed files held in a shadow file goes back to the file system by itself.

Rule: it looks now and then and does something only where much is to be had (`Overlay.reclaim`); what it does waits in
worker threads, so the mount goes on.
"""

import logging

import trio

from dmgfs.fuse.driver import Driver
from overlay.overlay import Overlay

log = logging.getLogger(__name__)

SECONDS = 10.0


class Housekeeping:
    """A companion of the session."""

    def __init__(self, overlay: Overlay, driver: Driver) -> None:
        self._overlay = overlay
        self._driver = driver

    def start(self) -> None:
        trio.lowlevel.spawn_system_task(self._run)

    def stop(self) -> None:
        """It ends with the loop."""

    async def _run(self) -> None:
        while True:
            await trio.sleep(SECONDS)
            try:
                await self._driver.run(self._overlay.reclaim())
            except Exception as error:
                log.warning("space of the shadow is not given back: %r", error)
                return
