"""Whether a shadow file is sound: that it can be read at all, that every page is what was written, that names, link counts
and parents agree. Reads only."""

import os
from collections import Counter
from collections.abc import Iterator
from stat import S_ISDIR
from typing import NamedTuple

from overlay.file import FileStore
from overlay.fingerprint import fingerprint
from overlay.superblock import Base, first_ino
from overlay.tree import Directory, Tree


class Report(NamedTuple):
    """base: of which image. fingerprint: by which a shadow above it knows it. inodes: changed and new ones. size: bytes in
    use. snapshots: their names. problems: one sentence each; none: sound."""

    base: Base
    fingerprint: str
    inodes: int
    size: int
    snapshots: list[bytes]
    problems: list[str]


def check(path: str | os.PathLike[str]) -> Report:
    """The file at `path`, whichever image it belongs to. Raises ShadowError if it cannot be read, OSError."""
    store = FileStore.open_file(path, None, read_only=True)
    try:
        tree = Tree(first_ino(store.base))
        store.load(tree)
        past = store.history()
        problems = list(_names(tree))
        for name, snapshot in past.snapshots.items():
            problems += (f"snapshot {name!r}: {problem}" for problem in _names(past.frozen[snapshot.moment]))
        problems += store.verify()
        return Report(
            store.base, fingerprint(tree, store.sums), len(tree.nodes), store.used, list(past.snapshots), problems
        )
    finally:
        store.close()


def _names(tree: Tree) -> Iterator[str]:
    """What the lower shows is not known here, so only entries of our own count: a new inode has all its names among them,
    one of the lower at most as many as it has links."""
    found: Counter[int] = Counter()
    for ino, node in tree.nodes.items():
        if not isinstance(node.body, Directory):
            continue
        if not S_ISDIR(node.attr.mode):
            yield f"inode {ino} has entries and is no directory"
        for own in node.body.added.values():
            found[own.ino] += 1
            child = tree.nodes.get(own.ino)
            if child is None:
                yield f"directory {ino}: {own.name!r} leads to inode {own.ino}, which does not exist"
            elif S_ISDIR(child.attr.mode) and child.parent not in (0, ino):
                yield f"directory {own.ino} is in directory {ino} and says it is in {child.parent}"
    for ino, node in tree.nodes.items():
        links = 1 if S_ISDIR(node.attr.mode) and node.attr.nlink else node.attr.nlink
        if (ino >= tree.first_ino and found[ino] != links) or found[ino] > links:
            yield f"inode {ino}: {found[ino]} names, link count {node.attr.nlink}"
