"""Extracted files as a tar stream: POSIX pax format, so that names, sizes and dates of any length fit, with extended
attributes as GNU tar and libarchive write them (SCHILY.xattr).

Rules that hold here:
- the stream is written front to back and never sought;
- names and attribute values go out as the bytes they are. (The standard library's tarfile would mark binary values with a
  keyword that makes GNU tar complain about every file, hence our own headers.)
- a file whose data turns out damaged in the middle is filled up with zeros, because its size is out already, and reported.
"""

import os
import stat
import struct
from types import TracebackType
from typing import IO

from dmgfs.cli.report import Progress
from dmgfs.cli.tree import Item, Tree
from dmgfs.cli.unpack import BLOCK
from dmgfs.errors import DmgError
from overlay.vfs import Attr

_RECORD = 512
_END = 2 * _RECORD
_BLOCKING = 10240
_NAME_ROOM = 100
_HARD_LINK, _EXTENDED = b"1", b"x"
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")


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
            self._write(bytes(_END))
            self._write(bytes(-self._written % _BLOCKING))
            self._output.flush()
        if self._close:
            self._output.close()

    def warnings(self) -> list[str]:
        return [f"sockets were left out, tar cannot hold them: {self._sockets}"] if self._sockets else []

    def put(self, item: Item, progress: Progress) -> None:
        kind = stat.S_IFMT(item.attr.mode)
        if item.path in self._folders:
            return
        if kind not in _TYPES:
            self._sockets += 1
            return
        name = item.path or b"."
        first = self._links.get(item.ino)
        if first is not None:
            self._header(name, _HARD_LINK, item.attr, link=first)
            return
        extra = self._attributes(item) if self._xattrs else {}
        if kind == stat.S_IFREG:
            self._file(item, name, extra, progress)
        elif kind == stat.S_IFLNK:
            self._header(name, _TYPES[kind], item.attr, link=self._tree.lower.readlink(item.ino), extra=extra)
        elif kind == stat.S_IFDIR:
            self._header(name + b"/", _TYPES[kind], item.attr, extra=extra)
            self._folders.add(item.path)
        else:
            self._header(name, _TYPES[kind], item.attr, extra=extra)
        if item.attr.nlink > 1 and kind != stat.S_IFDIR:
            self._links[item.ino] = item.path

    def _attributes(self, item: Item) -> dict[bytes, bytes]:
        lower = self._tree.lower
        values = ((name, lower.getxattr(item.ino, name)) for name in lower.listxattr(item.ino))
        # A keyword ends at its =, so such a name cannot be written.
        return {b"SCHILY.xattr." + name: value for name, value in values if value is not None and b"=" not in name}

    def _file(self, item: Item, name: bytes, extra: dict[bytes, bytes], progress: Progress) -> None:
        content = self._tree.lower.open(item.ino)
        self._header(name, _TYPES[stat.S_IFREG], item.attr, size=content.size, extra=extra)
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
        self._write(bytes(-content.size % _RECORD))
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
        records = dict(extra or {})
        owner = (attr.uid, attr.gid) if self._owners else (0, 0)
        texts = ((b"path", name), (b"linkpath", link))
        records |= {keyword: text for keyword, text in texts if len(text) > _NAME_ROOM or not text.isascii()}
        for keyword, number, digits in ((b"uid", owner[0], 7), (b"gid", owner[1], 7), (b"size", size, 11)):
            if number >= 8**digits:
                records[keyword] = b"%d" % number
        mtime = attr.mtime_ns // 1_000_000_000
        if not 0 <= mtime < 8**11:
            records[b"mtime"] = b"%d" % mtime
        if records:
            body = b"".join(_pax(keyword, value) for keyword, value in records.items())
            self._write(_packed(b"./PaxHeaders/" + name[:80], _EXTENDED, 0o644, (0, 0), len(body), 0, b"", 0))
            self._write(body + bytes(-len(body) % _RECORD))
        device = attr.rdev if kind in (_TYPES[stat.S_IFCHR], _TYPES[stat.S_IFBLK]) else 0
        self._write(_packed(name, kind, stat.S_IMODE(attr.mode), owner, size, mtime, link, device))

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        self._output.write(data)
        self._written += len(data)


def _pax(keyword: bytes, value: bytes) -> bytes:
    """One record: its own length in decimal, keyword, value."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _packed(
    name: bytes, kind: bytes, mode: int, owner: tuple[int, int], size: int, mtime: int, link: bytes, device: int
) -> bytes:
    """A ustar header; what does not fit is cut, the record before it has the whole."""

    def octal(number: int, digits: int) -> bytes:
        return b"%0*o\0" % (digits, number if 0 <= number < 8**digits else 0)

    fields = (
        name[:_NAME_ROOM],
        octal(mode, 7),
        octal(owner[0], 7),
        octal(owner[1], 7),
        octal(size, 11),
        octal(mtime, 11),
        b" " * 8,
        kind,
        link[:_NAME_ROOM],
        b"ustar\00000",
        b"",
        b"",
        octal(os.major(device), 7),
        octal(os.minor(device), 7),
        b"",
    )
    header = bytearray(_HEADER.pack(*fields))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
