"""The items that make one tree out of another: all of a tree out of nothing, or the few things in which it differs from an
earlier copy of itself (copies share the nodes that did not change). Pages are `Place`: in the slots where they are."""

from collections.abc import Iterator, Mapping

from overlay.change import Drop, Inline, Item, Limit, Mark, Name, Place, Put, Show, Shut, Target, Unname, White, Xattr
from overlay.pages import PageMap, is_stored
from overlay.tree import Directory, File, Node

_EMPTY = PageMap()


def delta(old: Mapping[int, Node], new: Mapping[int, Node]) -> Iterator[Item]:
    """Applied to a tree with the nodes `old`, they make `new` of it."""
    for ino in old.keys() - new.keys():
        yield Drop(ino)
    for ino, node in new.items():
        was = old.get(ino)
        if was is node:
            continue
        if was is not None and not _leads_to(was, node):
            yield Drop(ino)
            was = None
        yield from _node(was, node)


def _leads_to(was: Node, node: Node) -> bool:
    """Whether items can make `node` of `was`: not everything can be undone but by beginning anew."""
    if (was.parent and not node.parent) or (was.xattrs or {}).keys() - (node.xattrs or {}).keys():
        return False
    before, after = was.body, node.body
    if before is None:
        return True
    if isinstance(before, Directory) and isinstance(after, Directory):
        return after.opaque or not before.opaque
    if isinstance(before, File) and isinstance(after, File):
        shrinks = after.limit <= before.limit
        return shrinks and not (before.pages is not None and (after.pages is None or after.inline is not None))
    return before == after


def _node(was: Node | None, node: Node) -> Iterator[Item]:
    ino = node.attr.ino
    yield Put(node.attr, node.parent)
    xattrs = (was.xattrs if was is not None else None) or {}
    for name, value in (node.xattrs or {}).items():
        if name not in xattrs or xattrs[name] != value:
            yield Xattr(ino, name, value)
    before, body = was.body if was is not None else None, node.body
    if isinstance(body, bytes):
        if before != body:
            yield Target(ino, body)
    elif isinstance(body, Directory):
        yield from _directory(ino, before if isinstance(before, Directory) else Directory(opaque=False), body)
    elif isinstance(body, File):
        yield from _file(ino, before if isinstance(before, File) else None, body)


def _directory(ino: int, was: Directory, body: Directory) -> Iterator[Item]:
    if body.opaque and not was.opaque:
        yield Shut(ino)
        was = Directory(opaque=True)
    yield from (Unname(ino, key) for key in was.added.keys() - body.added.keys())
    yield from (Show(ino, name) for name in was.whiteouts - body.whiteouts)
    yield from (White(ino, name) for name in body.whiteouts - was.whiteouts)
    for key, own in body.added.items():
        if was.added.get(key) != own:
            yield Name(ino, own.key, own.name, own.ino)


def _file(ino: int, was: File | None, body: File) -> Iterator[Item]:
    if was is None or body.limit < was.limit:
        yield Limit(ino, body.limit)
    if body.inline != (was.inline if was is not None else None):
        yield Inline(ino, body.inline)
    old = was.pages if was is not None and was.pages is not None else _EMPTY
    for run in body.pages.unlike(old) if body.pages is not None else ():
        yield Place(ino, run) if is_stored(run.slot) else Mark(ino, run)
