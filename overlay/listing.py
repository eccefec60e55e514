"""Directory handles: the lower's entries that still show, then the overlay's own.

Rules that hold here:
- a cookie names a place for good: . and .. are 1 and 2, the n-th entry of the lower's unchanging listing is n + 3, own
  entries have growing numbers from FIRST_OWN_COOKIE. So entries may come and go between two calls;
- a pass shows own entries only up to the newest one at its start: a program that renames while it lists comes to an end;
- a handle keeps one batch of the lower's listing and a mark per batch to find its way back, never a whole directory.
"""

import errno
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from stat import S_IFDIR, S_IFMT, S_ISDIR

from overlay.lookup import getattr, parent
from overlay.state import State, error
from overlay.tree import FIRST_OWN_COOKIE, Directory
from overlay.vfs import Ask, Attr, DirEntry, Entry, Listing, Steps

BATCH = 128
_FIRST_LOWER = 3
_FIRST_LAST = (1 << 63) - 1


class DirHandle:
    """An open directory and where it is in the lower's listing."""

    __slots__ = ("batch", "end", "first", "ino", "last", "marks")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.last = _FIRST_LAST  # newest own cookie that this pass shows
        self.batch: Sequence[Entry] = ()  # entries number first, first + 1 …
        self.first = 0
        self.end = False  # nothing follows the batch
        self.marks: list[tuple[int, Hashable | None]] = [(0, None)]  # entry number, cursor that leads to it


def opendir(state: State, ino: int) -> Steps[DirHandle]:
    attr = yield from getattr(state, ino)
    if not S_ISDIR(attr.mode):
        raise error(errno.ENOTDIR)
    return DirHandle(ino)


def readdir(state: State, handle: DirHandle, after: int, limit: int) -> Steps[list[DirEntry]]:
    if after == 0:
        directory = state.tree.directory(handle.ino)
        handle.last = directory.last_cookie if directory is not None else FIRST_OWN_COOKIE - 1
    entries: list[DirEntry] = []
    if after < 2:
        here = handle.ino
        if after < 1:
            entries.append((yield from _dot(state, b".", here, 1)))
        above = yield from parent(state, here)
        entries.append((yield from _dot(state, b"..", above, 2)))
        after = 2
    while after < FIRST_OWN_COOKIE - 1 and len(entries) < limit:
        directory = state.tree.directory(handle.ino)
        if (directory is not None and directory.opaque) or not state.is_lower(handle.ino):
            break
        number = after - _FIRST_LOWER + 1
        if not handle.first <= number < handle.first + len(handle.batch):
            if handle.end and number >= handle.first + len(handle.batch):
                break
            yield from _fetch(state, handle, number)
            continue
        after = _lower_entries(state, directory, handle, number, limit, entries)
    if len(entries) < limit:
        directory = state.tree.directory(handle.ino)
        if directory is not None:
            own_after = max(after, FIRST_OWN_COOKIE - 1)
            for own in directory.after(own_after, limit - len(entries), handle.last):
                attr = yield from _attr(state, own.ino)
                kind = S_IFMT(attr.mode) if attr is not None else 0
                entries.append(DirEntry(own.name, own.ino, kind, attr, own.cookie))
    return entries


def _lower_entries(
    state: State, directory: Directory | None, handle: DirHandle, number: int, limit: int, entries: list[DirEntry]
) -> int:
    """Adds what shows of the batch from entry `number` on; the cookie reached."""
    nodes = state.tree.nodes
    hidden = directory.whiteouts if directory is not None else ()
    cookie = number + _FIRST_LOWER - 1
    for entry in handle.batch[number - handle.first :]:
        if len(entries) == limit:
            break
        cookie += 1
        if entry.name in hidden:
            continue
        node = nodes.get(entry.ino)
        attr = entry.attr if node is None else node.attr
        entries.append(DirEntry(entry.name, entry.ino, entry.type, attr, cookie))
    return cookie


def _fetch(state: State, handle: DirHandle, number: int) -> Steps[None]:
    """Brings the batch with entry `number` of the lower into the handle, or the empty one behind the last entry."""
    first, cursor = handle.marks[bisect_right(handle.marks, number, key=lambda mark: mark[0]) - 1]
    while True:
        listing: Listing = yield Ask(state.lower.readdir, (handle.ino, cursor, BATCH))
        handle.batch, handle.first = listing.entries, first
        handle.end = listing.next is None
        following = first + len(listing.entries)
        if not handle.end and following > handle.marks[-1][0]:
            handle.marks.append((following, listing.next))
        if handle.end or number < following:
            return
        first, cursor = following, listing.next


def _dot(state: State, name: bytes, ino: int, cookie: int) -> Steps[DirEntry]:
    return DirEntry(name, ino, S_IFDIR, (yield from _attr(state, ino)), cookie)


def _attr(state: State, ino: int) -> Steps[Attr | None]:
    """None where the object is damaged; the listing goes on without."""
    node = state.tree.nodes.get(ino)
    if node is not None:
        return node.attr
    try:
        attr: Attr = yield Ask(state.lower.getattr, (ino,))
    except Exception:
        return None
    return attr
