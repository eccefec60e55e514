"""Of the requests that are answered without pyfuse3 (see `direct`) those that change something: making and removing files
and directories, setting attributes. Unpacking an archive and removing a tree are made of them.

Rules that hold here: those of `direct`; who asks is noted when the request is taken apart, because others come in between
if it has to wait.
"""

import stat
from typing import TYPE_CHECKING, NamedTuple

from dmgfs.forks import FIRST
from dmgfs.fuse import wire
from overlay.overlay import Overlay
from overlay.vfs import Steps

if TYPE_CHECKING:
    from dmgfs.fuse.direct import Answer, Direct, Method
    from dmgfs.fuse.handles import Handles

_SECOND = 10**9


class Asking(NamedTuple):
    """Who asks."""

    uid: int
    gid: int
    pid: int
    umask: int


class DirectChanges:
    """For the requests that `direct` takes apart."""

    def __init__(self, direct: "Direct", overlay: Overlay, handles: "Handles") -> None:
        self._direct = direct
        self._overlay = overlay
        self._handles = handles
        self.methods: dict[int, tuple[str, Method]] = {
            wire.SETATTR: ("setattr", self._setattr),
            wire.MKDIR: ("mkdir", self._mkdir),
            wire.UNLINK: ("unlink", self._unlink),
            wire.RMDIR: ("rmdir", self._rmdir),
            wire.CREATE: ("create", self._create),
        }

    def _asking(self, umask: int) -> Asking:
        direct = self._direct
        return Asking(direct.uid, direct.gid, direct.caller, umask)

    def _create(self, inode: int, body: memoryview) -> "Steps[Answer] | None":
        if inode >= FIRST:
            return None
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(body)
        name = bytes(body[wire.CREATE_IN.size : -1])
        return self._make_file(self._direct.ino(inode), name, mode, flags, self._asking(umask))

    def _make_file(self, parent: int, name: bytes, mode: int, flags: int, asking: Asking) -> "Steps[Answer]":
        attr = yield from self._overlay.create(parent, name, mode, flags, asking)
        opened = wire.OPEN_OUT.pack(self._handles.open(attr.ino), wire.KEEP_CACHE, 0)
        return self._direct.entry(name, attr) + opened

    def _mkdir(self, inode: int, body: memoryview) -> "Steps[Answer] | None":
        if inode >= FIRST:
            return None
        mode, umask = wire.MKDIR_IN.unpack_from(body)
        name = bytes(body[wire.MKDIR_IN.size : -1])
        mode = stat.S_IMODE(mode) | stat.S_IFDIR
        return self._make_directory(self._direct.ino(inode), name, mode, self._asking(umask))

    def _make_directory(self, parent: int, name: bytes, mode: int, asking: Asking) -> "Steps[Answer]":
        return self._direct.entry(name, (yield from self._overlay.mkdir(parent, name, mode, asking)))

    def _unlink(self, inode: int, body: memoryview) -> "Steps[Answer] | None":
        if inode >= FIRST:
            return None
        return _nothing_of(self._overlay.unlink(self._direct.ino(inode), bytes(body[:-1])))

    def _rmdir(self, inode: int, body: memoryview) -> "Steps[Answer] | None":
        if inode >= FIRST:
            return None
        return _nothing_of(self._overlay.rmdir(self._direct.ino(inode), bytes(body[:-1])))

    def _setattr(self, inode: int, body: memoryview) -> "Steps[Answer] | None":
        return None if inode >= FIRST else self._set(inode, wire.SETATTR_IN.unpack_from(body))

    def _set(self, inode: int, fields: tuple[int, ...]) -> "Steps[Answer]":
        valid, _, _, size, _, atime, mtime, _, atime_rest, mtime_rest, _, mode, _, uid, gid, _ = fields
        attr = yield from self._overlay.setattr(
            self._direct.ino(inode),
            mode=stat.S_IMODE(mode) if valid & wire.SET_MODE else None,
            uid=uid if valid & wire.SET_UID else None,
            gid=gid if valid & wire.SET_GID else None,
            size=size if valid & wire.SET_SIZE else None,
            atime_ns=atime * _SECOND + atime_rest if valid & wire.SET_ATIME else None,
            mtime_ns=mtime * _SECOND + mtime_rest if valid & wire.SET_MTIME else None,
        )
        return wire.attr_out(inode, attr)


def _nothing_of(steps: Steps[None]) -> "Steps[Answer]":
    """Done is all there is to say."""
    yield from steps
    return b""
