"""A directory of the running system as a Lower: what a RAM disk covers and still shows (`dmgfs ramdisk --union`).

Rules that hold here:
- the directory is opened before anything is mounted on it, and reached by that descriptor only: its path leads to the mount
  by then, and the daemon would wait for itself;
- inode numbers are ours (the directory may span several file systems): counted from 3 in the order in which objects are
  seen; an object keeps its number, and what is found at its place is checked to be it before it is used;
- no symbolic link is followed on the way, and nothing is changed, not even by opening a device or a FIFO;
- an access list of an object below is not obeyed by the overlay, so its permission bits are shown without what the mask
  would give to the group (narrow): nobody may do more than before;
- who can still reach the directory in another way (an open descriptor, another namespace) may change it: names and
  attributes are asked anew each time. Bytes of an open file are the file's own.
"""

import errno
import os
import stat
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

from dmgfs.source import FileSource
from overlay import acl
from overlay.bare import ROOT
from overlay.vfs import FIRST_NEW_INODE, Attr, Content, Entry, Listing, Usage

T = TypeVar("T")

_FIRST = ROOT + 1
_WITH_CONTENTS = (stat.S_IFREG, stat.S_IFDIR)


def attr_of(ino: int, status: os.stat_result) -> Attr:
    """stat() as the overlay has it. The birth time is not known to Python."""
    return Attr(
        ino,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_size,
        status.st_blocks,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ctime_ns,
    )


class _Known(NamedTuple):
    """Where an object was first seen, and how to tell that it is still the same."""

    parent: int
    name: bytes
    identity: tuple[int, int, int]


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """With the type: a file system gives the number of what is gone to something new, and a kernel that sees a number
    become another type of object calls it damaged."""
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


class _File(FileSource):
    """Closed when nobody reads it any more: the overlay lets go of contents without a word."""

    _fd = -1

    def __del__(self) -> None:
        self.close()


class CoveredLower:
    """directory: a descriptor of it (O_PATH will do), which becomes ours. narrow: see above."""

    root = ROOT
    name_max = 255
    end_ino = FIRST_NEW_INODE

    def __init__(self, directory: int, *, narrow: bool = False) -> None:
        self._directory = directory
        self._narrow = narrow
        status = os.fstat(directory)
        self._known: dict[int, _Known] = {ROOT: _Known(ROOT, b"", _identity(status))}
        self._numbers: dict[tuple[int, int, int], int] = {_identity(status): ROOT}
        self._next = _FIRST

    # -- the way to an object ----------------------------------------------------------------------------------------

    def _path(self, ino: int) -> bytes:
        names: list[bytes] = []
        while ino != ROOT:
            known = self._known[ino]
            names.append(known.name)
            ino = known.parent
        return b"/".join(reversed(names)) or b"."

    def _open(self, ino: int, flags: int) -> int:
        """A descriptor of the object; ESTALE if something else is there now."""
        known = self._known.get(ino)
        if known is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        descriptor = os.open(self._path(ino), flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        status = os.fstat(descriptor)
        if _identity(status) != known.identity:
            os.close(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return descriptor

    def _number(self, parent: int, name: bytes, status: os.stat_result) -> int:
        identity = _identity(status)
        number = self._numbers.get(identity)
        if number is None:
            number = self._numbers[identity] = self._next
            self._next += 1
            self._known[number] = _Known(parent, name, identity)
        elif self._known[number].name != name and not self._is_there(number):
            self._known[number] = _Known(parent, name, identity)  # renamed by somebody who can still reach it
        return number

    def _is_there(self, ino: int) -> bool:
        try:
            os.close(self._open(ino, os.O_PATH))
        except OSError:
            return False
        return True

    def _entry(self, parent: int, name: bytes, status: os.stat_result) -> Entry:
        number = self._number(parent, name, status)
        return Entry(name, number, stat.S_IFMT(status.st_mode), self._attr(number, status))

    def _attr(self, ino: int, status: os.stat_result) -> Attr:
        attr = attr_of(ino, status)
        if not self._narrow or not attr.mode & stat.S_IRWXG or stat.S_IFMT(attr.mode) not in _WITH_CONTENTS:
            return attr
        value = self._with_contents(ino, lambda descriptor: _getxattr(descriptor, acl.ACCESS))
        if value is None:
            return attr
        group = next(rule.permissions for rule in acl.parse(value) if rule.tag == acl.GROUP_OBJ)
        return attr._replace(mode=attr.mode & ~stat.S_IRWXG | (attr.mode & group << 3))

    # -- the Lower ---------------------------------------------------------------------------------------------------

    def fold(self, name: bytes) -> bytes:
        return name

    def only_spelling(self, name: bytes) -> bool:
        """No other bytes mean the same."""
        return True

    def getattr(self, ino: int) -> Attr:
        descriptor = self._open(ino, os.O_PATH)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return self._attr(ino, status)

    def parent(self, ino: int) -> int:
        return self._known[ino].parent

    def place(self, ino: int) -> tuple[int, bytes] | None:
        known = self._known.get(ino)
        return None if known is None or ino == ROOT else (known.parent, known.name)

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        if name in (b".", b"..") or b"/" in name:
            return None
        directory = self._open(parent, os.O_PATH | os.O_DIRECTORY)
        try:
            return self._entry(parent, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return None
        finally:
            os.close(directory)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        """In the order of the names; the cursor is the last name, so it stays good whatever happens to the directory."""
        directory = self._open(ino, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = sorted(os.fsencode(name) for name in os.listdir(directory))
            names = [name for name in names if after is None or name > after]  # type: ignore[operator]  # bytes, ours
            entries: list[Entry] = []
            for name in names[:limit]:
                try:
                    entries.append(self._entry(ino, name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        finally:
            os.close(directory)
        return Listing(entries, names[limit - 1] if len(names) > limit else None)

    def open(self, ino: int) -> Content:
        os.close(self._open(ino, os.O_PATH))
        return _File(os.fsdecode(self._path(ino)), dir_fd=self._directory, follow=False)

    def readlink(self, ino: int) -> bytes:
        descriptor = self._open(ino, os.O_PATH)
        try:
            return os.readlink(b"", dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def listxattr(self, ino: int) -> Sequence[bytes]:
        return [os.fsencode(name) for name in self._with_contents(ino, os.listxattr) or ()]

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        return self._with_contents(ino, lambda descriptor: _getxattr(descriptor, name))

    def _with_contents(self, ino: int, call: Callable[[int], T]) -> T | None:
        """`call` with a descriptor that attributes can be asked of; None for objects that cannot be opened harmlessly."""
        looking = self._open(ino, os.O_PATH)
        try:
            if stat.S_IFMT(os.fstat(looking).st_mode) not in _WITH_CONTENTS:
                return None
        finally:
            os.close(looking)
        descriptor = self._open(ino, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return call(descriptor)
        finally:
            os.close(descriptor)

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def statfs(self) -> Usage:
        return Usage(4096, 0, 0, 0, 0, self.name_max)


def _getxattr(descriptor: int, name: bytes) -> bytes | None:
    try:
        return os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
