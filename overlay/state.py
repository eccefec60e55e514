"""What all operations share: the lower, the changed tree, its store, holds and open files; and the few questions that
every operation asks (what is behind this name? what are this inode's attributes?)."""

import errno
import os
from collections.abc import Callable, Generator
from stat import S_ISDIR
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from overlay.change import Change, Drop, Name, Put, Unname, White
from overlay.facts import Facts, Need, Scan
from overlay.history import History
from overlay.holds import Holds
from overlay.store import Store
from overlay.tree import DIRECTORY, NODE, WHITEOUT, Tree, entry_weight
from overlay.vfs import Ask, Attr, Content, Lower

P = ParamSpec("P")
T = TypeVar("T")

NAME_MAX = 255
SCAN_LIMIT = 128
"""Entries per request when a lower directory is searched."""


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Found(NamedTuple):
    """A visible name. own: the overlay's entry, else the lower's."""

    key: bytes
    name: bytes
    ino: int
    own: bool


class Open:
    """An open file. count: opens minus releases. content: the lower's bytes, once they were needed."""

    __slots__ = ("content", "count")

    def __init__(self) -> None:
        self.count = 0
        self.content: Content | None = None


def changed(
    attr: Attr,
    now: int,
    *,
    links: int = 0,
    mode: int | None = None,
    modified: bool = False,
    size: int | None = None,
    blocks: int | None = None,
) -> Attr:
    """`attr` after a change at `now`: ctime always, mtime if `modified`."""
    return Attr(
        attr.ino,
        attr.mode if mode is None else mode,
        attr.nlink + links,
        attr.uid,
        attr.gid,
        attr.rdev,
        attr.size if size is None else size,
        attr.blocks if blocks is None else blocks,
        attr.atime_ns,
        now if modified else attr.mtime_ns,
        now,
        attr.btime_ns,
    )


def touched(attr: Attr, now: int, subdirectories: int = 0) -> Attr:
    """A directory after a change of its entries. A link count of 1 says that nobody counts subdirectories."""
    return changed(attr, now, modified=True, links=subdirectories if attr.nlink > 1 else 0)


class State:
    """store None: read-only. first_ino: the inode numbers of the lower are below it."""

    def __init__(self, lower: Lower, store: Store | None, clock: Callable[[], int]) -> None:
        self.lower = lower
        self.clock = clock
        self.tree = Tree(lower.end_ino)
        self.store: Store | None = None
        self.holds = Holds()
        self.history = History(self.tree)
        self.opened: dict[int, Open] = {}
        if store is not None:
            self.attach(store)

    def attach(self, store: Store, tree: Tree | None = None) -> None:
        if self.store is not None:
            raise OSError(errno.EBUSY, "the overlay is writable already")
        if tree is None:
            store.load(self.tree)
        else:
            self.tree = tree
        self.history = store.history() or History(self.tree)
        self.store = store

    def steps(
        self, operation: Callable[Concatenate["State", Facts, P], T], *arguments: P.args, **options: P.kwargs
    ) -> Generator[Ask, Any, T]:
        """A plain operation as Steps: started again with every fact that it turned out to need."""
        facts = Facts(self.lower)
        while True:
            try:
                return operation(self, facts, *arguments, **options)
            except Need as need:
                ask = Ask(need.function, need.arguments, need.slow)
            facts.note(ask.function, ask.arguments, (yield ask))

    # -- questions -----------------------------------------------------------------------------------------------------

    def is_lower(self, ino: int) -> bool:
        return ino < self.tree.first_ino

    def is_changed(self, ino: int) -> bool:
        """Whether the content of `ino` is not simply the lower's."""
        node = self.tree.nodes.get(ino)
        return ino >= self.tree.first_ino or (node is not None and node.body is not None)

    def attr(self, facts: Facts, ino: int) -> Attr:
        node = self.tree.nodes.get(ino)
        if node is not None:
            return node.attr
        if ino >= self.tree.first_ino:
            raise error(errno.ESTALE)
        return facts.getattr(ino)

    def directory_attr(self, facts: Facts, ino: int) -> Attr:
        attr = self.attr(facts, ino)
        if not S_ISDIR(attr.mode):
            raise error(errno.ENOTDIR)
        return attr

    def find(self, facts: Facts, parent: int, name: bytes) -> Found | None:
        """What `name` leads to in directory `parent`."""
        key = self.lower.fold(name)
        directory = self.tree.directory(parent)
        if directory is not None:
            own = directory.added.get(key)
            if own is not None:
                return Found(key, own.name, own.ino, True)
            if directory.opaque:
                return None
        entry = facts.lookup(parent, name)
        if entry is None or (directory is not None and entry.name in directory.whiteouts):
            return None
        return Found(key, entry.name, entry.ino, False)

    def parent(self, facts: Facts, ino: int) -> int:
        """The directory that holds directory `ino`; the root holds itself."""
        if ino == self.lower.root:
            return ino
        node = self.tree.nodes.get(ino)
        if node is not None and node.parent:
            return node.parent
        return facts.parent(ino)

    def is_inside(self, facts: Facts, ino: int, ancestor: int) -> bool:
        """Whether directory `ino` is `ancestor` or below it."""
        seen: set[int] = set()
        while ino != ancestor:
            if ino == self.lower.root or ino in seen:
                return False
            seen.add(ino)
            ino = self.parent(facts, ino)
        return True

    def is_empty(self, facts: Facts, ino: int) -> bool:
        directory = self.tree.directory(ino)
        if directory is not None and directory.added:
            return False
        if directory is not None and directory.opaque:
            return True
        scan = facts.scans.setdefault(ino, Scan())
        while True:
            while scan.entries:
                if directory is None or scan.entries[-1].name not in directory.whiteouts:
                    return False
                scan.entries.pop()
            if scan.started and scan.after is None:
                return True
            listing = facts.listing(ino, scan.after, SCAN_LIMIT)
            scan.started = True
            scan.entries = list(reversed(listing.entries))
            scan.after = listing.next

    # -- changes ---------------------------------------------------------------------------------------------------------

    def require_writable(self) -> Store:
        if self.store is None:
            raise error(errno.EROFS)
        return self.store

    def put(self, change: Change, attr: Attr, parent: int = 0) -> None:
        if attr.ino not in self.tree.nodes:
            change.weight += NODE
            if not self.is_lower(attr.ino) and S_ISDIR(attr.mode):
                change.weight += DIRECTORY
        change.items.append(Put(attr, parent))

    def name(self, change: Change, parent: int, key: bytes, name: bytes, ino: int) -> None:
        change.weight += entry_weight(key, name) + self._delta_weight(parent)
        change.items.append(Name(parent, key, name, ino))

    def hide(self, change: Change, parent: int, found: Found) -> None:
        """Takes a visible name away."""
        if found.own:
            change.items.append(Unname(parent, found.key))
        else:
            change.weight += WHITEOUT + len(found.name) + self._delta_weight(parent)
            change.items.append(White(parent, found.name))

    def _delta_weight(self, ino: int) -> int:
        return DIRECTORY if self.tree.directory(ino) is None else 0

    def commit(self, change: Change) -> None:
        """All of it or, with an exception, nothing."""
        store = self.require_writable()
        keeps = self.history.keeps
        if keeps.active:
            change.shared = keeps.is_shared
        store.commit(change)
        free = self.history.apply(change)
        if free:
            store.free(free)

    def drop(self, ino: int) -> None:
        """Forgets an object that nobody can reach. If the store fails it stays, without harm, until the store is loaded
        again."""
        change = Change(removing=True)
        change.items.append(Drop(ino))
        try:
            self.commit(change)
        except OSError:
            return

    # -- copies ------------------------------------------------------------------------------------------------------------

    def freeze(self) -> int:
        """Keeps what is now; the moment by which it is known. ENOSPC if the budget does not allow it."""
        moment = self.history.freeze()
        if self.store is not None and self.store.used > self.store.budget:
            self.history.thaw(moment)
            raise error(errno.ENOSPC)
        return moment

    def thaw(self, moment: int) -> None:
        """Lets a copy go."""
        free = self.history.thaw(moment)
        if free and self.store is not None:
            self.store.free(free)
