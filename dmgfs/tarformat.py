"""Headers of a tar stream in POSIX pax format: names, sizes and dates of any length fit, extended attributes are written
as GNU tar and libarchive do (SCHILY.xattr), files with holes as GNU tar does (its sparse format 1.0: a list of the parts
lies before their bytes; true name and size are in the extended header, so that who does not know it sees an odd name).

Rule: names and attribute values go out as the bytes they are. (The standard library's tarfile would mark binary values with
a keyword that makes GNU tar complain about every file, hence our own headers.)
"""

import os
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence

from overlay.vfs import Attr

RECORD = 512
END = 2 * RECORD
BLOCKING = 10240
_NAME_ROOM = 100
_REAL_SIZE = b"GNU.sparse.realsize"
HARD_LINK, _EXTENDED = b"1", b"x"
TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
"""File types that tar has; there is none for sockets."""

_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")


def xattr_records(xattrs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """What `header` takes as `extra`. A keyword ends at its =, so such a name cannot be written."""
    return {b"SCHILY.xattr." + name: value for name, value in xattrs if b"=" not in name}


def header(
    name: bytes,
    kind: bytes,
    attr: Attr,
    owner: tuple[int, int],
    *,
    size: int = 0,
    link: bytes = b"",
    extra: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The header of one object, preceded by what does not fit into it."""
    texts = ((b"path", name), (b"linkpath", link))
    records = {keyword: text for keyword, text in texts if len(text) > _NAME_ROOM or not text.isascii()}
    numbers = [(b"uid", owner[0], 7), (b"gid", owner[1], 7)]
    if extra is None or _REAL_SIZE not in extra:  # tarfile would take the packed size for that of the file
        numbers.append((b"size", size, 11))
    records |= {keyword: b"%d" % number for keyword, number, digits in numbers if number >= 8**digits}
    mtime = attr.mtime_ns // 1_000_000_000
    if attr.mtime_ns % 1_000_000_000:
        records[b"mtime"] = b"%s%d.%09d" % _signed(attr.mtime_ns)
    elif not 0 <= mtime < 8**11:
        records[b"mtime"] = b"%d" % mtime
    records |= extra or {}  # last: tarfile takes the last name that it finds
    parts = []
    if records:
        body = b"".join(_pax(keyword, value) for keyword, value in records.items())
        parts.append(_packed(b"./PaxHeaders/" + name[:80], _EXTENDED, 0o644, (0, 0), len(body), 0, b"", 0))
        parts.append(body + bytes(-len(body) % RECORD))
    device = attr.rdev if kind in (TYPES[stat.S_IFCHR], TYPES[stat.S_IFBLK]) else 0
    parts.append(_packed(name, kind, stat.S_IMODE(attr.mode), owner, size, mtime, link, device))
    return b"".join(parts)


def sparse_header(
    name: bytes,
    attr: Attr,
    owner: tuple[int, int],
    parts: Sequence[tuple[int, int]],
    extra: Mapping[bytes, bytes],
) -> bytes:
    """The header of a regular file of which only `parts` follow, [start, stop) in order, and what must lie before them. All
    together are filled up to a record."""
    found = [(start, stop - start) for start, stop in parts]
    if not parts or parts[-1][1] < attr.size:
        found.append((attr.size, 0))  # a file ends where its last part ends
    table = b"%d\n" % len(found) + b"".join(b"%d\n%d\n" % part for part in found)
    table += bytes(-len(table) % RECORD)
    folder, slash, last = name.rpartition(b"/")
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        _REAL_SIZE: b"%d" % attr.size,
    }
    shown = folder + slash + b"GNUSparseFile.0/" + last
    packed = len(table) + sum(length for _, length in found)
    return header(shown, TYPES[stat.S_IFREG], attr, owner, size=packed, extra=records | dict(extra)) + table


def _signed(time_ns: int) -> tuple[bytes, int, int]:
    """Sign, seconds and nanoseconds."""
    return (b"-" if time_ns < 0 else b"", *divmod(abs(time_ns), 1_000_000_000))


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
        octal(size, 11) if size < 8**11 else b"\x80" + size.to_bytes(11, "big"),
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
