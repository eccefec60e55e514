"""The union of BSD's `mount -o union`: a writable tree, and where it has no name, a directory below shows through.

    lookup      a name that the top does not have is looked for below, under the same path; one that it has hides the one
                below, whatever the two are. Directories of the top hide nothing: what they lack is looked for below again
    listing     the top's names, then those of the same directory below, each once
    making      goes to the top, if the directory is there; in a directory that is only below: EROFS
    below       nothing there can be changed: EROFS. Nothing is copied up and nothing is whited out, so that a name that is
                removed from the top shows what is below again
    moving      from below to the top, or the other way: EXDEV

Rules that hold here:
- the tree is an Overlay over a lower without anything in it, so everything that is changed is its business; this file only
  decides which of the two sides an operation is about;
- numbers below FIRST_NEW_INODE are those of the directory below, but for the root, which is the top's;
- what is below may change by itself: nothing about it is kept.
"""

import errno
import os
from stat import S_IFMT, S_IMODE, S_ISDIR, S_ISGID, S_ISREG, S_ISUID
from typing import NamedTuple

from overlay.bare import BareLower
from overlay.overlay import Overlay
from overlay.state import error
from overlay.store import Store
from overlay.vfs import FIRST_NEW_INODE, Ask, Attr, Buffer, Caller, Content, DirEntry, Entry, Listing, Lower, Steps

_BELOW_COOKIE = 1 << 62
"""Cookies of entries below: this and the place in the listing. The top's are smaller."""

_BATCH = 128


class _Handle:
    """An open directory. top: the handle of that side, None without one. below: the entries that the other one had when
    the listing began."""

    __slots__ = ("below", "ino", "top")

    def __init__(self, ino: int, top: int | None) -> None:
        self.ino = ino
        self.top = top
        self.below: list[Entry] = []


class _Opened(NamedTuple):
    content: Content
    opens: int


class Union(Overlay):
    """`top` is the root of the writable side, `below` what shows through."""

    def __init__(self, top: BareLower, below: Lower, store: Store) -> None:
        super().__init__(top, store)
        self._below = below
        self._union_handles: dict[int, _Handle] = {}
        self._next_union_handle = 1
        self._opened: dict[int, _Opened] = {}
        self._where: dict[int, tuple[int, bytes]] = {}  # directory of the top → where it was found the last time

    def is_below(self, ino: int) -> bool:
        """Whether the object is one of the directory below."""
        return ino < FIRST_NEW_INODE and ino != self.root

    def _require_top(self, ino: int) -> None:
        if self.is_below(ino):
            raise error(errno.EROFS)

    # -- the same path on the other side -----------------------------------------------------------------------------

    def _place(self, ino: int) -> tuple[int, bytes] | None:
        """Where directory `ino` of the top is; None if it is nowhere any more."""
        node = self.tree.nodes.get(ino)
        if node is None or not node.parent:
            return None
        directory = self.tree.directory(node.parent)
        if directory is None:
            return None
        known = self._where.get(ino)
        if known is not None and known[0] == node.parent:
            own = directory.added.get(known[1])
            if own is not None and own.ino == ino:
                return known
        for own in directory.added.values():
            if own.ino == ino:
                self._where[ino] = node.parent, own.name
                return node.parent, own.name
        return None

    def _beneath(self, ino: int) -> Steps[int | None]:
        """The directory below that has the path which `ino` has on the top; None if there is none."""
        names: list[bytes] = []
        while ino != self.root:
            place = self._place(ino)
            if place is None:
                return None
            ino, name = place
            names.append(name)
        here = self._below.root
        for name in reversed(names):
            entry: Entry | None = yield Ask(self._below.lookup, (here, name))
            if entry is None or not S_ISDIR(entry.type):
                return None
            here = entry.ino
        return here

    def _above(self, ino: int) -> int | None:
        """The directory of the top that has the path of directory `ino` below; None if there is none."""
        names: list[bytes] = []
        while ino != self._below.root:
            place = self._below.place(ino)
            if place is None:
                return None
            ino, name = place
            names.append(name)
        here = self.root
        for name in reversed(names):
            directory = self.tree.directory(here)
            own = directory.added.get(name) if directory is not None else None
            if own is None or self.tree.directory(own.ino) is None:
                return None
            here = own.ino
        return here

    def _has(self, parent: int, name: bytes) -> bool:
        directory = self.tree.directory(parent)
        return directory is not None and name in directory.added

    # -- finding and attributes --------------------------------------------------------------------------------------

    def _find_below(self, parent: int, name: bytes) -> Steps[Entry | None]:
        """What shows through under this name, whatever the top has."""
        beneath: int | None = parent if self.is_below(parent) else (yield from self._beneath(parent))
        if beneath is None:
            return None
        entry: Entry | None = yield Ask(self._below.lookup, (beneath, name))
        return entry

    def lookup(self, parent: int, name: bytes) -> Steps[Entry]:
        if not self.is_below(parent):
            try:
                return (yield from super().lookup(parent, name))
            except FileNotFoundError:
                entry = yield from self._find_below(parent, name)
                if entry is None:
                    raise
        elif name in (b".", b".."):
            ino = parent if name == b"." else self._below.parent(parent)
            attr = yield from self.getattr(self.root if ino == self._below.root else ino)
            return Entry(name, attr.ino, S_IFMT(attr.mode), attr)
        else:
            entry = yield from self._find_below(parent, name)
            if entry is None:
                raise error(errno.ENOENT)
        self.hold(entry.ino)
        return entry

    def getattr(self, ino: int) -> Steps[Attr]:
        if not self.is_below(ino):
            return (yield from super().getattr(ino))
        attr: Attr = yield Ask(self._below.getattr, (ino,))
        return attr

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
        self._require_top(ino)
        return super().setattr(
            ino, mode=mode, uid=uid, gid=gid, size=size, atime_ns=atime_ns, mtime_ns=mtime_ns, now=now
        )

    def readlink(self, ino: int) -> Steps[bytes]:
        if not self.is_below(ino):
            return (yield from super().readlink(ino))
        target: bytes = yield Ask(self._below.readlink, (ino,))
        return target

    # -- directories -------------------------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Steps[int]:
        top: int | None = None
        if not self.is_below(ino):
            top = yield from super().opendir(ino)
        elif not S_ISDIR((yield from self.getattr(ino)).mode):
            raise error(errno.ENOTDIR)
        number = self._next_union_handle
        self._next_union_handle += 1
        self._union_handles[number] = _Handle(ino, top)
        return number

    def readdir(self, handle: int, after: int, limit: int = _BATCH) -> Steps[list[DirEntry]]:
        opened = self._union_handles[handle]
        if after == 0:
            yield from self._list_below(opened)
        entries: list[DirEntry] = []
        if after < _BELOW_COOKIE:
            if opened.top is not None:
                entries = yield from super().readdir(opened.top, after, limit)
            else:
                entries = yield from self._dots(opened.ino, after)
        following = max(0, after - _BELOW_COOKIE + 1)
        for number, entry in enumerate(opened.below[following:], following):
            if len(entries) >= limit:
                break
            if not self._has(opened.ino, entry.name):
                entries.append(DirEntry(*entry, _BELOW_COOKIE + number))
        return entries

    def _list_below(self, opened: _Handle) -> Steps[None]:
        beneath = opened.ino if self.is_below(opened.ino) else (yield from self._beneath(opened.ino))
        opened.below = []
        after = None
        while beneath is not None:
            listing: Listing = yield Ask(self._below.readdir, (beneath, after, _BATCH))
            opened.below += listing.entries
            after = listing.next
            if after is None:
                return

    def _dots(self, ino: int, after: int) -> Steps[list[DirEntry]]:
        above = self._below.parent(ino)
        above = self.root if above == self._below.root else above
        shown = ((b".", ino, 1), (b"..", above, 2))
        entries: list[DirEntry] = []
        for name, number, cookie in shown[after:]:
            attr = yield from self.getattr(number)
            entries.append(DirEntry(name, attr.ino, S_IFMT(attr.mode), attr, cookie))
        return entries

    def releasedir(self, handle: int) -> None:
        opened = self._union_handles.pop(handle, None)
        if opened is not None and opened.top is not None:
            super().releasedir(opened.top)

    # -- contents ----------------------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int = 0) -> Steps[None]:
        if not self.is_below(ino):
            return (yield from super().open(ino, flags))
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise error(errno.EROFS)
        known = self._opened.get(ino)
        content: Content = known.content if known is not None else (yield Ask(self._below.open, (ino,)))
        known = self._opened.get(ino)
        self._opened[ino] = _Opened(content, 1) if known is None else _Opened(known.content, known.opens + 1)
        return None

    def release(self, ino: int) -> None:
        known = self._opened.get(ino)
        if known is None:
            super().release(ino)
        elif known.opens > 1:
            self._opened[ino] = _Opened(known.content, known.opens - 1)
        else:
            del self._opened[ino]

    def plain(self, ino: int) -> Content | None:
        known = self._opened.get(ino)
        return super().plain(ino) if known is None else known.content

    def read(self, ino: int, offset: int, length: int) -> Steps[Buffer]:
        known = self._opened.get(ino)
        if known is None:
            return (yield from super().read(ino, offset, length))
        length = min(length, known.content.size - offset)
        data: Buffer = b"" if length <= 0 else (yield Ask(known.content.read, (offset, length)))
        return data

    def mask(self, ino: int, caller: Caller) -> Steps[bool]:
        """A new empty file on the top in front of file `ino` below, as creating one over it makes; nobody holds it. False
        where that cannot be: the directory is only below, or it is no file with one name."""
        attr = yield from self.getattr(ino)
        place = self._below.place(ino)
        if place is None or not S_ISREG(attr.mode) or attr.nlink != 1:
            return False
        parent = self._above(place[0])
        if parent is None:
            return False
        mode = S_IMODE(attr.mode) & ~(S_ISUID | S_ISGID)
        made = yield from super().create(
            parent, place[1], mode, os.O_EXCL, _Maker(caller.uid, caller.gid, caller.pid)
        )
        super().release(made.ino)
        self.forget(made.ino)
        return True

    # -- making and removing names -----------------------------------------------------------------------------------

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Steps[Attr]:
        self._require_top(parent)
        return super().create(parent, name, mode, flags, caller)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Steps[Attr]:
        self._require_top(parent)
        return super().mknod(parent, name, mode, rdev, caller)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Steps[Attr]:
        self._require_top(parent)
        return super().mkdir(parent, name, mode, caller)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Steps[Attr]:
        self._require_top(parent)
        return super().symlink(parent, name, target, caller)

    def link(self, ino: int, parent: int, name: bytes) -> Steps[Attr]:
        if self.is_below(ino) != self.is_below(parent):
            raise error(errno.EXDEV)
        self._require_top(parent)
        return super().link(ino, parent, name)

    def unlink(self, parent: int, name: bytes) -> Steps[None]:
        yield from self._require_own(parent, name)
        yield from super().unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> Steps[None]:
        yield from self._require_own(parent, name)
        yield from super().rmdir(parent, name)

    def _require_own(self, parent: int, name: bytes) -> Steps[None]:
        """EROFS for a name that only shows through."""
        if not self._has(parent, name):
            found = yield from self._find_below(parent, name)
            raise error(errno.ENOENT if found is None else errno.EROFS)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Steps[None]:
        moved_below = not self._has(parent, name)
        if moved_below and (yield from self._find_below(parent, name)) is None:
            raise error(errno.ENOENT)
        if moved_below != self.is_below(new_parent):
            raise error(errno.EXDEV)
        if moved_below:
            raise error(errno.EROFS)
        yield from super().rename(parent, name, new_parent, new_name, flags)

    # -- extended attributes -----------------------------------------------------------------------------------------

    def listxattr(self, ino: int) -> Steps[list[bytes]]:
        if not self.is_below(ino):
            return (yield from super().listxattr(ino))
        return list((yield Ask(self._below.listxattr, (ino,))))

    def getxattr(self, ino: int, name: bytes) -> Steps[bytes]:
        if not self.is_below(ino):
            return (yield from super().getxattr(ino, name))
        value: bytes | None = yield Ask(self._below.getxattr, (ino, name))
        if value is None:
            raise error(errno.ENODATA)
        return value

    def setxattr(
        self, ino: int, name: bytes, value: bytes, flags: int = 0, caller: Caller | None = None
    ) -> Steps[None]:
        self._require_top(ino)
        return super().setxattr(ino, name, value, flags, caller)

    def removexattr(self, ino: int, name: bytes) -> Steps[None]:
        self._require_top(ino)
        return super().removexattr(ino, name)


class _Maker(NamedTuple):
    """Who opened a file below for writing. What the umask would have taken, the file below says."""

    uid: int
    gid: int
    pid: int
    umask: int = 0
