"""The changes of an overlay as a tar stream that container tools take for a layer (see `overlay.layer`).

Rules that hold here:
- the stream is written front to back and never sought; sockets are left out, tar has none;
- a file with holes of a mebibyte and more goes out without them, in GNU tar's sparse format (which GNU tar, bsdtar, Python
  and Go read): a file of terabytes with a page in it is a layer of some kilobytes;
- an extended attribute with an empty value is written as it is. GNU tar restores it, readers that go by the letter of POSIX
  (Go's, hence most container tools) take it for none.
"""

import stat
from collections.abc import Callable

from dmgfs.tarformat import BLOCKING, END, HARD_LINK, RECORD, TYPES, header, sparse_header, xattr_records
from overlay.extents import Extent
from overlay.layer import layer
from overlay.overlay import Overlay
from overlay.vfs import Attr, Buffer, run

_BLOCK = 1 << 20
_HOLE = 1 << 20
_MOST_PARTS = 10_000
_GONE = Attr(0, stat.S_IFREG | 0o600, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def write_layer(view: Overlay, put: Callable[[Buffer], object]) -> int:
    """Hands the whole stream to `put`, piece by piece; how many sockets were left out. `view` must not change meanwhile.
    Raises what `put` and the lower raise."""
    written = 0
    sockets = 0

    def write(data: Buffer) -> None:
        nonlocal written
        put(data)
        written += len(data)

    for path, attr, link in layer(view):
        if attr is None:
            write(header(path, TYPES[stat.S_IFREG], _GONE, (0, 0)))
            continue
        kind = stat.S_IFMT(attr.mode)
        owner = attr.uid, attr.gid
        name = path or b"."
        if kind not in TYPES:
            sockets += 1
        elif link is not None:
            write(header(name, HARD_LINK, attr, owner, link=link))
        elif kind == stat.S_IFREG:
            parts = _parts(view, attr.ino)
            extra = _xattrs(view, attr.ino)
            whole = parts == [(0, attr.size)] or not attr.size
            if whole:
                write(header(name, TYPES[kind], attr, owner, size=attr.size, extra=extra))
            else:
                write(sparse_header(name, attr, owner, parts, extra))
            for start, stop in parts:
                for offset in range(start, stop, _BLOCK):
                    write(run(view.read(attr.ino, offset, min(_BLOCK, stop - offset))))
            write(bytes(-sum(stop - start for start, stop in parts) % RECORD))
        elif kind == stat.S_IFLNK:
            target = run(view.readlink(attr.ino))
            write(header(name, TYPES[kind], attr, owner, link=target, extra=_xattrs(view, attr.ino)))
        else:
            shown = name + b"/" if kind == stat.S_IFDIR else name
            write(header(shown, TYPES[kind], attr, owner, extra=_xattrs(view, attr.ino)))
    write(bytes(END))
    write(bytes(-written % BLOCKING))
    return sockets


def _parts(view: Overlay, ino: int) -> list[Extent]:
    """What is written of a file. Readers hold the list in memory, and Go's takes none of more than a mebibyte."""
    gap = _HOLE
    while len(parts := run(view.extents(ino, gap))) > _MOST_PARTS:
        gap *= 2
    return parts


def _xattrs(view: Overlay, ino: int) -> dict[bytes, bytes]:
    return xattr_records((name, run(view.getxattr(ino, name))) for name in run(view.listxattr(ino)))
