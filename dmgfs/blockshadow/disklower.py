"""A disk and its partitions as the files of one directory: a Lower of the overlay.

    disk       all of it
    disk0s1    a partition, as its map numbers it; and so on

Rule: the bytes are those of the disk, so the files overlap. That a write to one shows in the other is `disktree`'s work.
"""

import errno
import os
from collections.abc import Hashable, Sequence
from stat import S_IFDIR, S_IFMT, S_IFREG
from typing import NamedTuple

from dmgfs.source import ByteSource, SliceSource
from overlay.vfs import FIRST_NEW_INODE, Attr, Content, Entry, Listing, Usage

ROOT = 2
DISK = 3

_BLOCK = 512


class View(NamedTuple):
    """A part of the disk with a name of its own. In bytes."""

    name: str
    start: int
    size: int


class DiskLower:
    """disk: the base. views: partitions, inside of it. uid, gid: who owns the files. made_ns: their date."""

    root = ROOT
    end_ino = FIRST_NEW_INODE
    name_max = 255

    def __init__(self, disk: ByteSource, views: Sequence[View], *, uid: int, gid: int, made_ns: int) -> None:
        self.disk = disk
        self.views = {DISK + 1 + number: view for number, view in enumerate(views)}
        self._sources: dict[int, ByteSource] = {DISK: disk}
        self._sources |= {ino: SliceSource(disk, view.start, view.size) for ino, view in self.views.items()}
        self._names = {b"disk": DISK} | {view.name.encode(): ino for ino, view in self.views.items()}
        self._owner = (uid, gid)
        self._made_ns = made_ns

    def start(self, ino: int) -> int:
        """Where on the disk the file begins."""
        return self.views[ino].start if ino in self.views else 0

    def size(self, ino: int) -> int:
        return self._sources[ino].size

    # -- the Lower ---------------------------------------------------------------------------------------------------

    def fold(self, name: bytes) -> bytes:
        return name

    def only_spelling(self, name: bytes) -> bool:
        """No other bytes mean the same."""
        return True

    def getattr(self, ino: int) -> Attr:
        uid, gid = self._owner
        time = self._made_ns
        if ino == ROOT:
            return Attr(ino, S_IFDIR | 0o700, 2, uid, gid, 0, 0, 0, time, time, time, time)
        size = self._require(ino).size
        return Attr(ino, S_IFREG | 0o600, 1, uid, gid, 0, size, -(-size // _BLOCK), time, time, time, time)

    def _require(self, ino: int) -> ByteSource:
        if ino not in self._sources:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return self._sources[ino]

    def parent(self, ino: int) -> int:
        return ROOT

    def place(self, ino: int) -> tuple[int, bytes] | None:
        return next(((ROOT, name) for name, number in self._names.items() if number == ino), None)

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        ino = self._names.get(name)
        return None if ino is None else self._entry(name, ino)

    def _entry(self, name: bytes, ino: int) -> Entry:
        attr = self.getattr(ino)
        return Entry(name, ino, S_IFMT(attr.mode), attr)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        first = after if isinstance(after, int) else 0
        names = list(self._names.items())[first:]
        entries = [self._entry(name, number) for name, number in names[:limit]]
        return Listing(entries, first + limit if len(names) > limit else None)

    def open(self, ino: int) -> Content:
        return self._require(ino)

    def readlink(self, ino: int) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def listxattr(self, ino: int) -> Sequence[bytes]:
        return ()

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        return None

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def statfs(self) -> Usage:
        return Usage(4096, -(-self.disk.size // 4096), 0, len(self._names) + 1, 0, self.name_max)
