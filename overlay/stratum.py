"""An overlay that nobody changes any more, as the Lower of another one: so overlays lie one on the other, a saved shadow on
the image, the next one on that.

Rules that hold here:
- it shows exactly what an Overlay over the same lower with the same tree would; the questions are answered by the same
  functions, at once and not in steps, because a Lower is asked by one who can wait or can catch what says that it cannot;
- new objects of each overlay have numbers of their own (`LAYER_INODES`): an object keeps its number wherever in a stack it
  was made, and whatever is put on top;
- nothing is copied: a listing or a read goes down as far as it must.
"""

import errno
import time
from collections.abc import Callable, Hashable, Sequence
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import Any

from overlay import acl, attributes, contents
from overlay.errors import ShadowDamaged
from overlay.extents import Extent, extents
from overlay.facts import Facts
from overlay.pages import HOLE, PAGE_BITS, PageMap, pages_in
from overlay.state import NAME_MAX, State, error
from overlay.store import Store
from overlay.tree import FIRST_OWN_COOKIE, Tree
from overlay.vfs import LAYER_INODES, Attr, Buffer, Content, Entry, Listing, Lower, Usage

_BELOW, _OWN = 0, 1
"""The two parts of a directory's listing: what still shows of the lower's, then the overlay's own entries."""

_NO_PAGES = PageMap()


class _AtOnce(Facts):
    """The lower's answers, had by asking it."""

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """The call itself comes next, and waits or says that it would have to."""


class _Kept(_AtOnce):
    """The same for one file, whose content in the lower is opened once."""

    def __init__(self, lower: Lower) -> None:
        super().__init__(lower)
        self._content: Content | None = None

    def open(self, ino: int) -> Content:
        content = self._content
        if content is None:
            content = self._content = super().open(ino)
        return content


class _Bytes:
    """The bytes of a file that the overlay changed or made. A Content."""

    def __init__(self, state: State, ino: int, size: int) -> None:
        self.size = size
        self._state = state
        self._ino = ino
        self._facts = _Kept(state.lower)

    def read(self, offset: int, length: int) -> Buffer:
        return contents.read_changed(self._state, self._facts, self._ino, offset, length)

    def cold(self, offset: int, length: int) -> Sequence[Any]:
        """What the lower would have to fetch for the parts that are still its. Pages of ours are read where they lie."""
        file = self._state.tree.file(self._ino)
        end = min(offset + length, self.size)
        if file is None or file.inline is not None or offset < 0 or offset >= min(end, file.limit):
            return ()
        end = min(end, file.limit)
        first = offset >> PAGE_BITS
        loads: dict[Any, None] = {}
        for run in (file.pages or _NO_PAGES).runs(first, pages_in(end) - first):
            if run.slot == HOLE:
                start = max(offset, run.page << PAGE_BITS)
                stop = min(end, (run.page + run.length) << PAGE_BITS)
                loads |= dict.fromkeys(self._facts.open(self._ino).cold(start, stop - start))
        return tuple(loads)

    def extents(self) -> Sequence[Extent]:
        return extents(self._state, self._facts, self._ino)


class Stratum:
    """What `tree`, filled by `store`, makes of `lower`, for good. A Lower. Raises ShadowDamaged for numbers that belong to
    no overlay of this place in a stack."""

    def __init__(self, lower: Lower, tree: Tree, store: Store) -> None:
        self._lower = lower
        self._state = State(lower, None, time.time_ns)
        self._state.attach(store, tree)
        self._facts = _AtOnce(lower)
        self._tree = tree
        self._names: dict[int, list[tuple[int, bytes]]] | None = None
        self._new = sum(ino >= tree.first_ino for ino in tree.nodes)
        self.end_ino = lower.end_ino + LAYER_INODES
        self.name_max = max(NAME_MAX, lower.name_max)
        self.fold = lower.fold
        if tree.first_ino != lower.end_ino or tree.next_ino > self.end_ino:
            raise ShadowDamaged(f"inode {tree.next_ino - 1} is none of its own")

    @property
    def root(self) -> int:
        return self._lower.root

    # -- objects -----------------------------------------------------------------------------------------------------------

    def getattr(self, ino: int) -> Attr:
        return self._state.attr(self._facts, ino)

    def parent(self, ino: int) -> int:
        return self._state.parent(self._facts, ino)

    def place(self, ino: int) -> tuple[int, bytes] | None:
        node = self._tree.nodes.get(ino)
        if node is not None:
            if node.attr.nlink != 1 and not S_ISDIR(node.attr.mode):
                return None
            own = self._own_names().get(ino)
            if own is not None:
                return own[0] if len(own) == 1 else None
        if not self._state.is_lower(ino):
            return None
        place = self._lower.place(ino)
        if place is not None:
            directory = self._tree.directory(place[0])
            if directory is not None and (directory.opaque or place[1] in directory.whiteouts):
                return None
        return place

    def _own_names(self) -> dict[int, list[tuple[int, bytes]]]:
        """The entries that the overlay added, by inode. Made when first asked for."""
        if self._names is None:
            names: dict[int, list[tuple[int, bytes]]] = {}
            for parent in self._tree.nodes:
                directory = self._tree.directory(parent)
                for own in directory.added.values() if directory is not None else ():
                    names.setdefault(own.ino, []).append((parent, own.name))
            self._names = names
        return self._names

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        state = self._state
        if parent not in self._tree.nodes and state.is_lower(parent):
            entry = self._lower.lookup(parent, name)
            return None if entry is None else self._shown(entry)
        state.directory_attr(self._facts, parent)
        directory = self._tree.directory(parent)
        if directory is not None:
            own = directory.added.get(self.fold(name))
            if own is not None:
                return self._entry(own.name, own.ino)
            if directory.opaque:
                return None
        entry = self._lower.lookup(parent, name)
        if entry is None or (directory is not None and entry.name in directory.whiteouts):
            return None
        return self._shown(entry)

    def _shown(self, entry: Entry) -> Entry:
        """The lower's entry, with the object as it is now."""
        node = self._tree.nodes.get(entry.ino)
        return entry if node is None else Entry(entry.name, entry.ino, entry.type, node.attr)

    def _entry(self, name: bytes, ino: int) -> Entry:
        attr = self._state.attr(self._facts, ino)
        return Entry(name, ino, S_IFMT(attr.mode), attr)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        part, cursor = after if isinstance(after, tuple) else (_BELOW, None)
        directory = self._tree.directory(ino)
        if part == _BELOW:
            following = (_OWN, FIRST_OWN_COOKIE - 1) if directory is not None and directory.added else None
            if not self._state.is_lower(ino) or (directory is not None and directory.opaque):
                return Listing((), following)
            listing = self._lower.readdir(ino, cursor, limit)
            hidden = directory.whiteouts if directory is not None else ()
            entries = [self._shown(entry) for entry in listing.entries if entry.name not in hidden]
            return Listing(entries, following if listing.next is None else (_BELOW, listing.next))
        if directory is None:
            return Listing((), None)
        own = directory.after(cursor, limit, directory.last_cookie)
        entries = [self._entry(one.name, one.ino) for one in own]
        return Listing(entries, (_OWN, own[-1].cookie) if len(own) == limit else None)

    def open(self, ino: int) -> Content:
        if not self._state.is_changed(ino):
            return self._lower.open(ino)
        attr = self.getattr(ino)
        if not S_ISREG(attr.mode):
            raise error(errno.EINVAL)
        return _Bytes(self._state, ino, attr.size)

    def readlink(self, ino: int) -> bytes:
        return attributes.readlink(self._state, self._facts, ino)

    def listxattr(self, ino: int) -> Sequence[bytes]:
        return attributes.listxattr(self._state, self._facts, ino)

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        return attributes.find_value(self._state, self._facts, ino, name)

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return attributes.access_list(self._state, ino, name) if name in acl.NAMES else None

    def statfs(self) -> Usage:
        """What is in the store is used besides."""
        below = self._lower.statfs()
        store = self._state.store
        used = -(-store.used // below.block_size) if store is not None else 0
        return below._replace(blocks=below.blocks + used, files=below.files + self._new, name_max=self.name_max)
