"""An overlay used at random without a model beside it: for what is checked by other means, as going back in time."""

import random
from stat import S_ISDIR

from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.overlay_walk import children, walk
from overlay.overlay import Overlay
from overlay.vfs import run

CALLER = Caller()


def forest(case_sensitive: bool) -> LowerTree:
    """Directories three deep, a file with three names, one name everywhere."""
    lower = LowerTree(case_sensitive)
    first = lower.add_directory(lower.root, b"dir")
    second = lower.add_directory(first, b"b", 0o2775)
    third = lower.add_directory(second, b"c")
    lower.add_directory(lower.root, b"empty")
    for directory in (lower.root, second, third):
        lower.add_file(directory, b"file", b"%d" % directory * 5000)
    shared = lower.add_file(first, b"link", b"shared" * 1000)
    lower.link(third, b"link", shared)
    lower.link(lower.root, b"link2", shared)
    lower.things[shared].xattrs = {b"user.one": b"1", b"user.two": b"2"}
    lower.things[first].xattrs = {b"user.one": b"directory"}
    lower.add_symlink(first, b"c", b"b/c")
    return lower


def move_around(overlay: Overlay, source: random.Random, count: int) -> None:
    """Renames, exchanges, links, removals and new objects all over the tree."""
    for _ in range(count):
        paths = walk(overlay)
        folders = [ino for ino in paths.values() if S_ISDIR(run(overlay.getattr(ino)).mode)]
        path, other = source.choice(sorted(paths)[1:] or [b""]), source.choice(sorted(paths)[1:] or [b""])
        if not path:
            return
        parent, name = paths[path.rpartition(b"/")[0]], path.rpartition(b"/")[2]
        new_parent = source.choice([paths[other.rpartition(b"/")[0]], source.choice(folders)])
        new_name = source.choice([other.rpartition(b"/")[2], b"one", b"two", b"DIR"])
        try:
            match source.randrange(16):
                case 0 | 1 | 2 | 3:
                    run(overlay.rename(parent, name, new_parent, new_name, source.choice([0, 0, 1, 2])))
                case 4:
                    run(overlay.link(paths[path], new_parent, new_name))
                    overlay.forget(paths[path])
                case 5:
                    run(overlay.unlink(parent, name))
                case 6:
                    for child in children(overlay, paths[path]):
                        run(overlay.unlink(paths[path], child))
                    run(overlay.rmdir(parent, name))
                case 7:
                    overlay.forget(run(overlay.mkdir(new_parent, new_name, 0o755, CALLER)).ino)
                case 8:
                    ino = run(overlay.mknod(new_parent, new_name, 0o100644, 0, CALLER)).ino
                    run(overlay.write(ino, 0, source.randbytes(5000)))
                    overlay.forget(ino, source.randrange(2))
                case 9:
                    run(overlay.setxattr(paths[path], b"user.one", b"changed"))
                    run(overlay.write(paths[path], 3, b"changed"))
                case 10:
                    run(overlay.setattr(paths[path], mode=0o711, size=source.choice([None, 7000, 0])))
                case 11:
                    overlay.hold(paths[path])
                case _:
                    offset = source.choice([0, source.randrange(9000), source.randrange(9) * 4096])
                    data = source.choice([bytes, source.randbytes])(source.choice([100, 4096, 5000, 20_000]))
                    run(overlay.write(paths[path], offset, data))
        except OSError:
            continue
