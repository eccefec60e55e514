"""The FUSE requests of a RAM disk with `--union=bsd`: those of every mount, and what is different where a directory shows
through that changes by itself.

Rules that hold here:
- the kernel keeps no name, because one that goes from the top shows what is below again, and no bytes or attributes of
  what is below;
- the kernel does not say whether a file that it found is opened to be made (O_CREAT). For one that is only below, opening
  it for writing with O_TRUNC is taken as that. The answer is ESTALE once the new file is there: the kernel then looks up
  the name again, as it does for NFS, and opens what it finds.
"""

import errno
import os

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FlagT, InodeT, RequestContext

from dmgfs.fuse.operations import DmgOperations
from overlay.union import Union
from overlay.vfs import Attr

_SECONDS = 1.0
"""For which the kernel may believe what it was told of an object below."""


class UnionOperations(DmgOperations):
    """`overlay` is a Union."""

    _overlay: Union

    def _attributes(self, attr: Attr) -> EntryAttributes:
        answer = super()._attributes(attr)
        if self._overlay.is_below(attr.ino):
            answer.attr_timeout = _SECONDS
        return answer

    def _entry(self, name: bytes, attr: Attr, listed: bytes | None = None) -> EntryAttributes:
        answer = self._attributes(attr)
        answer.entry_timeout = 0
        return answer

    async def lookup(self, parent_inode: InodeT, name: pyfuse3.FileNameT, ctx: RequestContext) -> EntryAttributes:
        answer = await super().lookup(parent_inode, name, ctx)
        if answer.st_ino == 0:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return answer

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        ino = self._ino(inode)
        below = self._overlay.is_below(ino)
        if below and flags & os.O_TRUNC and await self._driver.run(self._overlay.mask(ino, ctx)):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        info = await super().open(inode, flags, ctx)
        info.keep_cache = not below
        return info
