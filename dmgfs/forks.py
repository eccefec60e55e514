"""Resource forks as files: `FOLDER/..namedfork/FILE/rsrc`. macOS has them at `FILE/..namedfork/rsrc`; Linux cannot, because
its kernel refuses a path through a regular file (ENOTDIR) before it asks any file system. So the detour starts at the
folder. Verbs, which do not ask the kernel, take either spelling (see `cli.tree`).

Rules that hold here:
- the three kinds of objects are unlisted: who walks the tree never meets them. `FOLDER/..namedfork` itself lists the files
  that have a fork; every regular file of the image can be looked up there, an absent fork is an empty one, as on macOS;
- a volume's own object of that name comes first;
- they have inode numbers of their own, far above all others, made of the number of the object that they stand beside, so
  nothing needs to be remembered. They cannot be changed.
"""

import errno
import os
import stat
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from dmgfs.errors import DmgError
from overlay.vfs import FIRST_NEW_INODE, Attr, Content, Entry, Listing, Usage

if TYPE_CHECKING:
    from dmgfs.lower import VolumeLower

NAMED_FORK = b"..namedfork"
RESOURCE = b"rsrc"

_KIND = 60
FIRST = 1 << _KIND
"""Numbers from here on are ours."""

REAL, FOLDER, FILE, FORK = 0, 1, 2, 3
"""An object of the tree; `..namedfork` of a folder; `FILE` in there; its `rsrc`."""


def number(kind: int, ino: int) -> int:
    return kind << _KIND | ino


def split(ino: int) -> tuple[int, int]:
    """Kind, and the number of the object behind it."""
    return ino >> _KIND, ino & (FIRST - 1)


def has_fork(kind: int, ino: int) -> bool:
    """Whether an object of this S_IFMT and number can have one: a regular file of the image."""
    return kind == stat.S_IFREG and ino < FIRST_NEW_INODE


def appearance(kind: int, attr: Attr, size: int = 0) -> Attr:
    """The attributes of the object beside the one with `attr`: its owner and dates, readable by whoever may read that.
    size: of the fork, in bytes."""
    readable = attr.mode & 0o444
    if kind == FORK:
        mode, blocks = stat.S_IFREG | readable, -(-size // 512)
    else:
        mode, size, blocks = stat.S_IFDIR | readable | readable >> 2, 0, 0
    return attr._replace(ino=number(kind, attr.ino), mode=mode, nlink=1, rdev=0, size=size, blocks=blocks)


def failure(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class WithForks:
    """`lower` with the unlisted objects: a Lower for verbs. (In a mount the overlay answers for names and attributes, so
    that a file that was renamed there is found under its new name: see `fuse.forks`.)"""

    def __init__(self, lower: "VolumeLower") -> None:
        self.lower = lower
        self.name_max = lower.name_max
        self.end_ino = number(FORK + 1, 0)

    @property
    def root(self) -> int:
        return self.lower.root

    def fold(self, name: bytes) -> bytes:
        return self.lower.fold(name)

    def getattr(self, ino: int) -> Attr:
        kind, real = split(ino)
        attr = self.lower.getattr(real)
        if kind == REAL:
            return attr
        return appearance(kind, attr, self.lower.resource(real).size if kind == FORK else 0)

    def parent(self, ino: int) -> int:
        kind, real = split(ino)
        if kind == REAL:
            return self.lower.parent(real)
        if kind == FOLDER:
            return real
        return number(FOLDER, self.lower.parent(real)) if kind == FILE else number(FILE, real)

    def place(self, ino: int) -> tuple[int, bytes] | None:
        return self.lower.place(ino) if split(ino)[0] == REAL else None

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        kind, real = split(parent)
        if kind == REAL:
            entry = self.lower.lookup(real, name)
            return self._entry(name, FOLDER, real) if entry is None and name == NAMED_FORK else entry
        if kind == FOLDER:
            entry = self.lower.lookup(real, name)
            found = entry is not None and has_fork(entry.type, entry.ino)
            return self._entry(entry.name, FILE, entry.ino) if entry is not None and found else None
        return self._entry(RESOURCE, FORK, real) if kind == FILE and name == RESOURCE else None

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        kind, real = split(ino)
        if kind == FILE:
            return Listing([self._entry(RESOURCE, FORK, real)], None)
        listing = self.lower.readdir(real, after, limit)
        if kind == REAL:
            return listing
        files = [entry for entry in listing.entries if has_fork(entry.type, entry.ino) and self._listed(entry.ino)]
        return Listing([self._entry(entry.name, FILE, entry.ino) for entry in files], listing.next)

    def _listed(self, ino: int) -> bool:
        try:
            return self.lower.resource(ino).size > 0
        except DmgError:
            return False

    def _entry(self, name: bytes, kind: int, real: int) -> Entry:
        ino = number(kind, real)
        attr = self.getattr(ino)
        return Entry(name, ino, stat.S_IFMT(attr.mode), attr)

    def open(self, ino: int) -> Content:
        kind, real = split(ino)
        if kind == REAL:
            return self.lower.open(real)
        if kind != FORK:
            raise failure(errno.EISDIR)
        return self.lower.resource(real)

    def readlink(self, ino: int) -> bytes:
        kind, real = split(ino)
        if kind != REAL:
            raise failure(errno.EINVAL)
        return self.lower.readlink(real)

    def listxattr(self, ino: int) -> Sequence[bytes]:
        kind, real = split(ino)
        return self.lower.listxattr(real) if kind == REAL else ()

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        kind, real = split(ino)
        return self.lower.getxattr(real, name) if kind == REAL else None

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def statfs(self) -> Usage:
        return self.lower.statfs()
