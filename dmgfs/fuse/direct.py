"""The requests that come most, answered without a detour through libfuse and pyfuse3: looking up, listing, reading and
writing, and what `directchanges` has. Everything else is theirs, see `channel`.

It is here for what pyfuse3 has no words for, and for speed: the kernel may keep listings and targets of links, and in a
mount in which nothing can change it opens files and directories without asking at all (both ENOSYS, said on purpose).

Rules that hold here:
- an answer is what `operations` would answer, from the same overlay; a request this file does not know is left to them;
- a method gives the body of the answer, or the steps to it (like the overlay's own operations): the channel takes them at
  once, or goes on when a worker has brought what they need. None: the request is for pyfuse3;
- what is raised becomes an errno in the channel, by the same boundary.
"""

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyfuse3

from dmgfs.forks import FILE, FIRST, FORK, NAMED_FORK, RESOURCE, has_fork, number, split
from dmgfs.fuse import wire
from dmgfs.fuse.directchanges import DirectChanges
from overlay.overlay import Overlay
from overlay.vfs import Ask, Attr, Buffer, Content, Steps

if TYPE_CHECKING:
    from dmgfs.fuse.operations import DmgOperations
    from dmgfs.fuse.prefetch import ReadAhead
    from dmgfs.lower import VolumeLower

Answer = Buffer
Method = Callable[[int, memoryview], Steps[Answer] | bytes | None]

BATCH = 64
"""Entries asked of the overlay at once."""

_DOTS = (b".", b"..")

_KERNELS_OWN = b"security."


class Unwanted(Exception):
    """The kernel is not to send requests of this kind any more."""


class Direct:
    """For the requests of one mount. unasked: whether the kernel offered to open without asking; caller, uid, gid: the
    thread that asks now (all set by the channel)."""

    def __init__(
        self, lower: "VolumeLower", overlay: Overlay, operations: "DmgOperations", ahead: "ReadAhead"
    ) -> None:
        self._lower = lower
        self._overlay = overlay
        self._operations = operations
        self._handles = operations.handles
        self._ahead = ahead
        self._root = overlay.root
        self.unasked = False
        self.caller = self.uid = self.gid = 0
        self.methods: dict[int, tuple[str, Method]] = {
            wire.LOOKUP: ("lookup", self._lookup),
            wire.GETATTR: ("getattr", self._getattr),
            wire.READLINK: ("readlink", self._readlink),
            wire.OPEN: ("open", self._open),
            wire.READ: ("read", self._read),
            wire.WRITE: ("write", self._write),
            wire.RELEASE: ("release", self._release),
            wire.GETXATTR: ("getxattr", self._getxattr),
            wire.OPENDIR: ("opendir", self._opendir),
            wire.READDIR: ("readdir", self._readdir),
            wire.READDIRPLUS: ("readdir", self._readdirplus),
            wire.RELEASEDIR: ("releasedir", self._releasedir),
            **DirectChanges(self, overlay, operations.handles).methods,
        }

    @property
    def may_open_unasked(self) -> bool:
        """Whether nothing can change, as it is now."""
        return self._operations.frozen

    def forget(self, inode: int, count: int) -> None:
        if inode < FIRST:
            self._overlay.forget(self.ino(inode), count)

    def ino(self, inode: int) -> int:
        """The overlay's number for the kernel's."""
        return self._root if inode == pyfuse3.ROOT_INODE else inode

    def _inode(self, ino: int) -> int:
        return pyfuse3.ROOT_INODE if ino == self._root else ino

    # -- finding and attributes ------------------------------------------------------------------------------------------

    def _lookup(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        name = bytes(body[:-1])
        if inode >= FIRST or name in _DOTS or name == NAMED_FORK:
            return None
        return self._find(self.ino(inode), name, self.caller)

    def _find(self, parent: int, name: bytes, thread: int) -> Steps[Answer]:
        try:
            entry = yield from self._overlay.lookup(parent, name)
            if entry.name != name and self._operations.respelling is not None:
                entry = yield from self._operations.unless_respelled(entry, parent, name, thread)
        except FileNotFoundError:
            if not self._operations.is_lasting_absence(name):
                raise
            return wire.ABSENT
        attr = entry.attr
        if attr is None:
            try:
                attr = yield from self._overlay.getattr(entry.ino)
            except BaseException:
                self._overlay.forget(entry.ino)
                raise
        return self.entry(name, attr, entry.name)

    def entry(self, name: bytes, attr: Attr, listed: bytes | None = None) -> bytes:
        """The answer that `name` leads to `attr`. listed: as readdir shows it, if that may differ."""
        seconds = wire.FOREVER if self._operations.is_lasting(name, attr, listed) else 0
        return wire.entry_out(self._inode(attr.ino), attr, seconds)

    def _getattr(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        return None if inode >= FIRST else self._attributes(inode)

    def _attributes(self, inode: int) -> Steps[Answer]:
        return wire.attr_out(inode, (yield from self._overlay.getattr(self.ino(inode))))

    def _readlink(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        return None if inode >= FIRST else self._overlay.readlink(inode)

    # -- directories -----------------------------------------------------------------------------------------------------

    def _opendir(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        return None if inode >= FIRST and not self.unasked else self._open_directory(self.ino(inode))

    def _open_directory(self, ino: int) -> Steps[Answer]:
        if self.unasked:
            raise Unwanted
        handle = yield from self._overlay.opendir(ino)
        return wire.OPEN_OUT.pack(handle, wire.KEEP_CACHE | wire.CACHE_DIR, 0)

    def _releasedir(self, inode: int, body: memoryview) -> bytes | None:
        if inode >= FIRST:
            return None
        self._overlay.releasedir(wire.NUMBER.unpack_from(body)[0])
        return b""

    def _readdir(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        return self._listed(inode, body, plus=False)

    def _readdirplus(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        return self._listed(inode, body, plus=True)

    def _listed(self, inode: int, body: memoryview, *, plus: bool) -> Steps[Answer] | None:
        handle, offset, size, _ = wire.READ_IN.unpack_from(body)
        if inode < FIRST:
            return self._list(self.ino(inode), handle, offset, size, plus=plus)
        return None if handle else self._list_forks(inode, offset, size, plus=plus)

    def _listing(self, ino: int) -> Steps[int]:
        """The overlay's handle for a directory that was opened without asking."""
        known = self._handles.listing(ino)
        if known is None:
            known = yield from self._overlay.opendir(ino)
            self._handles.keep_listing(ino, known)
        return known

    def _list(self, ino: int, handle: int, after: int, size: int, *, plus: bool) -> Steps[Answer]:
        if not handle:
            handle = yield from self._listing(ino)
        answer = bytearray()
        held: list[int] = []
        is_lasting = self._operations.is_lasting
        while entries := (yield from self._overlay.readdir(handle, after, BATCH)):
            for entry in entries:
                name, attr = entry.name, entry.attr
                number = pyfuse3.ROOT_INODE if entry.ino == self._root else entry.ino
                if not plus:
                    line = wire.dirent(name, number, entry.type, entry.next)
                elif attr is None or name in _DOTS:
                    line = wire.direntplus_bare(name, number, entry.type, entry.next)
                else:
                    seconds = wire.FOREVER if is_lasting(name, attr, name) else 0
                    line = wire.direntplus(name, number, attr, seconds, entry.next)
                if len(answer) + len(line) > size:
                    break
                answer += line
                if plus and attr is not None and name not in _DOTS:
                    held.append(entry.ino)
            else:
                after = entries[-1].next
                if len(entries) == BATCH:
                    continue
            break
        for number in held:
            self._overlay.hold(number)
        return answer

    # -- contents ----------------------------------------------------------------------------------------------------

    def _open(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        if inode >= FIRST and not self.unasked:
            return None
        return self._open_file(self.ino(inode), wire.OPEN_IN.unpack_from(body)[0])

    def _open_file(self, ino: int, flags: int) -> Steps[Answer]:
        if self.unasked:
            raise Unwanted
        yield from self._overlay.open(ino, flags)
        return wire.OPEN_OUT.pack(self._handles.open(ino), wire.KEEP_CACHE, 0)

    def _release(self, inode: int, body: memoryview) -> bytes | None:
        if inode >= FIRST:
            return None
        self._overlay.release(self._handles.close(wire.NUMBER.unpack_from(body)[0]).ino)
        return b""

    def _read(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        handle, offset, size, _ = wire.READ_IN.unpack_from(body)
        if inode >= FIRST:
            return None if handle else self._fork_bytes(inode, offset, size)
        return self._bytes(self.ino(inode), handle, offset, size)

    def _bytes(self, ino: int, handle: int, offset: int, size: int) -> Steps[Answer]:
        if self._overlay.is_changed(ino):
            return (yield from self._overlay.read(ino, offset, size))
        file = self._handles.known(handle, ino)
        content = file.content if file is not None else None
        if content is None:
            content = yield from self._overlay.content(ino)
        length = min(size, content.size - offset)
        if length <= 0:
            return b""
        if length < content.size:  # who has it whole does not come back
            file = file or self._handles.file(handle, ino)
            file.content = content
            self._ahead.note(file.streams, content, offset, length)
        data: Buffer = yield Ask(content.read, (offset, length))
        return data

    def _getxattr(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        """What the kernel asks of its own accord, before each write above all: whether it has to take privileges away."""
        name = bytes(body[wire.COUNT.size : -1])
        if inode >= FIRST or not name.startswith(_KERNELS_OWN):
            return None
        return self._attribute(self.ino(inode), name, wire.COUNT.unpack_from(body)[0])

    def _attribute(self, ino: int, name: bytes, room: int) -> Steps[Answer]:
        value = yield from self._overlay.getxattr(ino, name)
        if not room:
            return wire.COUNT.pack(len(value), 0)
        if len(value) > room:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return value

    def _write(self, inode: int, body: memoryview) -> Steps[Answer] | None:
        _, offset, size, _ = wire.READ_IN.unpack_from(body)
        if inode >= FIRST:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        data = bytes(body[wire.WRITE_IN_SIZE : wire.WRITE_IN_SIZE + size])
        return self._take(self.ino(inode), offset, data)

    def _take(self, ino: int, offset: int, data: bytes) -> Steps[Answer]:
        return wire.COUNT.pack((yield from self._overlay.write(ino, offset, data)), 0)

    # -- resource forks, where the kernel opens without asking -----------------------------------------------------------

    def _fork_bytes(self, fork: int, offset: int, size: int) -> Steps[Answer]:
        content: Content = yield Ask(self._lower.resource, (split(fork)[1],))
        length = min(size, content.size - offset)
        if length <= 0:
            return b""
        data: Buffer = yield Ask(content.read, (offset, length))
        return data

    def _list_forks(self, folder: int, after: int, size: int, *, plus: bool) -> Steps[Answer]:
        """Names and types only: what the kernel wants to know besides, it looks up."""
        kind, real = split(folder)
        answer = bytearray()
        line = wire.direntplus_bare if plus else wire.dirent
        if kind == FILE:
            rows = [(b".", stat.S_IFDIR, folder), (b"..", stat.S_IFDIR, folder)]
            rows.append((RESOURCE, stat.S_IFREG, number(FORK, real)))
            for cookie, (name, kind_, of) in list(enumerate(rows, 1))[after:]:
                answer += line(name, of, kind_, cookie)
            return answer
        handle = yield from self._listing(real)
        while entries := (yield from self._overlay.readdir(handle, after, BATCH)):
            for entry in entries:
                after = entry.next
                if entry.name not in _DOTS:
                    if not has_fork(entry.type, entry.ino):
                        continue
                    fork = yield Ask(self._lower.resource, (entry.ino,))
                    if not fork.size:
                        continue
                added = line(entry.name, number(FILE, entry.ino), stat.S_IFDIR, entry.next)
                if len(answer) + len(added) > size:
                    return answer
                answer += added
        return answer
