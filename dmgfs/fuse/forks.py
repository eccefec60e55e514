"""The requests of `operations` and, besides, those for resource forks: `FOLDER/..namedfork/FILE/rsrc` on the mount (see
`dmgfs.forks` for what these objects are).

Rules that hold here:
- names and attributes come from the overlay, so a file that was renamed or locked away on the mount is so here too; the
  bytes come from the image;
- nothing is remembered about these objects, so their numbers never go stale and forgetting them means nothing;
- whatever would change one of them is EROFS.
"""

import errno
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ReaddirToken,
    RequestContext,
)

from dmgfs.forks import (
    FILE,
    FIRST,
    FOLDER,
    FORK,
    NAMED_FORK,
    RESOURCE,
    appearance,
    failure,
    has_fork,
    number,
    split,
)
from dmgfs.fuse.operations import BATCH, DmgOperations
from dmgfs.lower import VolumeLower
from overlay.vfs import Attr, Buffer, Content, DirEntry

T = TypeVar("T")


CHANGES = {
    **dict.fromkeys(["setattr", "mknod", "mkdir", "symlink", "unlink", "rmdir", "create", "setxattr"], (0,)),
    "removexattr": (0,),
    "link": (0, 1),
    "rename": (0, 2),
}
"""Requests that change something, with the positions of the inodes in their arguments."""


def _unchangeable(method: Callable[..., Coroutine[Any, Any, T]], inodes: Sequence[int]) -> Callable[..., Any]:
    """`method` where none of the inodes is ours, EROFS else."""

    @functools.wraps(method)
    async def checked(*arguments: Any) -> T:
        if any(arguments[position] >= FIRST for position in inodes):
            raise failure(errno.EROFS)
        return await method(*arguments)

    return checked


class ForkOperations(DmgOperations):
    """DmgOperations with the resource forks of `lower`, the tree below the overlay."""

    def __init__(self, lower: VolumeLower, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lower = lower
        self._open_forks: dict[int, Content] = {}
        self._open_folders: dict[
            int, tuple[int, int]
        ] = {}  # handle → what it lists, the overlay's handle of its folder
        for name, inodes in CHANGES.items():
            setattr(self, name, _unchangeable(getattr(self, name), inodes))

    def _handle_of_ours(self) -> FileHandleT:
        """Apart from the overlay's handles."""
        return FileHandleT(FIRST + self.handles.number())

    def _present(self, attr: Attr) -> EntryAttributes:
        """What the kernel is told, for this time only: the object beside may change, if not now, with a late shadow."""
        answer = self._attributes(attr)
        answer.entry_timeout = answer.attr_timeout = 0
        return answer

    async def _attr(self, ino: int) -> Attr:
        kind, real = split(ino)
        attr = await self._driver.run(self._overlay.getattr(real))
        size = (await self._driver.ask(self._lower.resource, real)).size if kind == FORK else 0
        return appearance(kind, attr, size)

    # -- finding and attributes ------------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if parent_inode >= FIRST:
            return self._present(await self._attr(await self._find(*split(parent_inode), name)))
        if name != NAMED_FORK:
            return await super().lookup(parent_inode, name, ctx)
        try:
            answer = await super().lookup(parent_inode, name, ctx)
            if answer.st_ino:
                return answer  # the volume has an object of that name
        except FileNotFoundError:
            pass
        return self._present(await self._attr(number(FOLDER, self._ino(parent_inode))))

    async def _find(self, kind: int, real: int, name: bytes) -> int:
        if kind == FILE and name == RESOURCE:
            return number(FORK, real)
        if kind == FOLDER and name not in (b".", b".."):
            entry = await self._driver.run(self._overlay.lookup(real, name))
            self._overlay.forget(entry.ino)
            if has_fork(entry.type, entry.ino):
                return number(FILE, entry.ino)
        raise failure(errno.ENOENT)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        await super().forget([(inode, count) for inode, count in inode_list if inode < FIRST])

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        if inode < FIRST:
            return await super().getattr(inode, ctx)
        return self._present(await self._attr(inode))

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        if inode < FIRST:
            return await super().readlink(inode, ctx)
        raise failure(errno.EINVAL)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[pyfuse3.XAttrNameT]:
        return await super().listxattr(inode, ctx) if inode < FIRST else []

    async def getxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> bytes:
        if inode < FIRST:
            return await super().getxattr(inode, name, ctx)
        raise failure(errno.ENODATA)

    # -- directories -----------------------------------------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        if inode < FIRST:
            return await super().opendir(inode, ctx)
        kind, real = split(inode)
        below = await self._driver.run(self._overlay.opendir(real)) if kind == FOLDER else 0
        handle = self._handle_of_ours()
        self._open_folders[handle] = inode, below
        return handle

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        if fh < FIRST:
            return await super().readdir(fh, start_id, token)
        ino, below = self._open_folders[fh]
        kind, real = split(ino)
        if kind == FILE:
            lines = [(b".", ino), (b"..", ino), (RESOURCE, number(FORK, real))]
            for position, (name, of) in list(enumerate(lines, 1))[start_id:]:
                if not pyfuse3.readdir_reply(token, name, self._present(await self._attr(of)), position):
                    return None
            return None
        while entries := await self._driver.run(self._overlay.readdir(below, start_id, BATCH)):
            for entry in entries:
                attr = await self._listed(entry, ino)
                if attr and not pyfuse3.readdir_reply(token, entry.name, self._present(attr), entry.next):
                    return None
            start_id = entries[-1].next
        return None

    async def _listed(self, entry: DirEntry, folder: int) -> Attr | None:
        """What `..namedfork` shows for an entry of its folder; None: nothing, because there is no fork."""
        if entry.attr is None:
            return None
        if entry.name in (b".", b".."):
            return appearance(FOLDER, entry.attr._replace(ino=split(folder)[1]))
        if not has_fork(entry.type, entry.ino) or not (await self._driver.ask(self._lower.resource, entry.ino)).size:
            return None
        return appearance(FILE, entry.attr)

    async def releasedir(self, fh: FileHandleT) -> None:
        if fh < FIRST:
            return await super().releasedir(fh)
        ino, below = self._open_folders.pop(fh)
        if split(ino)[0] == FOLDER:
            self._overlay.releasedir(below)
        return None

    # -- contents --------------------------------------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if inode < FIRST:
            return await super().open(inode, flags, ctx)
        if flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY:
            raise failure(errno.EROFS)
        content: Content = await self._driver.ask(self._lower.resource, split(inode)[1])
        handle = self._handle_of_ours()
        self._open_forks[handle] = content
        return FileInfo(fh=handle, keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> Buffer:  # type: ignore[override]  # any buffer will do
        if fh < FIRST:
            return await super().read(fh, off, size)
        content = self._open_forks[fh]
        length = min(size, content.size - off)
        return b"" if length <= 0 else await self._driver.ask(content.read, off, length)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        if fh < FIRST:
            await super().fsync(fh, datasync)

    async def release(self, fh: FileHandleT) -> None:
        if fh < FIRST:
            return await super().release(fh)
        del self._open_forks[fh]
        return None
