"""What an overlay must look like from outside, written as plainly as can be: one dictionary of objects, file contents as
plain bytes (with holes), no lower, no slots, no whiteouts. Every operation raises OSError or happens at once. Times come
from `now`.
"""

import errno
from dataclasses import dataclass, field, replace
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR, S_ISGID, S_ISLNK, S_ISREG, S_ISUID, S_IXGRP

from builders.lower_tree import LowerTree
from builders.sparse_bytes import SparseBytes
from overlay.contents import MAX_SIZE
from overlay.vfs import FIRST_NEW_INODE


def _fail(number: int) -> OSError:
    return OSError(number, errno.errorcode[number])


@dataclass
class Thing:
    """below: bytes from the start that may still be the lower's."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    atime: int
    mtime: int
    ctime: int
    data: SparseBytes = field(default_factory=SparseBytes)
    below: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    parent: int = 0

    @property
    def is_directory(self) -> bool:
        return S_ISDIR(self.mode)

    def copy(self) -> "Thing":
        return replace(self, data=self.data.copy(), xattrs=dict(self.xattrs), children=dict(self.children))

    def touch(self, now: int, links: int = 0) -> None:
        self.mtime = self.ctime = now
        self.nlink += links


class Model:
    """`things`: every object, also those without names until they are forgotten. `held`: inode → count."""

    def __init__(self, lower: LowerTree) -> None:
        self.fold = lower.fold
        self.root = lower.root
        self.now = 0
        self.next_ino = FIRST_NEW_INODE
        self.held: dict[int, int] = {}
        self.things: dict[int, Thing] = {}
        for ino, below in lower.things.items():
            attr = below.attr
            self.things[ino] = Thing(
                ino, attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.atime_ns, attr.mtime_ns, attr.ctime_ns
            )
            self.things[ino].data = SparseBytes(below.data)
            self.things[ino].below = len(below.data)
            self.things[ino].target = below.target
            self.things[ino].xattrs = dict(below.xattrs)
            self.things[ino].children = dict(below.children)
            self.things[ino].parent = below.parent

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _directory(self, ino: int, alive: bool = False) -> Thing:
        thing = self.things[ino]
        if not thing.is_directory:
            raise _fail(errno.ENOTDIR)
        if alive and not thing.nlink:
            raise _fail(errno.ENOENT)
        return thing

    def _child(self, parent: Thing, name: bytes) -> Thing:
        found = parent.children.get(self.fold(name))
        if found is None:
            raise _fail(errno.ENOENT)
        return self.things[found[1]]

    def _lose(self, thing: Thing) -> None:
        thing.nlink = 0 if thing.is_directory else thing.nlink - 1
        thing.ctime = self.now
        self._reap(thing.ino)

    def _reap(self, ino: int) -> None:
        if not self.things[ino].nlink and not self.held.get(ino):
            del self.things[ino]

    def _hold(self, ino: int) -> None:
        self.held[ino] = self.held.get(ino, 0) + 1

    def _inside(self, ino: int, ancestor: int) -> bool:
        while ino not in (ancestor, self.root):
            ino = self.things[ino].parent
        return ino == ancestor

    # -- as it was -----------------------------------------------------------------------------------------------------

    def keep(self) -> dict[int, Thing]:
        """A snapshot."""
        return {ino: thing.copy() for ino, thing in self.things.items()}

    def go_back(self, kept: dict[int, Thing]) -> None:
        """To a snapshot. What is held and was not there then goes on without a name."""
        later = [thing for ino, thing in self.things.items() if ino not in kept]
        self.things = {ino: thing.copy() for ino, thing in kept.items()}
        for thing in later:
            if self.held.get(thing.ino):
                thing.nlink = 0
                thing.children.clear()
                self.things[thing.ino] = thing
        for ino in list(self.things):
            self._reap(ino)

    # -- operations ----------------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> tuple[bytes, int]:
        above = self._directory(parent)
        if len(name) > 765:
            raise _fail(errno.ENAMETOOLONG)
        found = above.children.get(self.fold(name))
        if found is None:
            raise _fail(errno.ENOENT if len(name) <= 255 else errno.ENAMETOOLONG)
        self._hold(found[1])
        return found

    def forget(self, ino: int, count: int) -> None:
        self.held[ino] -= count
        if not self.held[ino]:
            del self.held[ino]
        self._reap(ino)

    def _make(self, parent: int, name: bytes, mode: int, umask: int, rdev: int = 0, target: bytes = b"") -> int:
        if len(name) > 255:
            raise _fail(errno.ENAMETOOLONG)
        above = self._directory(parent, alive=True)
        if self.fold(name) in above.children:
            raise _fail(errno.EEXIST)
        if not S_ISLNK(mode):
            mode &= ~umask
        gid = 7
        if above.mode & S_ISGID:
            gid = above.gid
            if S_ISDIR(mode):
                mode |= S_ISGID
        ino = self.next_ino
        self.next_ino += 1
        thing = Thing(ino, mode, 2 if S_ISDIR(mode) else 1, 5, gid, rdev, self.now, self.now, self.now, target=target)
        thing.parent = parent
        self.things[ino] = thing
        above.children[self.fold(name)] = name, ino
        above.touch(self.now, int(thing.is_directory))
        self._hold(ino)
        return ino

    def create(self, parent: int, name: bytes, mode: int, umask: int) -> int:
        return self._make(parent, name, S_IFREG | mode, umask)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, umask: int) -> int:
        return self._make(parent, name, mode, umask, rdev)

    def mkdir(self, parent: int, name: bytes, mode: int, umask: int) -> int:
        return self._make(parent, name, S_IFDIR | mode, umask)

    def symlink(self, parent: int, name: bytes, target: bytes) -> int:
        return self._make(parent, name, S_IFLNK | 0o777, 0, 0, target)

    def link(self, ino: int, parent: int, name: bytes) -> int:
        if len(name) > 255:
            raise _fail(errno.ENAMETOOLONG)
        above = self._directory(parent, alive=True)
        thing = self.things[ino]
        if thing.is_directory:
            raise _fail(errno.EPERM)
        if not thing.nlink:
            raise _fail(errno.ENOENT)
        if self.fold(name) in above.children:
            raise _fail(errno.EEXIST)
        thing.nlink += 1
        thing.ctime = self.now
        above.children[self.fold(name)] = name, ino
        above.touch(self.now)
        self._hold(ino)
        return ino

    def unlink(self, parent: int, name: bytes) -> None:
        above = self._directory(parent)
        thing = self._child(above, name)
        if thing.is_directory:
            raise _fail(errno.EISDIR)
        del above.children[self.fold(name)]
        above.touch(self.now)
        self._lose(thing)

    def rmdir(self, parent: int, name: bytes) -> None:
        above = self._directory(parent)
        thing = self._child(above, name)
        if not thing.is_directory:
            raise _fail(errno.ENOTDIR)
        if thing.children:
            raise _fail(errno.ENOTEMPTY)
        del above.children[self.fold(name)]
        above.touch(self.now, -1)
        self._lose(thing)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        old, new = self._directory(parent), self._directory(new_parent, alive=True)
        thing = self._child(old, name)
        if len(new_name) > 255:
            raise _fail(errno.ENAMETOOLONG)
        key, new_key = self.fold(name), self.fold(new_name)
        there = new.children.get(new_key)
        if flags == 2:
            if there is None:
                raise _fail(errno.ENOENT)
            other = self.things[there[1]]
            if other is thing:
                return
            for moved, to in ((thing, new_parent), (other, parent)):
                if moved.is_directory and self._inside(to, moved.ino):
                    raise _fail(errno.EINVAL)
            old.children[key], new.children[new_key] = (old.children[key][0], other.ino), (there[0], thing.ino)
            if old is not new:
                thing.parent, other.parent = new_parent, parent
                old.nlink += other.is_directory - thing.is_directory
                new.nlink += thing.is_directory - other.is_directory
            for each in (old, new):
                each.touch(self.now)
            thing.ctime = other.ctime = self.now
            return
        if there is not None and old is new and key == new_key and there[0] != new_name:
            old.children[key] = new_name, thing.ino
            thing.ctime = self.now
            old.touch(self.now)
            return
        if there is not None:
            if flags == 1:
                raise _fail(errno.EEXIST)
            if there[1] == thing.ino:
                return
        if thing.is_directory and self._inside(new_parent, thing.ino):
            raise _fail(errno.EINVAL)
        if there is not None:
            other = self.things[there[1]]
            if thing.is_directory and not other.is_directory:
                raise _fail(errno.ENOTDIR)
            if other.is_directory:
                if not thing.is_directory:
                    raise _fail(errno.EISDIR)
                if other.children:
                    raise _fail(errno.ENOTEMPTY)
                new.nlink -= 1
            self._lose(other)
        del old.children[key]
        new.children[new_key] = new_name, thing.ino
        if thing.is_directory:
            old.nlink -= 1
            new.nlink += 1
            thing.parent = new_parent
        thing.ctime = self.now
        old.touch(self.now)
        new.touch(self.now)

    def _file(self, ino: int) -> Thing:
        thing = self.things[ino]
        if thing.is_directory:
            raise _fail(errno.EISDIR)
        if not S_ISREG(thing.mode):
            raise _fail(errno.EINVAL)
        return thing

    def read(self, ino: int, offset: int, length: int) -> bytes:
        return self._file(ino).data.read(offset, length)

    def write(self, ino: int, offset: int, data: bytes, clear_setid: bool) -> int:
        thing = self._file(ino)
        if not data:
            return 0
        if offset + len(data) > MAX_SIZE:
            raise _fail(errno.EFBIG)
        thing.data.write(offset, data)
        if clear_setid:
            self._clear(thing)
        thing.touch(self.now)
        return len(data)

    @staticmethod
    def _clear(thing: Thing) -> None:
        thing.mode &= ~S_ISUID
        if thing.mode & S_IXGRP:
            thing.mode &= ~S_ISGID

    def truncate(self, ino: int, size: int) -> None:
        thing = self._file(ino)
        if size > MAX_SIZE:
            raise _fail(errno.EFBIG)
        thing.data.resize(size)
        thing.below = min(thing.below, size)
        thing.touch(self.now)

    def chmod(self, ino: int, mode: int) -> None:
        self.things[ino].mode = S_IFMT(self.things[ino].mode) | mode
        self.things[ino].ctime = self.now

    def chown(self, ino: int, uid: int, gid: int) -> None:
        thing = self.things[ino]
        thing.uid, thing.gid = uid, gid
        if not thing.is_directory:
            self._clear(thing)
        thing.ctime = self.now

    def utimens(self, ino: int, atime: int | None, mtime: int | None) -> None:
        thing = self.things[ino]
        thing.atime = thing.atime if atime is None else atime
        thing.mtime = thing.mtime if mtime is None else mtime
        thing.ctime = self.now

    def readlink(self, ino: int) -> bytes:
        if not S_ISLNK(self.things[ino].mode):
            raise _fail(errno.EINVAL)
        return self.things[ino].target

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        thing = self.things[ino]
        if flags == 1 and name in thing.xattrs:
            raise _fail(errno.EEXIST)
        if flags == 2 and name not in thing.xattrs:
            raise _fail(errno.ENODATA)
        thing.xattrs[name] = value
        thing.ctime = self.now

    def removexattr(self, ino: int, name: bytes) -> None:
        if name not in self.things[ino].xattrs:
            raise _fail(errno.ENODATA)
        del self.things[ino].xattrs[name]
        self.things[ino].ctime = self.now

    def getxattr(self, ino: int, name: bytes) -> bytes:
        if name not in self.things[ino].xattrs:
            raise _fail(errno.ENODATA)
        return self.things[ino].xattrs[name]

    def listxattr(self, ino: int) -> set[bytes]:
        return set(self.things[ino].xattrs)
