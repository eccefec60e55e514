"""What can be asked of a live mount, and changed about its shadow: the handlers of `dmgfs.fuse.control`.

Rules that hold here:
- the overlay is looked at and changed on the trio thread; what reads or writes files runs in a worker thread;
- what the kernel was told before and is not true any more is taken back from it (invalidated), never left to chance.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyfuse3
import trio

from dmgfs.changelist import write_records
from dmgfs.fuse.boundary import Boundary
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.operations import DmgOperations
from dmgfs.layers import Stack
from dmgfs.layertar import write_layer
from dmgfs.squeezing import ram_store
from overlay.disk import FileDisk
from overlay.file import FileStore
from overlay.overlay import Frozen, Overlay
from overlay.ram import RamStore
from overlay.reset import Stale
from overlay.save import save
from overlay.squeezed import SqueezedStore
from overlay.store import Store
from overlay.tree import Tree
from overlay.vfs import Buffer, Lower

if TYPE_CHECKING:
    from dmgfs.cache import ChunkCache
    from dmgfs.fuse.control import Handler

log = logging.getLogger(__name__)

T = TypeVar("T")

SHADOW_MIN = 1 << 16
MOST_JOBS = 2
MOST_SNAPSHOTS = 100
NAME_MAX = 100


class Subject(Protocol):
    """What is mounted: an image, most of the time."""

    @property
    def path(self) -> str: ...
    @property
    def cache(self) -> "ChunkCache[Buffer]": ...


class Spelled(Lower, Protocol):
    """A lower that knows whether no other bytes could mean the same as a name."""

    def only_spelling(self, name: bytes) -> bool: ...


class Kernel(Protocol):
    """The channel, or pyfuse3 where there is none. Both may wait, and raise OSError for what the kernel does not know."""

    def invalidate_inode(self, inode: int, /) -> None: ...
    def invalidate_entry(self, parent: int, name: bytes, /) -> None: ...


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
        self._kernel = kernel
        self._since = time.time()
        self._jobs = 0
        self._snapshots: dict[str, tuple[float, Frozen]] = {}

    def handlers(self) -> "Mapping[str, Handler]":
        return {
            "status": self.status,
            "resize": self.resize,
            "attach": self.attach,
            "settle": self.settle,
            "diff": self.diff,
            "export": self.export,
            "save": self.save,
            "reset": self.reset,
            "snapshot": self.snapshot,
            "snapshots": self.snapshots,
            "rollback": self.rollback,
            "forget": self.forget,
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
        await self._take_back(Stale([], names))
        return {"names": len(names)}

    def _inode(self, ino: int) -> pyfuse3.InodeT:
        return pyfuse3.ROOT_INODE if ino == self._overlay.root else pyfuse3.InodeT(ino)

    # -- looking at changes and keeping them -----------------------------------------------------------------------------

    async def _frozen(self, work: Callable[[Overlay], T]) -> T:
        """`work` on what the overlay is now, in a thread, while the mount goes on."""
        if self._jobs >= MOST_JOBS:
            raise OSError(errno.EBUSY, f"{MOST_JOBS} others are looking at the changes already; try again later")
        self._jobs += 1
        try:
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
            return await self._frozen(lambda view: write_records(view, put, len(self._layers)))

    async def export(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Into the passed file, a tar stream."""
        with _output(files) as put:
            return {"sockets": await self._frozen(lambda view: write_layer(view, put))}

    async def save(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Into the passed file, which is empty and becomes a shadow file."""
        if not files:
            raise OSError(errno.EINVAL, "no file was passed")
        opened = os.dup(files[0])

        def work(view: Overlay) -> int:
            store = FileStore(FileDisk.of(opened, str(request.get("path"))), self._base(), recycle=True)
            try:
                return save(view, store)
            finally:
                store.close()

        return {"objects": await self._frozen(work)}

    # -- taking changes back -----------------------------------------------------------------------------------------------

    async def reset(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """Everything is the image's again; path: this object with all that is below it."""
        self._store()
        path = request.get("path")
        if isinstance(path, str):
            stale = await self._driver.run(self._overlay.restore(path.encode("utf-8", "surrogateescape")))
        else:
            stale = self._overlay.reset()
        log.info("changes of %s are taken back: %d objects", ascii(path or "/")[1:-1], len(stale.inodes))
        await self._take_back(stale)
        return {"objects": len(stale.inodes)}

    async def _take_back(self, stale: Stale) -> None:
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

    # -- snapshots ---------------------------------------------------------------------------------------------------------

    def _named(self, request: Mapping[str, Any]) -> str:
        name = request.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX:
            raise OSError(errno.EINVAL, f"a snapshot has a name of 1 to {NAME_MAX} characters")
        return name

    def _known(self, request: Mapping[str, Any]) -> tuple[float, Frozen]:
        name = self._named(request)
        if name not in self._snapshots:
            raise OSError(errno.ENOENT, f"there is no snapshot {name}; `dmgfs shadow snapshot list` shows them")
        return self._snapshots[name]

    async def snapshot(self, request: Mapping[str, Any], files: Sequence[int]) -> None:
        """name: of the new one."""
        name = self._named(request)
        if not isinstance(self._store(), RamStore):
            raise OSError(
                errno.ENOTSUP, "snapshots are for shadows in memory; `dmgfs shadow save` copies one in a file"
            )
        if name in self._snapshots:
            raise OSError(errno.EEXIST, f"there is a snapshot {name} already")
        if len(self._snapshots) >= MOST_SNAPSHOTS:
            raise OSError(errno.ENOSPC, f"there are {MOST_SNAPSHOTS} snapshots already")
        self._snapshots[name] = time.time(), self._overlay.freeze()

    async def snapshots(self, request: Mapping[str, Any], files: Sequence[int]) -> list[dict[str, Any]]:
        found = self._snapshots.items()
        return [{"name": name, "made": made, **frozen.view.count()} for name, (made, frozen) in found]

    async def rollback(self, request: Mapping[str, Any], files: Sequence[int]) -> dict[str, int]:
        """name: the snapshot that the mount becomes again; it stays."""
        _, frozen = self._known(request)
        stale = self._overlay.go_back(frozen)
        await self._take_back(stale)
        return {"objects": len(stale.inodes)}

    async def forget(self, request: Mapping[str, Any], files: Sequence[int]) -> None:
        """name: of the snapshot that is let go."""
        _, frozen = self._known(request)
        del self._snapshots[self._named(request)]
        self._overlay.thaw(frozen)


@contextmanager
def _output(files: Sequence[int]) -> Iterator[Callable[[Buffer], object]]:
    """Writes to the first passed file, a pipe perhaps; in large pieces."""
    if not files:
        raise OSError(errno.EINVAL, "no file was passed")
    with os.fdopen(os.dup(files[0]), "wb", buffering=1 << 18) as output:
        yield output.write
