"""The overlay: a writable tree over a Lower, one method per file system operation. This file is the whole interface; the
work is done in the modules it calls.

Rules that hold here:
- a method that may need the lower returns Steps (a generator of Asks, see `overlay.vfs`); the others are plain;
- every operation is atomic: it changes nothing before its last Ask is answered, and it raises before it changes anything;
- permission checks are the kernel's (default_permissions), also the sticky bit's; the rules of what changes are ours;
- objects are named by inode number. lookup and everything that makes or links an object *hold* it once for the caller,
  who lets go with `forget`; an object without names lives until nobody holds it;
- names are checked when they are made: 1 to 255 bytes. A lower may show longer ones.
"""

import time
from collections.abc import Callable
from contextlib import closing
from stat import S_IFDIR, S_IFLNK
from typing import NamedTuple

from overlay import attributes, contents, listing, lookup, names, reset, snapshots
from overlay.extents import Extent, extents
from overlay.frozen import Reader
from overlay.history import History
from overlay.listing import DirHandle
from overlay.places import Places
from overlay.reset import Stale
from overlay.restore import restore
from overlay.state import State
from overlay.store import Store
from overlay.survey import Survey
from overlay.tree import Tree
from overlay.vfs import Ask, Attr, Buffer, Caller, Content, DirEntry, Entry, Lower, Steps, Usage

_LITTER_MIN = 16 << 20


class Overlay:
    """`store` None: read-only, every change is EROFS, until `attach` gives it one."""

    def __init__(self, lower: Lower, store: Store | None = None, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._state = State(lower, store, clock)
        self._handles: dict[int, DirHandle] = {}
        self._next_handle = 1

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def root(self) -> int:
        """Inode number of the root (the lower's)."""
        return self._state.lower.root

    @property
    def lower(self) -> Lower:
        """What it is over."""
        return self._state.lower

    @property
    def writable(self) -> bool:
        """Whether it has a store."""
        return self._state.store is not None

    @property
    def store(self) -> Store | None:
        """Where changes go."""
        return self._state.store

    @property
    def held(self) -> list[int]:
        """The inodes that the kernel knows."""
        return list(self._state.holds)

    def is_lower(self, ino: int) -> bool:
        """Whether the number is one of the lower's."""
        return self._state.is_lower(ino)

    def count(self) -> dict[str, int]:
        """How much is changed: objects, and the pages that they take in the store."""
        return self._state.tree.count()

    def count_snapshots(self) -> tuple[int, int]:
        """How many there are, and the pages that only copies of what was refer to."""
        history = self._state.history
        return len(history.snapshots), history.keeps.pages

    def attach(self, store: Store, tree: Tree | None = None) -> None:
        """Late shadow: a read-only overlay becomes writable. tree: what `store.load` filled already (elsewhere, because
        that may wait for a disk). OSError(EBUSY) if it is writable."""
        self._state.attach(store, tree)

    def freeze(self) -> "Frozen":
        """What it is now, readable while this one goes on. ENOSPC. Must be given to `thaw`."""
        moment = self._state.freeze()
        view = self._view(moment)
        view._state.history = self._state.history.seen_from(moment)
        return Frozen(view, moment)

    def _view(self, moment: int) -> "Overlay":
        state = self._state
        view = Overlay(state.lower)
        view._state.tree = state.history.frozen[moment]
        view._state.store = Reader(state.store) if state.store is not None else None
        return view

    def thaw(self, frozen: "Frozen") -> None:
        """Lets a frozen overlay go."""
        self._state.thaw(frozen.moment)

    def snapshot(self, name: bytes) -> None:
        """Keeps what it is now under a name; with a store on disk, for good. EROFS, EEXIST, ENOSPC."""
        snapshots.make(self._state, name)

    def delete_snapshot(self, name: bytes) -> None:
        """ENOENT."""
        snapshots.delete(self._state, name)

    def rollback(self, name: bytes) -> Stale:
        """Everything is as it was when the snapshot was made, which stays; what a kernel must forget. ENOENT."""
        return snapshots.rollback(self._state, name)

    def snapshots(self) -> "dict[bytes, Taken]":
        """All of them, oldest first."""
        found = self._state.history.snapshots.items()
        return {name: Taken(one.made_ns, self._view(one.moment)) for name, one in found}

    def reset(self) -> Stale:
        """All changes are taken back; what a kernel must forget. EROFS."""
        return reset.to_lower(self._state)

    def restore(self, path: bytes) -> Steps[Stale]:
        """One object, with all that is below it, is the lower's again (`overlay.restore`); what a kernel must forget.
        EROFS, ENOENT, EBUSY."""
        return self._state.steps(restore, Places(self._state.lower), path)

    @property
    def tree(self) -> Tree:
        """What is changed, to be read only."""
        return self._state.tree

    @property
    def history(self) -> History:
        """That and what it was at snapshots, to be read only."""
        return self._state.history

    def changes(self) -> Survey:
        """What differs from the lower, found without a look at what does not. Only of a frozen or read-only overlay: the
        survey is for reading at leisure, with plain calls that may wait."""
        return Survey(self._state)

    def close(self) -> None:
        """Everything to the store and the store closed. No operation may follow."""
        if self._state.store is not None:
            self._state.store.close()

    def hold(self, ino: int, count: int = 1) -> None:
        """The kernel got `ino` in another way than lookup and make (an accepted readdirplus entry, not . or ..)."""
        self._state.holds.take(ino, count)

    def forget(self, ino: int, count: int = 1) -> None:
        """The kernel lets go of `count` holds. The last one of an object without names frees it."""
        state = self._state
        if state.holds.drop(ino, count):
            return
        node = state.tree.nodes.get(ino)
        if node is not None and not node.attr.nlink:
            state.drop(ino)

    # -- finding and attributes ------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Steps[Entry]:
        """The object behind a name, with its attributes, held once (not for . and ..). `Entry.name` is the spelling
        that readdir shows; it differs from `name` where the volume folds names. ENOENT, ENOTDIR, ENAMETOOLONG."""
        return lookup.lookup(self._state, parent, name)

    def getattr(self, ino: int) -> Steps[Attr]:
        return lookup.getattr(self._state, ino)

    def setattr(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        now: bool = False,
    ) -> Steps[Attr]:
        """None: leave. mode: permission bits only. `now`: the current time for those of atime, mtime that are not None.
        chown clears the set-id bits of a file unless `mode` says otherwise; ctime always moves. EISDIR, EINVAL, EFBIG."""
        return self._state.steps(
            attributes.setattr,
            ino,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            atime_ns=atime_ns,
            mtime_ns=mtime_ns,
            now=now,
        )

    def readlink(self, ino: int) -> Steps[bytes]:
        """EINVAL if it is no symbolic link."""
        return self._state.steps(attributes.readlink, ino)

    # -- directories -------------------------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Steps[int]:
        """A directory handle for readdir and releasedir. ENOTDIR."""
        opened = yield from listing.opendir(self._state, ino)
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = opened
        return handle

    def readdir(self, handle: int, after: int, limit: int = 128) -> Steps[list[DirEntry]]:
        """Up to `limit` entries after cookie `after` (0: from the start), . and .. first; fewer only at the end.
        Cookies stay good under any change; a rewound or far-jumped handle works. Nothing is held: call `hold` for
        those entries that the kernel accepted."""
        return listing.readdir(self._state, self._handles[handle], after, limit)

    def releasedir(self, handle: int) -> None:
        self._handles.pop(handle, None)

    # -- contents ----------------------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int = 0) -> Steps[None]:
        """Call before reads and writes, and `release` as often. O_TRUNC in `flags` truncates. EROFS for writing in a
        read-only overlay, EISDIR, ELOOP for a symbolic link."""
        return contents.open_soon(self._state, ino, flags)

    def release(self, ino: int) -> None:
        contents.release(self._state, ino)

    def plain(self, ino: int) -> Content | None:
        """The lower's content if `ino` is open and its bytes are exactly those of the lower, else None. A driver may
        then read it directly (clipped to its size) and skip `read`. Ask anew for every read: a write changes it."""
        opened = self._state.opened.get(ino)
        return None if opened is None or self._state.is_changed(ino) else opened.content

    def is_changed(self, ino: int) -> bool:
        """Whether the bytes of `ino` are not simply the lower's."""
        return self._state.is_changed(ino)

    def content(self, ino: int) -> Steps[Content]:
        """The lower's bytes of an unchanged file, which need not be open."""
        return contents.content(self._state, ino)

    def read(self, ino: int, offset: int, length: int) -> Steps[Buffer]:
        """Less than `length` bytes only at the end of the file. The buffer may be a view of the store: use it before the
        next operation."""
        return contents.read(self._state, ino, offset, length)

    def extents(self, ino: int, gap: int = 1) -> Steps[list[Extent]]:
        """Where a regular file may hold anything but zeros, told without reading it; of two extents with less than `gap`
        bytes between them one is made."""
        return self._state.steps(extents, ino, gap)

    def write(self, ino: int, offset: int, data: bytes, *, clear_setid: bool = False) -> Steps[int]:
        """All or nothing: the length of `data`, or ENOSPC, EFBIG. `clear_setid`: drop set-user-id and, of executables,
        set-group-id (where the kernel has not done so already)."""
        return self._state.steps(contents.write, ino, offset, data, clear_setid)

    def fsync(self) -> Steps[None]:
        """Everything that has happened so far is safe in the store."""
        store = self._state.store
        sync = store.begin_sync() if store is not None else None
        if store is not None and sync is not None:
            yield Ask(sync.flush, (), slow=True)
            store.end_sync(sync)

    def reclaim(self, *, everything: bool = False) -> Steps[None]:
        """What the store holds for nothing is given back, in steps between which everything goes on. everything: as much
        as can be had; otherwise only if it is worth it, and nothing happens then most of the time."""
        store = self._state.store
        if store is None or not (everything or store.litter() >= max(_LITTER_MIN, store.used // 8)):
            return
        with closing(store.reclaim(everything)) as works:
            for work in works:
                try:
                    yield Ask(work, (), slow=True)
                except Exception as error:
                    works.throw(error)

    # -- making and removing names -------------------------------------------------------------------------------------

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Steps[Attr]:
        """open(O_CREAT): a new regular file, opened and held; with an existing name EEXIST if O_EXCL is in `flags`,
        otherwise that file, opened and held."""
        return self._state.steps(names.create, parent, name, mode, flags, caller)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Steps[Attr]:
        """File, device, FIFO or socket, held. `mode` with type; the caller's umask is applied here."""
        return self._state.steps(names.make, parent, name, mode, caller, rdev)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Steps[Attr]:
        return self._state.steps(names.make, parent, name, S_IFDIR | mode & 0o7777, caller)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Steps[Attr]:
        return self._state.steps(names.make, parent, name, S_IFLNK | 0o777, caller, 0, target)

    def link(self, ino: int, parent: int, name: bytes) -> Steps[Attr]:
        """Another name for `ino`, held once more. EPERM for directories, ENOENT for an object without names."""
        return self._state.steps(names.link, ino, parent, name)

    def unlink(self, parent: int, name: bytes) -> Steps[None]:
        return self._state.steps(names.unlink, parent, name)

    def rmdir(self, parent: int, name: bytes) -> Steps[None]:
        return self._state.steps(names.rmdir, parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Steps[None]:
        """flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL for others and for a directory into itself."""
        return self._state.steps(names.rename, parent, name, new_parent, new_name, flags)

    # -- extended attributes -------------------------------------------------------------------------------------------

    def listxattr(self, ino: int) -> Steps[list[bytes]]:
        return self._state.steps(attributes.listxattr, ino)

    def getxattr(self, ino: int, name: bytes) -> Steps[bytes]:
        """ENODATA if there is none."""
        return attributes.getxattr(self._state, ino, name)

    def setxattr(
        self, ino: int, name: bytes, value: bytes, flags: int = 0, caller: Caller | None = None
    ) -> Steps[None]:
        """flags: 0, XATTR_CREATE (EEXIST) or XATTR_REPLACE (ENODATA). E2BIG above 64 KiB, ERANGE for long names. An
        access control list (`overlay.acl`) changes the permission bits with it; EINVAL for one that makes no sense."""
        return self._state.steps(attributes.setxattr, ino, name, value, flags, caller)

    def removexattr(self, ino: int, name: bytes) -> Steps[None]:
        return self._state.steps(attributes.removexattr, ino, name)

    # -- space -----------------------------------------------------------------------------------------------------------

    def statfs(self) -> Steps[Usage]:
        """What the lower uses plus the store's room; free is what the store still takes."""
        return lookup.statfs(self._state)


class Frozen(NamedTuple):
    """view: to be read like any overlay. moment: by which the live one knows it."""

    view: Overlay
    moment: int


class Taken(NamedTuple):
    """A snapshot. made_ns: when. view: to be read like any overlay for as long as the snapshot is not deleted."""

    made_ns: int
    view: Overlay
