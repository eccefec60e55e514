"""What passes between the kernel and a FUSE daemon, byte by byte: the requests that `direct` answers itself, and the two
notices by which a daemon takes back what it told (linux/fuse.h, protocol 7.31 and later).

Rules that hold here: bytes in, values out and back; nothing is read, sent or remembered. All numbers are in the machine's
own byte order. Names are those of linux/fuse.h without their prefix.
"""

import struct
from typing import Final

from overlay.vfs import Attr

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
READLINK: Final = 5
MKDIR: Final = 9
UNLINK: Final = 10
RMDIR: Final = 11
OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
RELEASE: Final = 18
GETXATTR: Final = 22
FLUSH: Final = 25
INIT: Final = 26
OPENDIR: Final = 27
READDIR: Final = 28
RELEASEDIR: Final = 29
CREATE: Final = 35
INTERRUPT: Final = 36
DESTROY: Final = 38
BATCH_FORGET: Final = 42
READDIRPLUS: Final = 44

ATOMIC_O_TRUNC: Final = 1 << 3
NO_OPEN_SUPPORT: Final = 1 << 17
CACHE_SYMLINKS: Final = 1 << 23
NO_OPENDIR_SUPPORT: Final = 1 << 24
"""Flags of INIT."""

KEEP_CACHE: Final = 1 << 1
CACHE_DIR: Final = 1 << 3
"""Flags of an answer to OPEN or OPENDIR."""

_NOTIFY_INVAL_INODE: Final = 2
_NOTIFY_INVAL_ENTRY: Final = 3

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")
"""len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""

OUT_HEADER: Final = struct.Struct("=IiQ")
"""len, error (negative errno, or the code of a notice), unique (0: a notice)."""

INIT_IN: Final = struct.Struct("=IIII")
"""major, minor, max_readahead, flags."""

INIT_OUT: Final = struct.Struct("=IIIIHH")
"""major, minor, max_readahead, flags, max_background, congestion_threshold."""

FORGET_ONE: Final = struct.Struct("=QQ")
"""nodeid, nlookup."""

NUMBER: Final = struct.Struct("=Q")
COUNT: Final = struct.Struct("=II")
"""count of a BATCH_FORGET, size of a write or of an attribute; padding."""

OPEN_IN: Final = struct.Struct("=II")
"""flags, open_flags."""

CREATE_IN: Final = struct.Struct("=IIII")
"""flags, mode, umask, open_flags; the name follows."""

MKDIR_IN: Final = struct.Struct("=II")
"""mode, umask; the name follows."""

SETATTR_IN: Final = struct.Struct("=IIQQQqqqIIIIIIII")
"""valid, padding, fh, size, lock_owner, seconds of atime, mtime, ctime, nanoseconds of them, mode, unused, uid, gid,
unused."""

SET_MODE: Final = 1 << 0
SET_UID: Final = 1 << 1
SET_GID: Final = 1 << 2
SET_SIZE: Final = 1 << 3
SET_ATIME: Final = 1 << 4
SET_MTIME: Final = 1 << 5
SET_ATIME_NOW: Final = 1 << 7
SET_MTIME_NOW: Final = 1 << 8
"""Bits of `valid`. The two for "now" come with the others and a time that the kernel has read."""

OPEN_OUT: Final = struct.Struct("=QII")
"""fh, open_flags, padding."""

READ_IN: Final = struct.Struct("=QQII")
"""fh, offset, size, read_flags; the rest (lock owner, flags) is of no use here."""

READ_IN_SIZE: Final = 40
WRITE_IN_SIZE: Final = 40

_ATTR = "QQQqqqIIIIIIIIII"
_ATTR_OUT = struct.Struct("=QII" + _ATTR)
_ENTRY_OUT = struct.Struct("=QQQQII" + _ATTR)
_DIRENTPLUS = struct.Struct("=QQQQII" + _ATTR + "QQII")
_DIRENT = struct.Struct("=QQII")
_INVAL_INODE = struct.Struct("=Qqq")
_INVAL_ENTRY = struct.Struct("=QII")

FOREVER: Final = 10**9
"""Seconds; thirty years."""

_SECOND: Final = 10**9
_BLOCK_SIZE: Final = 4096
_NOTHING: Final = (0,) * 16


def _fields(ino: int, attr: Attr) -> tuple[int, ...]:
    """struct fuse_attr."""
    modified, modified_rest = divmod(attr.mtime_ns, _SECOND)
    if attr.ctime_ns is attr.mtime_ns and attr.atime_ns is attr.mtime_ns:  # most objects of an image
        changed = accessed = modified
        changed_rest = accessed_rest = modified_rest
    else:
        changed, changed_rest = divmod(attr.ctime_ns, _SECOND)
        accessed, accessed_rest = divmod(attr.atime_ns, _SECOND)
    return (
        ino,
        attr.size,
        attr.blocks,
        accessed,
        modified,
        changed,
        accessed_rest,
        modified_rest,
        changed_rest,
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev & 0xFFFFFFFF,
        _BLOCK_SIZE,
        0,
    )


def attr_out(ino: int, attr: Attr) -> bytes:
    """The answer to GETATTR, good for ever. ino: as the kernel shall see it."""
    return _ATTR_OUT.pack(FOREVER, 0, 0, *_fields(ino, attr))


def entry_out(ino: int, attr: Attr, seconds: int) -> bytes:
    """The answer to LOOKUP. seconds: how long the name leads there."""
    return _ENTRY_OUT.pack(ino, 0, seconds, FOREVER, 0, 0, *_fields(ino, attr))


ABSENT: Final = _ENTRY_OUT.pack(0, 0, FOREVER, 0, 0, 0, *_NOTHING)
"""The answer to LOOKUP that there is no such name, for ever."""


def direntplus(name: bytes, ino: int, attr: Attr, seconds: int, cookie: int) -> bytes:
    """One line of READDIRPLUS; the kernel counts it as a look-up."""
    size = len(name)
    line = _DIRENTPLUS.pack(
        ino, 0, seconds, FOREVER, 0, 0, *_fields(ino, attr), ino, cookie, size, attr.mode >> 12 & 15
    )
    return line + name + bytes(-size & 7)


def direntplus_bare(name: bytes, ino: int, kind: int, cookie: int) -> bytes:
    """The same with name and type only, of which the kernel counts nothing: it looks up what it wants to know."""
    line = _DIRENTPLUS.pack(0, 0, 0, 0, 0, 0, *_NOTHING, ino, cookie, len(name), kind >> 12 & 15)
    return line + name + bytes(-len(name) & 7)


def dirent(name: bytes, ino: int, kind: int, cookie: int) -> bytes:
    """One line of READDIR. kind: S_IFMT bits."""
    return _DIRENT.pack(ino, cookie, len(name), kind >> 12 & 15) + name + bytes(-len(name) & 7)


def inval_inode(ino: int) -> bytes:
    """The notice that attributes and pages of `ino` are not what they were."""
    return OUT_HEADER.pack(OUT_HEADER.size + _INVAL_INODE.size, _NOTIFY_INVAL_INODE, 0) + _INVAL_INODE.pack(ino, 0, 0)


def inval_entry(parent: int, name: bytes) -> bytes:
    """The notice that `name` in `parent` may lead elsewhere."""
    size = OUT_HEADER.size + _INVAL_ENTRY.size + len(name) + 1
    return OUT_HEADER.pack(size, _NOTIFY_INVAL_ENTRY, 0) + _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
