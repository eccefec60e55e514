"""The files of a disk, writable: an Overlay whose files cannot be made, removed or resized, and in which a partition is a
window of the disk. The shadow is the overlay's: pages of 4096 bytes, data before map, parts of a page filled from the base.

Rules that hold here:
- there is one changed file, the disk; a partition is read and written through it, so both always show the same;
- they behave as block devices: O_TRUNC means nothing, no write goes beyond the end (ENOSPC at the end, short before it), no
  other size is accepted;
- names are fixed: making, removing and renaming are EPERM.
"""

import errno
import os

from dmgfs.blockshadow.disklower import DISK, DiskLower
from overlay.overlay import Overlay
from overlay.state import error
from overlay.store import Store
from overlay.vfs import Attr, Buffer, Caller, Content, Steps


class DiskTree(Overlay):
    """`store` None: read-only, until `attach` gives it one."""

    def __init__(self, lower: DiskLower, store: Store | None = None) -> None:
        super().__init__(lower, store)
        self._disk = lower

    # -- contents ----------------------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int = 0) -> Steps[None]:
        yield from super().open(ino, flags & ~os.O_TRUNC)
        if ino in self._disk.views:
            yield from super().open(DISK)

    def release(self, ino: int) -> None:
        super().release(ino)
        if ino in self._disk.views:
            super().release(DISK)

    def plain(self, ino: int) -> Content | None:
        if ino in self._disk.views and super().plain(DISK) is None:
            return None
        return super().plain(ino)

    def read(self, ino: int, offset: int, length: int) -> Steps[Buffer]:
        length = min(length, self._disk.size(ino) - offset)
        if length <= 0:
            return b""
        return (yield from super().read(DISK, self._disk.start(ino) + offset, length))

    def write(self, ino: int, offset: int, data: bytes, *, clear_setid: bool = False) -> Steps[int]:
        room = self._disk.size(ino) - offset
        if room <= 0 < len(data):
            raise error(errno.ENOSPC)
        return (yield from super().write(DISK, self._disk.start(ino) + offset, data[:room]))

    def setattr(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        now: bool = False,
    ) -> Steps[Attr]:
        if size is not None and size != self._disk.size(ino):
            raise error(errno.EPERM)
        return super().setattr(ino, mode=mode, uid=uid, gid=gid, atime_ns=atime_ns, mtime_ns=mtime_ns, now=now)

    # -- names -------------------------------------------------------------------------------------------------------

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Steps[Attr]:
        raise error(errno.EPERM)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Steps[Attr]:
        raise error(errno.EPERM)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Steps[Attr]:
        raise error(errno.EPERM)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Steps[Attr]:
        raise error(errno.EPERM)

    def link(self, ino: int, parent: int, name: bytes) -> Steps[Attr]:
        raise error(errno.EPERM)

    def unlink(self, parent: int, name: bytes) -> Steps[None]:
        raise error(errno.EPERM)

    def rmdir(self, parent: int, name: bytes) -> Steps[None]:
        raise error(errno.EPERM)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Steps[None]:
        raise error(errno.EPERM)
