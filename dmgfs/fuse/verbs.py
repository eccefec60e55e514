"""What can be asked of a live mount, and changed about its shadow: the handlers of `dmgfs.fuse.control`.

Rules that hold here:
- the overlay is looked at and changed on the trio thread; what reads or writes files runs in a worker thread;
- what the kernel was told before and is not true any more is taken back from it (invalidated), never left to chance.
"""

import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

from dmgfs.fuse.boundary import Boundary
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.forks import ForkOperations
from dmgfs.lower import VolumeLower
from overlay.disk import FileDisk
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.store import Store
from overlay.superblock import Base
from overlay.tree import Tree

if TYPE_CHECKING:
    from dmgfs.fuse.control import Handler
    from dmgfs.image import Image

log = logging.getLogger(__name__)

SHADOW_MIN = 1 << 16


class Verbs:
    """About one mount. base: what identifies the image. shadow: what the user calls the place of the changes, None for a
    read-only mount."""

    def __init__(
        self,
        image: "Image",
        partition: str,
        lower: VolumeLower,
        overlay: Overlay,
        driver: Driver,
        boundary: Boundary,
        operations: ForkOperations,
        base: Base,
        shadow: str | None,
    ) -> None:
        self._image = image
        self._partition = partition
        self._lower = lower
        self._overlay = overlay
        self._driver = driver
        self._boundary = boundary
        self._operations = operations
        self._base = base
        self._shadow = shadow
        self._since = time.time()

    def handlers(self) -> "Mapping[str, Handler]":
        return {
            "status": self.status,
            "resize": self.resize,
            "attach": self.attach,
            "settle": self.settle,
        }

    # -- status ----------------------------------------------------------------------------------------------------------

    async def status(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        return self.report()

    def report(self) -> dict[str, Any]:
        """All figures, for status and for the line that SIGUSR1 puts into the log. Sizes in bytes."""
        store = self._overlay.store
        chunks = self._image.cache.statistics()
        pool = self._driver.pool
        shadow = None
        if store is not None:
            shadow = {"kind": self._shadow, "used": store.used, "budget": store.budget, **self._overlay.count()}
        return {
            "pid": os.getpid(),
            "since": self._since,
            "image": self._image.path,
            "partition": self._partition,
            "shadow": shadow,
            "cache": {
                "used": chunks.bytes,
                "budget": chunks.budget,
                "chunks": chunks.entries,
                "hits": chunks.hits,
                "misses": chunks.misses,
                "evictions": chunks.evictions,
            },
            "lower": {"asked": self._driver.hits + self._driver.misses, "not in memory": self._driver.misses},
            "loads": {"wanted": pool.foreground, "ahead": pool.background},
            "open files": self._operations.open_files,
            "requests": self._boundary.requests,
            "errors": dict(self._boundary.failures),
        }

    # -- the shadow's size and place -------------------------------------------------------------------------------------

    def _store(self) -> Store:
        store = self._overlay.store
        if store is None:
            raise OSError(errno.EROFS, "the mount is read-only; `dmgfs shadow attach` makes it writable")
        return store

    async def resize(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        """size: bytes."""
        size = request.get("size")
        if not isinstance(size, int) or size < SHADOW_MIN:
            raise OSError(errno.EINVAL, "a shadow has at least 64K")
        store = self._store()
        store.resize(size)
        log.info("the shadow may take %d bytes now, %d are in use", size, store.used)
        return {"used": store.used, "budget": store.budget}

    async def attach(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        """size: bytes of memory; or one file passed open, with its path as the user calls it; force: also one that was
        made over another image. The kernel still refuses changes where it was mounted read-only: the client remounts, then
        asks for `settle`."""
        if self._overlay.writable:
            raise OSError(errno.EBUSY, "it has a shadow already")
        tree = Tree()
        name = request.get("path")
        size = request.get("size")
        if files and isinstance(name, str):
            force = request.get("force") is True
            opened = os.dup(files[0])
            store: Store = await trio.to_thread.run_sync(self._open_file, opened, name, force, tree)
        elif isinstance(size, int) and size >= SHADOW_MIN:
            store, name = RamStore(size), "ram"
            store.load(tree)
        else:
            raise OSError(errno.EINVAL, "neither a file nor a size (64K at least) was given")
        try:
            self._overlay.attach(store, tree)
        except OSError:  # somebody else was faster
            await trio.to_thread.run_sync(store.close)
            raise
        self._shadow = name
        self._operations.thaw()
        log.info("late shadow: changes go to %s", ascii(name)[1:-1])
        if tree.nodes:
            await self.settle(request, ())
        return {"used": store.used, "budget": store.budget}

    def _open_file(self, opened: int, name: str, force: bool, tree: Tree) -> Store:
        disk = FileDisk.of(opened, name)
        try:
            store = FileStore(disk, self._base, force_base=force)
            store.load(tree)
        except BaseException:
            disk.close()
            raise
        return store

    async def settle(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        """After a late shadow: the kernel forgets the names it was told for ever and still uses."""
        taken_back = 0
        for ino in self._overlay.held:
            place = await self._driver.ask(self._lower.place, ino) if self._overlay.is_lower(ino) else None
            if place is not None and not self._lower.only_spelling(place[1]):
                self._forget_name(*place)
                taken_back += 1
        return {"names": taken_back}

    def _forget_name(self, parent: int, name: bytes) -> None:
        pyfuse3.invalidate_entry_async(self._inode(parent), pyfuse3.FileNameT(name), ignore_enoent=True)

    def _inode(self, ino: int) -> pyfuse3.InodeT:
        return pyfuse3.ROOT_INODE if ino == self._overlay.root else pyfuse3.InodeT(ino)
