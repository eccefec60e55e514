"""Everything that an overlay shows, found by plain walks: the oracle for what looks at changes only."""

from stat import S_ISDIR, S_ISLNK, S_ISREG

from overlay.overlay import Overlay
from overlay.vfs import run


def facts(view: Overlay, ino: int) -> tuple[object, ...]:
    attr = run(view.getattr(ino))
    data = bytes(run(view.read(ino, 0, attr.size))) if S_ISREG(attr.mode) else b""
    target = run(view.readlink(ino)) if S_ISLNK(attr.mode) else b""
    xattrs = sorted((name, run(view.getxattr(ino, name))) for name in run(view.listxattr(ino)))
    times = None if S_ISDIR(attr.mode) else (attr.mtime_ns, attr.atime_ns)
    return attr.mode, attr.uid, attr.gid, attr.rdev, data, target, tuple(xattrs), times


def children(view: Overlay, ino: int) -> dict[bytes, int]:
    handle = run(view.opendir(ino))
    found: dict[bytes, int] = {}
    after = 0
    while entries := run(view.readdir(handle, after, 100)):
        found |= {entry.name: entry.ino for entry in entries if entry.name not in (b".", b"..")}
        after = entries[-1].next
    view.releasedir(handle)
    return found


def walk(view: Overlay) -> dict[bytes, int]:
    """path → inode of everything."""
    found = {b"": view.root}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        for name, ino in children(view, found[path]).items():
            child = path + b"/" + name if path else name
            found[child] = ino
            if S_ISDIR(run(view.getattr(ino)).mode):
                waiting.append(child)
    return found


def everything(view: Overlay) -> dict[bytes, object]:
    return {path: (ino, facts(view, ino)) for path, ino in walk(view).items()}
