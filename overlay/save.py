"""All changes of one overlay copied into an empty store, with its snapshots: a shadow in memory becomes a file, a file
becomes a compact one.

Rule: objects without a name stay behind; they would be gone after the next mount anyway.
"""

from collections.abc import Iterable, Iterator, Mapping

from overlay.change import Change, Fill, Item, Keep, Place
from overlay.delta import delta
from overlay.history import History
from overlay.overlay import Overlay
from overlay.pages import PAGE
from overlay.store import Store
from overlay.tree import Node, Tree

_PAGES = 256
_ITEMS = 512
"""At most so many pages, or items, in one operation of the new store."""


def save(view: Overlay, store: Store) -> int:
    """The changes of `view`, which must not change meanwhile, and its snapshots into `store`: see `save_history`."""
    assert view.store is not None
    return save_history(view.history, view.store, store)


def save_history(source: History, pages: Store, store: Store) -> int:
    """A tree and its snapshots into `store`, which was just made and not loaded; it is synced and stays open. pages: where
    the trees' are. How many objects the tree has. Raises OSError(ENOSPC) and others; the store is worth nothing then."""
    tree = Tree(source.tree.first_ino)
    store.load(tree)
    tree.next_ino = source.tree.next_ino
    target = _Target(tree, store)
    nodes: Mapping[int, Node] = {}
    for name, snapshot in source.snapshots.items():
        copy = _named(source.frozen[snapshot.moment])
        target.put(delta(nodes, copy), pages)
        target.put([Keep(snapshot.made_ns, name)], pages)
        nodes = copy
    named = _named(source.tree)
    target.put(delta(nodes, named), pages)
    sync = store.begin_sync()
    if sync is not None:
        sync.flush()
        store.end_sync(sync)
    return len(named)


def _named(tree: Tree) -> dict[int, Node]:
    return {ino: node for ino, node in tree.nodes.items() if node.attr.nlink}


class _Target:
    def __init__(self, tree: Tree, store: Store) -> None:
        self._store = store
        self._history = store.history() or History(tree)

    def put(self, items: Iterable[Item], pages: Store) -> None:
        change = Change()
        for item in items:
            for part in _parts(item, pages):
                change.items.append(part)
                if isinstance(part, Fill):
                    change.new_pages += part.length
                if len(change.items) >= _ITEMS or change.new_pages >= _PAGES:
                    self._commit(change)
                    change = Change()
        self._commit(change)

    def _commit(self, change: Change) -> None:
        self._store.commit(change)
        self._store.free(self._history.apply(change))


def _parts(item: Item, pages: Store) -> Iterator[Item]:
    """Pages by their bytes instead of by their place."""
    if not isinstance(item, Place):
        yield item
        return
    for first in range(0, item.run.length, _PAGES):
        length = min(_PAGES, item.run.length - first)
        data = pages.view(item.run.slot + first, length)
        assert len(data) == length * PAGE
        yield Fill(item.ino, item.run.page + first, length, data)
