"""Everything that can be reached in an overlay, as one number: for comparing what was with what came back."""

import hashlib
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

from overlay.overlay import Overlay
from overlay.vfs import run


def state(tree: Overlay) -> str:
    """Everything that can be reached, as one number."""
    seen: list[Any] = []
    todo = [(b"", tree.root)]
    while todo:
        path, ino = todo.pop()
        attr = run(tree.getattr(ino))
        data: Any = None
        if S_ISDIR(attr.mode):
            handle = run(tree.opendir(ino))
            after = 2
            while part := run(tree.readdir(handle, after, 100)):
                todo += [(path + b"/" + entry.name, entry.ino) for entry in part]
                after = part[-1].next
            tree.releasedir(handle)
        elif S_ISREG(attr.mode):
            data = hashlib.sha256(run(tree.read(ino, 0, attr.size))).hexdigest()
        elif S_ISLNK(attr.mode):
            data = run(tree.readlink(ino))
        xattrs = sorted((name, run(tree.getxattr(ino, name))) for name in run(tree.listxattr(ino)))
        seen.append((path, attr._replace(blocks=0), data, xattrs))
    return hashlib.sha256(repr(sorted(seen)).encode()).hexdigest()
