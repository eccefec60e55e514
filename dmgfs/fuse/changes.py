"""What can be asked about the changes of a live mount: see, keep, take back. Handlers of `dmgfs.fuse.control`.

Rules as in `verbs`; and what keeps or takes back is on the medium when it is answered, where the shadow is a file.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyfuse3
import trio

from dmgfs.changelist import write_records
from dmgfs.fuse.driver import Driver
from dmgfs.layers import Stack
from dmgfs.layertar import write_layer
from overlay.disk import FileDisk
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.reset import Stale
from overlay.save import save
from overlay.vfs import Buffer

if TYPE_CHECKING:
    from dmgfs.fuse.control import Handler

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_JOBS = 2
NAME_MAX = 100


class Kernel(Protocol):
    """The channel, or pyfuse3 where there is none. Both may wait, and raise OSError for what the kernel does not know."""

    def invalidate_inode(self, inode: int, /) -> None: ...
    def invalidate_entry(self, parent: int, name: bytes, /) -> None: ...


class Changes:
    """Of one mount. kernel: takes notices of what is not true any more."""

    def __init__(self, overlay: Overlay, driver: Driver, stack: Stack, kernel: Kernel) -> None:
        self._overlay = overlay
        self._driver = driver
        self._kernel = kernel
        self._layers = stack.layers
        self._base = stack.base  # in worker threads only: it may take a second
        self._jobs = 0
        self._compacting = False
        self._read: Counter[str] = Counter()  # snapshots that are being read

    def handlers(self) -> "Mapping[str, Handler]":
        return {
            "diff": self.diff,
            "export": self.export,
            "save": self.save,
            "reset": self.reset,
            "snapshot": self.snapshot,
            "snapshots": self.snapshots,
            "rollback": self.rollback,
            "forget": self.forget,
            "compact": self.compact,
        }

    def _require_writable(self) -> None:
        if not self._overlay.writable:
            raise OSError(errno.EROFS, "the mount is read-only; `dmgfs shadow attach` makes it writable")

    # -- looking at changes and keeping them -----------------------------------------------------------------------------

    async def _frozen(self, request: Mapping[str, Any], work: Callable[[Overlay], T]) -> T:
        """`work` on what the overlay is now, or was in the snapshot that the request names, in a thread, while the mount
        goes on."""
        if self._jobs >= MOST_JOBS:
            raise OSError(errno.EBUSY, f"{MOST_JOBS} others are looking at the changes already; try again later")
        self._jobs += 1
        try:
            if request.get("snapshot") is not None:
                name = self._known(request.get("snapshot"))
                self._read[name] += 1
                try:
                    return await trio.to_thread.run_sync(work, self._overlay.snapshots()[_bytes(name)].view)
                finally:
                    self._read[name] -= 1
            frozen = self._overlay.freeze()
            try:
                return await trio.to_thread.run_sync(work, frozen.view)
            finally:
                self._overlay.thaw(frozen)
        finally:
            self._jobs -= 1

    async def diff(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        """Into the passed file, a JSON object per line; how many."""
        with _output(files) as put:
            return await self._frozen(request, lambda view: write_records(view, put))

    async def export(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Into the passed file, a tar stream."""
        with _output(files) as put:
            return {"sockets": await self._frozen(request, lambda view: write_layer(view, put))}

    async def save(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Into the passed file, which is empty and becomes a shadow file; with all snapshots."""
        if not files:
            raise OSError(errno.EINVAL, "no file was passed")
        opened = os.dup(files[0])
        snapshots = [name.decode("utf-8", "surrogateescape") for name in self._overlay.snapshots()]

        def work(view: Overlay) -> int:
            store = FileStore(FileDisk.of(opened, str(request.get("path"))), self._base(), recycle=True)
            try:
                return save(view, store)
            finally:
                store.close()

        self._read.update(snapshots)
        try:
            return {"objects": await self._frozen({}, work)}
        finally:
            self._read.subtract(snapshots)

    # -- taking changes back -----------------------------------------------------------------------------------------------

    async def reset(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Everything is the image's again; path: this object with all that is below it."""
        self._require_writable()
        path = request.get("path")
        if isinstance(path, str):
            stale = await self._driver.run(self._overlay.restore(path.encode("utf-8", "surrogateescape")))
        else:
            stale = self._overlay.reset()
        log.info("changes of %s are taken back: %d objects", ascii(path or "/")[1:-1], len(stale.inodes))
        await self.take_back(stale)
        return {"objects": len(stale.inodes)}

    def _inode(self, ino: int) -> pyfuse3.InodeT:
        return pyfuse3.ROOT_INODE if ino == self._overlay.root else pyfuse3.InodeT(ino)

    async def take_back(self, stale: Stale) -> None:
        """The kernel forgets what it was told of these. In a thread: it may ask for pages before it gives them up."""

        def work() -> None:
            for ino in stale.inodes:
                try:
                    self._kernel.invalidate_inode(self._inode(ino))
                except OSError:
                    continue  # it did not know it
            for parent, name in stale.names:
                try:
                    self._kernel.invalidate_entry(self._inode(parent), pyfuse3.FileNameT(name))
                except OSError:
                    continue

        await trio.to_thread.run_sync(work)
        await self._driver.run(self._overlay.fsync())

    async def compact(self, request: Mapping[str, Any], files: Sequence[int]) -> None:
        """What the shadow holds for nothing goes back to the file system, or to the system, while the mount goes on."""
        self._require_writable()
        if self._compacting:
            raise OSError(errno.EBUSY, "it is being compacted already")
        self._compacting = True
        try:
            await self._driver.run(self._overlay.reclaim(everything=True))
        finally:
            self._compacting = False

    # -- snapshots ---------------------------------------------------------------------------------------------------------

    def _known(self, name: object) -> str:
        """The name of a snapshot that there is."""
        checked = _checked(name)
        if _bytes(checked) not in self._overlay.snapshots():
            raise OSError(errno.ENOENT, f"there is no snapshot {checked}; `dmgfs shadow snapshot list` shows them")
        return checked

    async def snapshot(self, request: Mapping[str, Any], files: Sequence[int]) -> None:
        """name: of the new one."""
        self._require_writable()
        name = _checked(request.get("name"))
        if _bytes(name) in self._overlay.snapshots():
            raise OSError(errno.EEXIST, f"there is a snapshot {name} already")
        self._overlay.snapshot(_bytes(name))
        await self._driver.run(self._overlay.fsync())

    async def snapshots(self, request: Mapping[str, Any], files: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"name": name.decode("utf-8", "surrogateescape"), "made": one.made_ns / 1e9, **one.view.count()}
            for name, one in self._overlay.snapshots().items()
        ]

    async def rollback(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """name: the snapshot that the mount becomes again; it stays."""
        stale = self._overlay.rollback(_bytes(self._known(request.get("name"))))
        await self.take_back(stale)
        return {"objects": len(stale.inodes)}

    async def forget(self, request: Mapping[str, Any], files: Sequence[int]) -> None:
        """name: of the snapshot that is let go."""
        name = self._known(request.get("name"))
        if self._read[name]:
            raise OSError(errno.EBUSY, f"somebody is reading the snapshot {name}; try again later")
        self._overlay.delete_snapshot(_bytes(name))
        await self._driver.run(self._overlay.fsync())


def _checked(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX:
        raise OSError(errno.EINVAL, f"a snapshot has a name of 1 to {NAME_MAX} characters")
    return name


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@contextmanager
def _output(files: Sequence[int]) -> Iterator[Callable[[Buffer], object]]:
    """Writes to the first passed file, a pipe perhaps; in large pieces."""
    if not files:
        raise OSError(errno.EINVAL, "no file was passed")
    with os.fdopen(os.dup(files[0]), "wb", buffering=1 << 18) as output:
        yield output.write
