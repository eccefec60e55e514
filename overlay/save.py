"""All changes of one overlay copied into an empty store: a shadow in memory becomes a file, a file becomes a compact one.

Rule: objects without a name stay behind; they would be gone after the next mount anyway.
"""

from typing import NamedTuple

from overlay.change import Change, Fill, Inline, Item, Limit, Mark, Name, Put, Shut, Target, White, Xattr
from overlay.overlay import Overlay
from overlay.pages import PAGE, is_stored
from overlay.store import Store
from overlay.tree import Directory, File, Node, Tree

_PAGES = 256
_ITEMS = 512
"""At most so many pages, or names, in one operation of the new store."""


def save(view: Overlay, store: Store) -> int:
    """The changes of `view`, which must not change meanwhile, into `store`: see `save_tree`."""
    assert view.store is not None
    return save_tree(view.tree, view.store, store)


def save_tree(source: Tree, pages: Store, store: Store) -> int:
    """Into `store`, which was just made and not loaded; it is synced and stays open. pages: where the tree's are. How many
    objects there were. Raises OSError(ENOSPC) and others; the store is worth nothing then."""
    tree = Tree(source.first_ino)
    store.load(tree)
    tree.next_ino = source.next_ino
    count = 0
    for node in source.nodes.values():
        if node.attr.nlink:
            _node(pages, _Target(tree, store), node)
            count += 1
    sync = store.begin_sync()
    if sync is not None:
        sync.flush()
        store.end_sync(sync)
    return count


class _Target(NamedTuple):
    tree: Tree
    store: Store

    def commit(self, change: Change) -> None:
        self.store.commit(change)
        self.tree.apply(change.items)
        self.tree.apply(change.placed)


def _node(pages: Store, target: _Target, node: Node) -> None:
    ino, body = node.attr.ino, node.body
    change = Change()
    change.items.append(Put(node.attr, node.parent))
    change.items += (Xattr(ino, name, value) for name, value in (node.xattrs or {}).items())
    if isinstance(body, bytes):
        change.items.append(Target(ino, body))
    elif isinstance(body, Directory):
        if body.opaque:
            change.items.append(Shut(ino))
        items: list[Item] = [White(ino, name) for name in body.whiteouts]
        items += (Name(ino, own.key, own.name, own.ino) for own in body.added.values())
        for item in items:
            change.items.append(item)
            if len(change.items) >= _ITEMS:
                target.commit(change)
                change = Change()
    elif isinstance(body, File):
        change.items.append(Limit(ino, body.limit))
        if body.inline is not None:
            change.items.append(Inline(ino, body.inline))
        for run in body.pages.walk() if body.pages is not None else ():
            if not is_stored(run.slot):
                change.items.append(Mark(ino, run))
                continue
            for first in range(0, run.length, _PAGES):
                length = min(_PAGES, run.length - first)
                target.commit(change)
                change = Change()
                change.new_pages = length
                data = pages.view(run.slot + first, length)
                assert len(data) == length * PAGE
                change.items.append(Fill(ino, run.page + first, length, data))
    target.commit(change)
