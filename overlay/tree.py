"""The changed part of the tree: inodes that differ from the lower or are new. Everything that is not here is the lower's.

Rules that hold here:
- identity is the inode, names are entries of directories; renaming a directory moves one entry;
- in a directory no name is both the overlay's own and a visible one of the lower: the lower's is whited out first, and a
  whiteout stays under the entry that covers it. So a removed name comes back by a reset only. Own entries are filed by the
  folded name, because any spelling must find them; whiteouts by the spelling that the lower lists, because that names one
  entry of the lower also where a volume holds two that fold alike;
- a copy shares its nodes with the tree; whichever of the tree's nodes is older than the youngest copy is copied itself
  before it changes. So copying costs an entry per node and no page;
- the tree changes in `apply` only, which cannot fail; `weight` is what it takes in memory (pages not counted), kept by
  addition and equal to what `weigh` counts afresh. The constants were measured: bytes per object of CPython 3.11 with its
  share of the dict it is in.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from stat import S_ISDIR
from typing import Any, Final, NamedTuple

from overlay import change as items
from overlay.pages import HOLE, PageMap, Run, is_stored
from overlay.vfs import FIRST_NEW_INODE, Attr

NODE: Final = 430
DIRECTORY: Final = 200
FILE: Final = 120
PAGES: Final = 190
BLOCK: Final = 405
TARGET: Final = 40
ENTRY: Final = 250
WHITEOUT: Final = 120
XATTRS: Final = 240
XATTR: Final = 80
COPY: Final = 105
"""Of each node in a frozen copy: its place in a dict."""

FIRST_OWN_COOKIE: Final = 1 << 40
"""readdir cookies of the overlay's own entries count from here; those of the lower are below."""


_NOTHING: Final[frozenset[bytes]] = frozenset()


class Own(NamedTuple):
    """An entry that the overlay added. Cookies of a directory only ever grow."""

    key: bytes
    name: bytes
    ino: int
    cookie: int


class Directory:
    """What differs from the lower's directory. added: folded name → own entry. whiteouts: names of the lower that are
    hidden. opaque: nothing of the lower shows (new or removed directories)."""

    __slots__ = ("_next_cookie", "_order", "added", "opaque", "whiteouts")

    def __init__(self, opaque: bool) -> None:
        self.opaque = opaque
        self.added: dict[bytes, Own] = {}
        self.whiteouts: AbstractSet[bytes] = _NOTHING  # a set of its own from the first one on
        self._order: list[Own] = []  # by cookie; removed entries linger until they are half of it
        self._next_cookie = FIRST_OWN_COOKIE

    def copy(self) -> "Directory":
        copy = Directory(self.opaque)
        copy.added = dict(self.added)
        copy.whiteouts = set(self.whiteouts) if self.whiteouts else _NOTHING
        copy._order = list(self._order)
        copy._next_cookie = self._next_cookie
        return copy

    @property
    def last_cookie(self) -> int:
        """Greatest cookie given so far."""
        return self._next_cookie - 1

    def add(self, key: bytes, name: bytes, ino: int) -> None:
        own = Own(key, name, ino, self._next_cookie)
        self._next_cookie += 1
        self.added.pop(key, None)
        self.added[key] = own
        self._order.append(own)

    def remove(self, key: bytes) -> Own:
        own = self.added.pop(key)
        if len(self._order) > 2 * len(self.added) + 32:
            self._order = list(self.added.values())
        return own

    def after(self, cookie: int, limit: int, last: int) -> list[Own]:
        """Up to `limit` own entries with cookies in (cookie, last]."""
        found: list[Own] = []
        order = self._order
        for index in range(bisect_right(order, cookie, key=lambda own: own.cookie), len(order)):
            own = order[index]
            if own.cookie > last or len(found) == limit:
                break
            if self.added.get(own.key) is own:
                found.append(own)
        return found


class File:
    """Content that differs from the lower's. limit: bytes from here on are never the lower's (0: new or once emptied).
    inline: the bytes of a small file, None if it lives in pages."""

    __slots__ = ("inline", "limit", "pages")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.inline: bytes | None = None
        self.pages: PageMap | None = None

    def copy(self) -> "File":
        copy = File(self.limit)
        copy.inline = self.inline
        copy.pages = None if self.pages is None else self.pages.copy()
        return copy


class Node:
    """One changed or new inode. body: Directory, File, target of a new symbolic link, or None where the lower's content
    shows unchanged or there is none. parent: of a directory, 0 where the lower's word holds. xattrs: None as a value
    hides the lower's."""

    __slots__ = ("age", "attr", "body", "parent", "xattrs")

    def __init__(self, attr: Attr, age: int) -> None:
        self.age = age  # how many copies of the tree had been made when it was
        self.attr = attr
        self.body: Directory | File | bytes | None = None
        self.parent = 0
        self.xattrs: dict[bytes, bytes | None] | None = None


def _copy(node: Node, age: int) -> Node:
    copy = Node(node.attr, age)
    body = node.body
    copy.body = body.copy() if isinstance(body, (Directory, File)) else body
    copy.parent = node.parent
    copy.xattrs = None if node.xattrs is None else dict(node.xattrs)
    return copy


def entry_weight(key: bytes, name: bytes) -> int:
    return ENTRY + len(name) + (len(key) + 48 if key != name else 0)


class Tree:
    """nodes: inode → Node. next_ino: the next new inode number. freed: runs of slots that nothing refers to since the
    last look (the overlay hands them to the store). copies: what copies of this tree take besides, kept by whoever made
    them and counted like `weight`."""

    def __init__(self, first_ino: int = FIRST_NEW_INODE) -> None:
        self.first_ino = first_ino
        self.next_ino = first_ino
        self.nodes: dict[int, Node] = {}
        self.weight = 0
        self.copies = 0
        self.freed: list[Run] = []
        self._age = 0
        self._shares = False  # a copy of it lives

    def adopt(self, other: "Tree") -> None:
        """Becomes what `other` is."""
        self.nodes, self.weight, self.next_ino, self.copies = other.nodes, other.weight, other.next_ino, other.copies
        self._age, self._shares = other._age, other._shares

    def copy(self) -> "Tree":
        """As it is now, for reading only."""
        copy = Tree(self.first_ino)
        copy.nodes = dict(self.nodes)
        copy.weight, copy.next_ino = self.weight, self.next_ino
        self._age += 1
        self._shares = True
        return copy

    def alone(self) -> None:
        """None of its copies lives any more."""
        self._shares = False
        self.copies = 0

    def become(self, copy: "Tree") -> None:
        """What it was when `copy` was made, but for nodes that the copy does not have. Inode numbers that were given since
        are not given again."""
        self.nodes |= copy.nodes
        self.weight = self.weigh()
        self._age += 1

    def _node(self, ino: int) -> Node:
        """The node to be changed."""
        node = self.nodes[ino]
        if self._shares and node.age != self._age:
            self.copies += node_weight(node)
            node = self.nodes[ino] = _copy(node, self._age)
        return node

    # -- the parts of a node, made when first needed ----------------------------------------------------------------

    def directory(self, ino: int) -> Directory | None:
        """What differs in directory `ino`; None if nothing does."""
        node = self.nodes.get(ino)
        return node.body if node is not None and isinstance(node.body, Directory) else None

    def file(self, ino: int) -> File | None:
        """The changed content of `ino`; None if it is the lower's."""
        node = self.nodes.get(ino)
        return node.body if node is not None and isinstance(node.body, File) else None

    def _own_directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if node.body is None:
            node.body = Directory(opaque=False)
            self.weight += DIRECTORY
        assert isinstance(node.body, Directory)
        return node.body

    def _own_file(self, ino: int) -> File:
        body = self._node(ino).body
        assert isinstance(body, File)
        return body

    def _pages(self, ino: int) -> PageMap:
        file = self._own_file(ino)
        if file.pages is None:
            file.pages = PageMap()
            self.weight += PAGES
        return file.pages

    # -- applying ------------------------------------------------------------------------------------------------------

    def apply(self, change: Iterable[items.Item]) -> None:
        for item in change:
            _APPLY[type(item)](self, item)

    def _put(self, item: items.Put) -> None:
        attr = item.attr
        node = self.nodes.get(attr.ino)
        if node is None:
            node = self.nodes[attr.ino] = Node(attr, self._age)
            self.weight += NODE
            if attr.ino >= self.first_ino:
                self.next_ino = max(self.next_ino, attr.ino + 1)
                if S_ISDIR(attr.mode):
                    node.body = Directory(opaque=True)
                    self.weight += DIRECTORY
        else:
            node = self._node(attr.ino)
            node.attr = attr
        if item.parent:
            node.parent = item.parent

    def _drop(self, item: items.Drop) -> None:
        node = self.nodes.pop(item.ino)
        self.weight -= node_weight(node)
        if isinstance(node.body, File) and node.body.pages is not None:
            self.freed += [run for run in node.body.pages.walk() if is_stored(run.slot)]
        if self._shares and node.age != self._age:
            self.copies += node_weight(node)

    def _name(self, item: items.Name) -> None:
        directory = self._own_directory(item.parent)
        old = directory.added.get(item.key)
        if old is not None:
            self.weight -= entry_weight(old.key, old.name)
        key = item.name if item.key == item.name else item.key
        directory.add(key, item.name, item.ino)
        self.weight += entry_weight(key, item.name)

    def _unname(self, item: items.Unname) -> None:
        own = self._own_directory(item.parent).remove(item.key)
        self.weight -= entry_weight(own.key, own.name)

    def _white(self, item: items.White) -> None:
        directory = self._own_directory(item.parent)
        if item.name not in directory.whiteouts:
            if isinstance(directory.whiteouts, set):
                directory.whiteouts.add(item.name)
            else:
                directory.whiteouts = {item.name}
            self.weight += WHITEOUT + len(item.name)

    def _show(self, item: items.Show) -> None:
        directory = self._own_directory(item.parent)
        if isinstance(directory.whiteouts, set) and item.name in directory.whiteouts:
            directory.whiteouts.remove(item.name)
            self.weight -= WHITEOUT + len(item.name)

    def _shut(self, item: items.Shut) -> None:
        node = self._node(item.ino)
        self.weight -= node_weight(node)
        node.body = Directory(opaque=True)
        self.weight += node_weight(node)

    def _target(self, item: items.Target) -> None:
        self._node(item.ino).body = item.target
        self.weight += TARGET + len(item.target)

    def _xattr(self, item: items.Xattr) -> None:
        node = self._node(item.ino)
        if node.xattrs is None:
            node.xattrs = {}
            self.weight += XATTRS
        if item.name in node.xattrs:
            self.weight -= XATTR + len(item.name) + len(node.xattrs[item.name] or b"")
        if item.value is None and item.ino >= self.first_ino:
            del node.xattrs[item.name]
            return
        node.xattrs[item.name] = item.value
        self.weight += XATTR + len(item.name) + len(item.value or b"")

    def _limit(self, item: items.Limit) -> None:
        node = self._node(item.ino)
        if node.body is None:
            node.body = File(item.limit)
            self.weight += FILE
        else:
            assert isinstance(node.body, File)
            node.body.limit = min(node.body.limit, item.limit)

    def _inline(self, item: items.Inline) -> None:
        file = self._own_file(item.ino)
        self.weight += len(item.data or b"") - len(file.inline or b"")
        file.inline = item.data

    def _cutoff(self, item: items.Cutoff) -> None:
        pages = self._own_file(item.ino).pages
        if pages is not None:
            before = pages.blocks
            self.freed += pages.cut(item.page)
            self.weight += BLOCK * (pages.blocks - before)

    def _run(self, item: items.Mark | items.Place) -> None:
        pages = self._pages(item.ino)
        before = pages.blocks
        self.freed += pages.put(item.run)
        self.weight += BLOCK * (pages.blocks - before)

    # -- counting afresh -----------------------------------------------------------------------------------------------

    def weigh(self) -> int:
        """What `weight` must be."""
        return sum(map(node_weight, self.nodes.values()))

    def count(self) -> dict[str, int]:
        """Objects, and the pages that they take in a store."""
        files = (node.body.pages for node in self.nodes.values() if isinstance(node.body, File))
        return {"objects": len(self.nodes), "pages": sum(pages.stored for pages in files if pages is not None)}

    def slots(self) -> Iterable[Run]:
        """Every run of slots that a file refers to."""
        for node in self.nodes.values():
            if isinstance(node.body, File) and node.body.pages is not None:
                yield from (run for run in node.body.pages.walk() if run.slot != HOLE)

    def slots_of(self, ino: int) -> list[Run]:
        """Those of one file that are stored."""
        file = self.file(ino)
        return [] if file is None or file.pages is None else [run for run in file.pages.walk() if is_stored(run.slot)]


def node_weight(node: Node) -> int:
    """What a node and everything in it takes, pages not counted."""
    weight = NODE
    body = node.body
    if isinstance(body, Directory):
        weight += DIRECTORY
        weight += sum(entry_weight(own.key, own.name) for own in body.added.values())
        weight += sum(WHITEOUT + len(name) for name in body.whiteouts)
    elif isinstance(body, File):
        weight += FILE + len(body.inline or b"")
        weight += PAGES + BLOCK * body.pages.blocks if body.pages is not None else 0
    elif body is not None:
        weight += TARGET + len(body)
    if node.xattrs is not None:
        weight += XATTRS + sum(XATTR + len(name) + len(value or b"") for name, value in node.xattrs.items())
    return weight


def _nothing(tree: Tree, item: Any) -> None:
    """Fill and Patch: the store has dealt with the bytes, Place says where they are. Snapshots: `overlay.history`."""


_APPLY: dict[type, Callable[[Tree, Any], None]] = {
    items.Put: Tree._put,
    items.Drop: Tree._drop,
    items.Name: Tree._name,
    items.Unname: Tree._unname,
    items.White: Tree._white,
    items.Show: Tree._show,
    items.Shut: Tree._shut,
    items.Target: Tree._target,
    items.Xattr: Tree._xattr,
    items.Limit: Tree._limit,
    items.Inline: Tree._inline,
    items.Cutoff: Tree._cutoff,
    items.Mark: Tree._run,
    items.Place: Tree._run,
    items.Fill: _nothing,
    items.Patch: _nothing,
    items.Keep: _nothing,
    items.Unkeep: _nothing,
    items.GoBack: _nothing,
}
