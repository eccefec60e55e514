"""What the tree was at earlier moments: the copies that were made of it, which slots only they refer to, and the names that
some of them have (snapshots).

Rules that hold here:
- making, letting go and going back to a snapshot are items of a change like everything else: the store records it first,
  and a store on disk replays the record;
- what the calls return are runs of slots that nothing refers to any more.
"""

from typing import NamedTuple

from overlay.change import Change, GoBack, Item, Keep, Unkeep
from overlay.keeps import Keeps
from overlay.pages import Run, is_stored
from overlay.tree import COPY, Tree, node_weight

MOST_SNAPSHOTS = 100
"""A name costs an entry per changed object: a file must not make any amount of memory necessary."""

_PAST = (Keep, Unkeep, GoBack)


class Snapshot(NamedTuple):
    """made_ns: when, in nanoseconds since 1970."""

    moment: int
    made_ns: int


class History:
    """Of `tree`. frozen: moment → what it was then. snapshots: by name, oldest first."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.keeps = Keeps()
        self.frozen: dict[int, Tree] = {}
        self.snapshots: dict[bytes, Snapshot] = {}

    def trees(self) -> list[Tree]:
        """The tree and its snapshots, which are what lasts."""
        return [self.tree, *(self.frozen[one.moment] for one in self.snapshots.values())]

    def seen_from(self, moment: int) -> "History":
        """The copy of that moment with the snapshots there are now, for reading only. None may be let go meanwhile."""
        seen = History(self.frozen[moment])
        seen.snapshots = dict(self.snapshots)
        seen.frozen = {one.moment: self.frozen[one.moment] for one in self.snapshots.values()}
        return seen

    def freeze(self) -> int:
        """Keeps what is now; the moment by which it is known."""
        copy = self.tree.copy()
        self.tree.copies += COPY * len(copy.nodes)
        moment = self.keeps.begin()
        self.frozen[moment] = copy
        return moment

    def thaw(self, moment: int) -> list[Run]:
        """Lets a copy go."""
        del self.frozen[moment]
        free = self.keeps.end(moment)
        self.count_copies()
        return free

    def go_back(self, moment: int) -> list[Run]:
        """The nodes that the copy has become what they were then. Others stay (objects that are still held)."""
        copy, tree = self.frozen[moment], self.tree
        then = {run.slot + index for run in copy.slots() for index in range(run.length if is_stored(run.slot) else 0)}
        gone = [
            Run(0, run.slot + index, 1)
            for ino in copy.nodes.keys() & tree.nodes.keys()
            for run in tree.slots_of(ino)
            for index in range(run.length)
            if run.slot + index not in then
        ]
        self.keeps.revive(moment, then)
        tree.become(copy)
        free = self.keeps.release(gone)
        self.count_copies()
        return free

    def apply(self, change: Change) -> list[Run]:
        """A change that the store has committed."""
        tree, keeps, items = self.tree, self.keeps, change.items
        tree.apply(items)
        if change.placed:
            tree.apply(change.placed)
        free = self.released() if tree.freed else []
        if keeps.active:
            for place in change.placed:
                keeps.filled(place.run)
        if items and type(items[-1]) in _PAST:
            free += self.apply_past(items[-1])
        return free

    def apply_past(self, item: Item) -> list[Run]:
        """A Keep, Unkeep or GoBack. KeyError for an unknown name, ValueError for one that is taken or one too many."""
        if isinstance(item, Keep):
            if item.name in self.snapshots or len(self.snapshots) >= MOST_SNAPSHOTS:
                raise ValueError("a name is taken, or there are too many")
            self.snapshots[item.name] = Snapshot(self.freeze(), item.made_ns)
        elif isinstance(item, Unkeep):
            return self.thaw(self.snapshots.pop(item.name).moment)
        elif isinstance(item, GoBack):
            return self.go_back(self.snapshots[item.name].moment)
        return []

    def released(self) -> list[Run]:
        """Of the slots that the tree does not refer to any more, those that no copy does either."""
        freed, self.tree.freed = self.tree.freed, []
        return self.keeps.release(freed)

    def count_copies(self) -> None:
        """What the copies take, counted afresh: nodes that the tree does not have itself, once each."""
        if not self.frozen:
            self.tree.alone()
            return
        live = self.tree.nodes
        seen: set[int] = set()
        total = 0
        for copy in self.frozen.values():
            total += COPY * len(copy.nodes)
            for ino, node in copy.nodes.items():
                if live.get(ino) is not node and id(node) not in seen:
                    seen.add(id(node))
                    total += node_weight(node)
        self.tree.copies = total

    def settle(self) -> None:
        """After `keep` was replayed with changes in between that gave slots up and took them again: which copy keeps which
        slot is found out from the copies themselves. Sometimes one is kept longer than it must, never shorter."""
        self.keeps.rebuild({moment: stored(copy) for moment, copy in self.frozen.items()}, stored(self.tree))
        self.count_copies()


def stored(tree: Tree) -> list[Run]:
    """The slots that a tree has pages in."""
    return [run for run in tree.slots() if is_stored(run.slot)]
