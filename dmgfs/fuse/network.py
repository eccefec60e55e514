"""A mount whose image is behind a URL: what it has besides, and what its end must not wait for.

The kernel lets a mount go at once, whatever is still asked for. The loop that serves ends only when everything it was asked
for is answered, and that may wait for a server. So the kernel's descriptor is looked at now and then: when the mount is
gone, nobody waits for the server any more.
"""

import logging
import os
import select

import trio

from dmgfs.remote import RemoteSource

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25


class Network:
    """Companion of the session (see there)."""

    def __init__(self, remote: RemoteSource) -> None:
        self._remote = remote
        self._kernel = -1

    def start(self) -> None:
        self._remote.listen(self._tell)
        self._kernel = _kernels_descriptor()
        if self._kernel >= 0:
            trio.lowlevel.spawn_system_task(self._watch)

    def stop(self) -> None:
        """Before the workers are waited for: what they ask the server now, nobody wants any more."""
        self._remote.abandon()
        if self._kernel >= 0:
            os.close(self._kernel)
            self._kernel = -1

    def _tell(self, trouble: str | None) -> None:
        url = ascii(self._remote.url)[1:-1]
        if trouble is None:
            log.info("%s: the server answers again", url)
        else:
            log.warning("%s: %s", url, ascii(trouble)[1:-1])

    async def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._kernel, 0)  # errors are told without being asked for
        while not poll.poll(0):  # noqa: ASYNC110  # nothing tells of the end
            await trio.sleep(LOOK_SECONDS)
        self._remote.abandon()

    def describe(self) -> str:
        report = self._remote.report()
        trouble = f", {report['trouble']}" if report["trouble"] else ""
        return (
            f"network {report['requests']} requests, {report['bytes']} bytes, {report['retries']} retries, "
            f"{report['failures']} failures, blocks {report['blocks in memory']} in memory, {report['blocks on disk']} "
            f"on disk, {report['blocks fetched']} fetched{trouble}"
        )


def _kernels_descriptor() -> int:
    """A copy of the one that leads to the kernel's side of the mount; -1 where /proc does not tell."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return -1
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return os.dup(int(name))
        except OSError:
            continue  # the listing's own, which is closed by now
    return -1
