"""Extracted files as a tar stream; the headers are `dmgfs.tarformat`'s.

Rules that hold here:
- the stream is written front to back and never sought;
- a file whose data turns out damaged in the middle is filled up with zeros, because its size is out already, and reported.
"""

import stat
from types import TracebackType
from typing import IO

from dmgfs.cli.report import Progress
from dmgfs.cli.tree import Item, Tree
from dmgfs.cli.unpack import BLOCK
from dmgfs.errors import DmgError
from dmgfs.tarformat import BLOCKING, END, HARD_LINK, RECORD, TYPES, header, xattr_records
from overlay.vfs import Attr


class TarSink:
    """Into `output`, which is flushed at the end, and closed if `close` says so."""

    def __init__(self, tree: Tree, output: IO[bytes], *, close: bool, owners: bool, xattrs: bool) -> None:
        self._tree = tree
        self._output = output
        self._close = close
        self._owners = owners
        self._xattrs = xattrs
        self._written = 0
        self._folders: set[bytes] = set()
        self._links: dict[int, bytes] = {}
        self._sockets = 0

    def __enter__(self) -> "TarSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._write(bytes(END))
            self._write(bytes(-self._written % BLOCKING))
            self._output.flush()
        if self._close:
            self._output.close()

    def warnings(self) -> list[str]:
        return [f"sockets were left out, tar cannot hold them: {self._sockets}"] if self._sockets else []

    def put(self, item: Item, progress: Progress) -> None:
        kind = stat.S_IFMT(item.attr.mode)
        if item.path in self._folders:
            return
        if kind not in TYPES:
            self._sockets += 1
            return
        name = item.path or b"."
        first = self._links.get(item.ino)
        if first is not None:
            self._header(name, HARD_LINK, item.attr, link=first)
            return
        extra = self._attributes(item) if self._xattrs else {}
        if kind == stat.S_IFREG:
            self._file(item, name, extra, progress)
        elif kind == stat.S_IFLNK:
            self._header(name, TYPES[kind], item.attr, link=self._tree.lower.readlink(item.ino), extra=extra)
        elif kind == stat.S_IFDIR:
            self._header(name + b"/", TYPES[kind], item.attr, extra=extra)
            self._folders.add(item.path)
        else:
            self._header(name, TYPES[kind], item.attr, extra=extra)
        if item.attr.nlink > 1 and kind != stat.S_IFDIR:
            self._links[item.ino] = item.path

    def _attributes(self, item: Item) -> dict[bytes, bytes]:
        lower = self._tree.lower
        values = ((name, lower.getxattr(item.ino, name)) for name in lower.listxattr(item.ino))
        return xattr_records((name, value) for name, value in values if value is not None)

    def _file(self, item: Item, name: bytes, extra: dict[bytes, bytes], progress: Progress) -> None:
        content = self._tree.lower.open(item.ino)
        self._header(name, TYPES[stat.S_IFREG], item.attr, size=content.size, extra=extra)
        damage: DmgError | OSError | None = None
        for offset in range(0, content.size, BLOCK):
            length = min(BLOCK, content.size - offset)
            try:
                data = content.read(offset, length)
            except (DmgError, OSError) as error:
                damage = damage or error
                data = bytes(length)
            self._write(data)
            progress.advance(length, item.path)
        self._write(bytes(-content.size % RECORD))
        if damage is not None:
            raise damage

    def _header(
        self,
        name: bytes,
        kind: bytes,
        attr: Attr,
        *,
        size: int = 0,
        link: bytes = b"",
        extra: dict[bytes, bytes] | None = None,
    ) -> None:
        """The header of one object, preceded by what does not fit into it."""
        owner = (attr.uid, attr.gid) if self._owners else (0, 0)
        self._write(header(name, kind, attr, owner, size=size, link=link, extra=extra))

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        self._output.write(data)
        self._written += len(data)
