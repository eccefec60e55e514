"""A lower that has nothing but a root directory: an overlay over it is a tree of its own, all of it in the store.

Rule: the root looks as it is told, owner, mode and attributes; everything else is not there.
"""

import errno
import os
from collections.abc import Hashable, Mapping, Sequence

from overlay.vfs import FIRST_NEW_INODE, Attr, Content, Entry, Listing, Usage

ROOT = 2
_BLOCK = 4096
_NAME_MAX = 255


class BareLower:
    """root_attr: what the root looks like (its inode number becomes ours). xattrs: by name."""

    root = ROOT
    end_ino = FIRST_NEW_INODE
    name_max = _NAME_MAX

    def __init__(self, root_attr: Attr, xattrs: Mapping[bytes, bytes]) -> None:
        self._attr = root_attr._replace(ino=ROOT, nlink=2, size=0, blocks=0)
        self._xattrs = dict(xattrs)

    def fold(self, name: bytes) -> bytes:
        return name

    def only_spelling(self, name: bytes) -> bool:
        """No other bytes mean the same."""
        return True

    def getattr(self, ino: int) -> Attr:
        self._require(ino)
        return self._attr

    def parent(self, ino: int) -> int:
        self._require(ino)
        return ROOT

    def place(self, ino: int) -> tuple[int, bytes] | None:
        return None

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        self._require(parent)
        return None

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        self._require(ino)
        return Listing((), None)

    def open(self, ino: int) -> Content:
        raise OSError(errno.EISDIR if ino == ROOT else errno.ESTALE, os.strerror(errno.EISDIR))

    def readlink(self, ino: int) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def listxattr(self, ino: int) -> Sequence[bytes]:
        self._require(ino)
        return list(self._xattrs)

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        self._require(ino)
        return self._xattrs.get(name)

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def statfs(self) -> Usage:
        return Usage(_BLOCK, 0, 0, 0, 0, _NAME_MAX)

    def _require(self, ino: int) -> None:
        if ino != ROOT:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
