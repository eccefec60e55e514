"""The questions that a kernel asks most: what is behind a name, what are the attributes, how much room is there. Written
as generators, because an unchanged object needs one fact and nothing else."""

import errno
from stat import S_IFMT

from overlay.facts import Facts
from overlay.state import NAME_MAX, State, error
from overlay.tree import NODE
from overlay.vfs import Ask, Attr, Entry, Steps, Usage


def lookup(state: State, parent: int, name: bytes) -> Steps[Entry]:
    if parent not in state.tree.nodes and state.is_lower(parent) and len(name) <= NAME_MAX and name[:1] != b".":
        entry: Entry | None = yield Ask(state.lower.lookup, (parent, name))
        if parent not in state.tree.nodes:
            if entry is None:
                raise error(errno.ENOENT)
            node = state.tree.nodes.get(entry.ino)
            attr = node.attr if node is not None else entry.attr
            if attr is not None:
                state.holds.take(entry.ino)
                return Entry(entry.name, entry.ino, entry.type, attr)
    return (yield from state.steps(_lookup, parent, name))


def _lookup(state: State, facts: Facts, parent: int, name: bytes) -> Entry:
    state.directory_attr(facts, parent)
    if name in (b".", b".."):
        ino = parent if name == b"." else state.parent(facts, parent)
        attr = state.attr(facts, ino)
        return Entry(name, ino, S_IFMT(attr.mode), attr)
    if len(name) > max(NAME_MAX, state.lower.name_max):
        raise error(errno.ENAMETOOLONG)
    found = state.find(facts, parent, name)
    if found is None:
        raise error(errno.ENOENT if len(name) <= NAME_MAX else errno.ENAMETOOLONG)
    attr = state.attr(facts, found.ino)
    state.holds.take(found.ino)
    return Entry(found.name, found.ino, S_IFMT(attr.mode), attr)


def getattr(state: State, ino: int) -> Steps[Attr]:
    node = state.tree.nodes.get(ino)
    if node is None:
        if not state.is_lower(ino):
            raise error(errno.ESTALE)
        attr: Attr = yield Ask(state.lower.getattr, (ino,))
        node = state.tree.nodes.get(ino)
        if node is None:
            return attr
    return node.attr


def parent(state: State, ino: int) -> Steps[int]:
    """The directory that holds directory `ino`; the root holds itself."""
    node = state.tree.nodes.get(ino)
    if ino != state.lower.root and (node is None or not node.parent):
        above: int = yield Ask(state.lower.parent, (ino,))
        node = state.tree.nodes.get(ino)
        if node is None or not node.parent:
            return above
    return ino if node is None or ino == state.lower.root else node.parent


def statfs(state: State) -> Steps[Usage]:
    """The lower's used blocks and the budget together are the size; the rest of the budget is free."""
    below: Usage = yield Ask(state.lower.statfs, ())
    size = below.block_size
    used = below.blocks - below.free_blocks
    if state.store is None:
        return Usage(size, used, 0, below.files, 0, NAME_MAX)
    budget = state.store.budget
    free = max(0, budget - state.store.used)
    return Usage(size, used + budget // size, free // size, below.files + budget // NODE, free // NODE, NAME_MAX)
