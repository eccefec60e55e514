"""Named states of an overlay: made without copying a page, gone back to, deleted.

Rule: each of these is one change, recorded by the store before it happens.
"""

import errno
import os

from overlay.change import Change, GoBack, Keep, Unkeep
from overlay.history import MOST_SNAPSHOTS
from overlay.reset import Stale, removal, stale
from overlay.state import State
from overlay.tree import COPY, Tree

NAME_MAX = 255


def make(state: State, name: bytes) -> None:
    state.require_writable()
    known = state.history.snapshots
    if not 0 < len(name) <= NAME_MAX:
        raise OSError(errno.EINVAL, f"the name of a snapshot has 1 to {NAME_MAX} bytes")
    if name in known:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    if len(known) >= MOST_SNAPSHOTS:
        raise OSError(errno.ENOSPC, f"there are {MOST_SNAPSHOTS} snapshots already")
    change = Change()
    change.weight = COPY * len(state.tree.nodes)
    change.items.append(Keep(state.clock(), name))
    state.commit(change)


def delete(state: State, name: bytes) -> None:
    _copy(state, name)
    change = Change(removing=True)
    change.items.append(Unkeep(name))
    state.commit(change)


def rollback(state: State, name: bytes) -> Stale:
    copy = _copy(state, name)
    found = stale([state.tree, copy])
    change = removal(state, lambda ino: ino not in copy.nodes)
    change.items.append(GoBack(name))
    state.commit(change)
    for ino in [ino for ino, node in state.tree.nodes.items() if not node.attr.nlink and not state.holds[ino]]:
        state.drop(ino)  # open without a name then
    return found


def _copy(state: State, name: bytes) -> Tree:
    state.require_writable()
    snapshot = state.history.snapshots.get(name)
    if snapshot is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return state.history.frozen[snapshot.moment]
