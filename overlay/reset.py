"""Back to the lower, all of it. What the kernel was told of the difference is stale then.

Rule: objects that the kernel holds and that are no more live on without a name, as after unlink, until it lets them go.
"""

from collections.abc import Callable, Iterable
from stat import S_ISDIR
from typing import NamedTuple

from overlay.change import Change, Drop, Put, Shut
from overlay.state import State
from overlay.tree import Directory, Tree


class Stale(NamedTuple):
    """inodes: objects that may be different now. names: (directory, name) that may lead elsewhere, or nowhere."""

    inodes: list[int]
    names: list[tuple[int, bytes]]


def stale(trees: Iterable[Tree]) -> Stale:
    """All that these trees know."""
    inodes: dict[int, None] = {}
    names: dict[tuple[int, bytes], None] = {}
    for tree in trees:
        for ino, node in tree.nodes.items():
            inodes[ino] = None
            if isinstance(node.body, Directory):
                names |= dict.fromkeys((ino, own.name) for own in node.body.added.values())
                names |= dict.fromkeys((ino, name) for name in node.body.whiteouts)
    return Stale(list(inodes), list(names))


def to_lower(state: State) -> Stale:
    """Nothing is changed any more. The one operation is as large as the tree: EFBIG from a store that cannot take it."""
    found = stale([state.tree])
    state.commit(removal(state, lambda ino: True))
    return found


def removal(state: State, goes: Callable[[int], bool]) -> Change:
    """Of the changes of these objects."""
    change = Change(removing=True)
    for ino, node in state.tree.nodes.items():
        if not goes(ino):
            continue
        if state.is_lower(ino) or not state.holds[ino]:
            change.items.append(Drop(ino))
            continue
        change.items.append(Put(node.attr._replace(nlink=0), 0))
        if S_ISDIR(node.attr.mode):
            change.items.append(Shut(ino))
    return change
