"""The changes of an overlay as a tar stream that container tools take for a layer (see `overlay.layer`).

Rules that hold here:
- the stream is written front to back and never sought; sockets are left out, tar has none;
- an extended attribute with an empty value is written as it is. GNU tar restores it, readers that go by the letter of POSIX
  (Go's, hence most container tools) take it for none.
"""

import stat
from collections.abc import Callable

from dmgfs.tarformat import BLOCKING, END, HARD_LINK, RECORD, TYPES, header, xattr_records
from overlay.layer import layer
from overlay.overlay import Overlay
from overlay.vfs import Attr, Buffer, run

_BLOCK = 1 << 20
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
            write(header(name, TYPES[kind], attr, owner, size=attr.size, extra=_xattrs(view, attr.ino)))
            for offset in range(0, attr.size, _BLOCK):
                write(run(view.read(attr.ino, offset, min(_BLOCK, attr.size - offset))))
            write(bytes(-attr.size % RECORD))
        elif kind == stat.S_IFLNK:
            target = run(view.readlink(attr.ino))
            write(header(name, TYPES[kind], attr, owner, link=target, extra=_xattrs(view, attr.ino)))
        else:
            shown = name + b"/" if kind == stat.S_IFDIR else name
            write(header(shown, TYPES[kind], attr, owner, extra=_xattrs(view, attr.ino)))
    write(bytes(END))
    write(bytes(-written % BLOCKING))
    return sockets


def _xattrs(view: Overlay, ino: int) -> dict[bytes, bytes]:
    return xattr_records((name, run(view.getxattr(ino, name))) for name in run(view.listxattr(ino)))
