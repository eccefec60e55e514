"""Compresses the cold pages of a shadow in memory, beside the requests.

Rules that hold here:
- the work is done in a thread that takes no lock of ours while it compresses; the store's books are changed on the trio
  thread, a few groups of 64 KiB at a time, so no request waits for more than that;
- a store that has room enough is looked at every second; one that is nearly full until nothing is left that has been left
  alone for a second;
- a failure ends the compression, never the mount.
"""

import logging
from collections.abc import Sequence

import trio

from dmgfs.fuse.boundary import trace
from overlay.overlay import Overlay
from overlay.squeezed import Job, SqueezedStore

log = logging.getLogger(__name__)

INTERVAL = 1.0
PAUSE = 0.01
BATCH = 8
"""Groups per turn: two milliseconds of a thread, a quarter of one on ours."""

REPACKED = 2
"""The same for groups that are packed anew, which is done on ours."""


class Squeezer:
    """A Companion of the session. Does nothing as long as the overlay's store is not one that compresses."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def start(self) -> None:
        trio.lowlevel.spawn_system_task(self._work)

    def stop(self) -> None:
        """The task ends with the loop."""

    async def _work(self) -> None:
        try:
            while True:
                await trio.sleep(INTERVAL)
                store = self._overlay.store
                if isinstance(store, SqueezedStore):
                    await self.squeeze(store)
        except Exception as error:
            log.error("pages are not compressed any more: %r\n%s", error, trace(error))

    async def squeeze(self, store: SqueezedStore) -> None:
        """Until nothing is cold."""
        while store.repack(REPACKED):  # noqa: ASYNC110  # it is work, not waiting
            await trio.sleep(PAUSE)
        while jobs := store.candidates(BATCH, store.patience):
            for job, data in zip(jobs, await trio.to_thread.run_sync(_pack, store, jobs), strict=True):
                store.install(job, data)
            await trio.sleep(PAUSE if store.relaxed else 0)


def _pack(store: SqueezedStore, jobs: Sequence[Job]) -> list[bytes | None]:
    return [store.pack(job) for job in jobs]
