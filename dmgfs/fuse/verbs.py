"""What can be asked of a live mount, and changed about its shadow: the handlers of `dmgfs.fuse.control`. Those about the
changes in it are in `changes`.

Rules that hold here:
- the overlay is looked at and changed on the trio thread; what reads or writes files runs in a worker thread;
- what the kernel was told before and is not true any more is taken back from it (invalidated), never left to chance.
"""

import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import trio

from dmgfs.fuse.boundary import Boundary
from dmgfs.fuse.changes import Changes, Kernel
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.operations import DmgOperations
from dmgfs.layers import Stack
from dmgfs.squeezing import ram_store
from overlay.disk import FileDisk
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.reset import Stale
from overlay.squeezed import SqueezedStore
from overlay.store import Store
from overlay.tree import Tree
from overlay.vfs import Buffer, Lower

if TYPE_CHECKING:
    from dmgfs.cache import ChunkCache
    from dmgfs.fuse.control import Handler
    from dmgfs.remote import RemoteSource

log = logging.getLogger(__name__)

SHADOW_MIN = 1 << 16


class Subject(Protocol):
    """What is mounted: an image, most of the time."""

    @property
    def path(self) -> str: ...
    @property
    def cache(self) -> "ChunkCache[Buffer]": ...
    @property
    def remote_below(self) -> "RemoteSource | None": ...


class Spelled(Lower, Protocol):
    """A lower that knows whether no other bytes could mean the same as a name."""

    def only_spelling(self, name: bytes) -> bool: ...


class Verbs:
    """About one mount. stack: the image with the read-only layers over it. shadow: what the user calls the place of the
    changes, None for a read-only mount. kernel: takes notices of what is not true any more."""

    def __init__(
        self,
        image: Subject,
        partition: str,
        lower: Spelled,
        overlay: Overlay,
        driver: Driver,
        boundary: Boundary,
        operations: DmgOperations,
        stack: Stack,
        shadow: str | None,
        kernel: Kernel,
    ) -> None:
        self._image = image
        self._partition = partition
        self._lower = lower
        self._overlay = overlay
        self._driver = driver
        self._boundary = boundary
        self._operations = operations
        self._layers = stack.layers
        self._base = stack.base  # in worker threads only: it may take a second
        self._shadow = shadow
        self._since = time.time()
        self._changes = Changes(overlay, driver, stack, kernel)

    def handlers(self) -> "Mapping[str, Handler]":
        return {
            "status": self.status,
            "resize": self.resize,
            "attach": self.attach,
            "settle": self.settle,
            **self._changes.handlers(),
        }

    # -- status ----------------------------------------------------------------------------------------------------------

    async def status(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        return self.report()

    def report(self) -> dict[str, Any]:
        """All figures, for status and for the line that SIGUSR1 puts into the log. Sizes in bytes."""
        store = self._overlay.store
        chunks = self._image.cache.statistics()
        pool = self._driver.pool
        shadow: dict[str, Any] | None = None
        if store is not None:
            shadow = {"kind": self._shadow, "used": store.used, "budget": store.budget, **self._overlay.count()}
            shadow["snapshots"], shadow["pages of snapshots"] = self._overlay.count_snapshots()
            if isinstance(store, SqueezedStore):
                pages, taken = store.squeezed
                shadow["compressed"] = {"with": store.codec.name, "pages": pages, "bytes": taken}
        return {
            "pid": os.getpid(),
            "since": self._since,
            "image": self._image.path,
            "partition": self._partition,
            "layers": [{"file": one.path, "objects": one.objects, "used": one.used} for one in self._layers],
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
            "open files": len(self._operations.handles),
            "requests": self._boundary.requests,
            "errors": dict(self._boundary.failures),
            **({} if self._image.remote_below is None else {"network": self._image.remote_below.report()}),
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
        """size: bytes of memory, and compress: how its cold pages are; or one file passed open, with its path as the user
        calls it; force: also one that was made over another image; recycle: as an empty one; preallocate: bytes to reserve.
        The kernel still refuses changes where it was mounted read-only: the client remounts, then asks for `settle`."""
        if self._overlay.writable:
            raise OSError(errno.EBUSY, "it has a shadow already")
        tree = Tree(self._overlay.lower.end_ino)
        name = request.get("path")
        size = request.get("size")
        if files and isinstance(name, str):
            opened = os.dup(files[0])
            store: Store = await trio.to_thread.run_sync(self._open_file, opened, name, request, tree)
        elif isinstance(size, int) and size >= SHADOW_MIN:
            store, name = ram_store(size, str(request.get("compress", "none"))), "ram"
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

    def _open_file(self, opened: int, name: str, request: Mapping[str, Any], tree: Tree) -> Store:
        size = request.get("preallocate")
        disk = FileDisk.of(opened, name)
        try:
            store = FileStore(
                disk,
                self._base(),
                force_base=request.get("force") is True,
                recycle=request.get("recycle") is True,
                preallocate=size if isinstance(size, int) and size > 0 else 0,
            )
            store.load(tree)
        except BaseException:
            disk.close()
            raise
        return store

    async def settle(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, Any]:
        """After a late shadow: the kernel forgets the names it was told for ever and still uses."""
        names: list[tuple[int, bytes]] = []
        for ino in self._overlay.held:
            below = self._overlay.is_lower(ino)
            place = await self._driver.ask(self._overlay.lower.place, ino) if below else None
            if place is not None and not self._lower.only_spelling(place[1]):
                names.append(place)
        await self._changes.take_back(Stale([], names))
        return {"names": len(names)}
