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

from overlay.store import Store
from overlay.vfs import Attr, Buffer, Caller, Content, DirEntry, Entry, Lower, Steps, Usage

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
XATTR_CREATE = 1
XATTR_REPLACE = 2


class Overlay:
    """`store` None: read-only, every change is EROFS, until `attach` gives it one."""

    def __init__(self, lower: Lower, store: Store | None = None, *, clock: Callable[[], int] = time.time_ns) -> None:
        raise NotImplementedError

    # -- life ----------------------------------------------------------------------------------------------------

    @property
    def root(self) -> int:
        """Inode number of the root (the lower's)."""
        raise NotImplementedError

    @property
    def writable(self) -> bool: ...  # type: ignore[empty-body]

    def attach(self, store: Store) -> None:
        """Late shadow: a read-only overlay becomes writable. OSError(EBUSY) if it is already."""
        raise NotImplementedError

    def close(self) -> None:
        """Everything to the store and the store closed. No operation may follow."""
        raise NotImplementedError

    def hold(self, ino: int, count: int = 1) -> None:
        """The kernel got `ino` in another way than lookup and make (an accepted readdirplus entry, not . or ..)."""
        raise NotImplementedError

    def forget(self, ino: int, count: int = 1) -> None:
        """The kernel lets go of `count` holds. The last one of an object without names frees it."""
        raise NotImplementedError

    # -- finding and attributes ------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Steps[Entry]:
        """The object behind a name, with its attributes, held once (not for . and ..). `Entry.name` is the spelling
        that readdir shows; it differs from `name` where the volume folds names. ENOENT, ENOTDIR, ENAMETOOLONG."""
        raise NotImplementedError

    def getattr(self, ino: int) -> Steps[Attr]:
        raise NotImplementedError

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
        raise NotImplementedError

    def readlink(self, ino: int) -> Steps[bytes]:
        """EINVAL if it is no symbolic link."""
        raise NotImplementedError

    # -- directories -------------------------------------------------------------------------------------------------

    def opendir(self, ino: int) -> Steps[int]:
        """A directory handle for readdir and releasedir. ENOTDIR."""
        raise NotImplementedError

    def readdir(self, handle: int, after: int, limit: int = 128) -> Steps[list[DirEntry]]:
        """Up to `limit` entries after cookie `after` (0: from the start), . and .. first; an empty list at the end.
        Cookies stay good under any change; a rewound or far-jumped handle works. Nothing is held: call `hold` for
        those entries that the kernel accepted."""
        raise NotImplementedError

    def releasedir(self, handle: int) -> None:
        raise NotImplementedError

    # -- contents ----------------------------------------------------------------------------------------------------

    def open(self, ino: int, flags: int = 0) -> Steps[None]:
        """Call before reads and writes, and `release` as often. O_TRUNC in `flags` truncates. EROFS for writing in a
        read-only overlay, EISDIR, ELOOP for a symbolic link."""
        raise NotImplementedError

    def release(self, ino: int) -> None:
        raise NotImplementedError

    def plain(self, ino: int) -> Content | None:
        """The lower's content if `ino` is open and its bytes are exactly those of the lower, else None. A driver may
        then read it directly (clipped to its size) and skip `read`. Ask anew for every read: a write changes it."""
        raise NotImplementedError

    def read(self, ino: int, offset: int, length: int) -> Steps[Buffer]:
        """Less than `length` bytes only at the end of the file. The buffer may be a view of the store: use it before the
        next operation."""
        raise NotImplementedError

    def write(self, ino: int, offset: int, data: bytes, *, clear_setid: bool = False) -> Steps[int]:
        """All or nothing: the length of `data`, or ENOSPC, EFBIG. `clear_setid`: drop set-user-id and, of executables,
        set-group-id (where the kernel has not done so already)."""
        raise NotImplementedError

    def fsync(self, ino: int | None = None) -> None:
        """Everything about `ino` (None: everything) is safe in the store. May block in a store on disk."""
        raise NotImplementedError

    # -- making and removing names -------------------------------------------------------------------------------------

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Steps[Attr]:
        """open(O_CREAT): a new regular file, opened and held; with an existing name EEXIST if O_EXCL is in `flags`,
        otherwise that file, opened and held."""
        raise NotImplementedError

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Steps[Attr]:
        """File, device, FIFO or socket, held. `mode` with type; the caller's umask is applied here."""
        raise NotImplementedError

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Steps[Attr]:
        raise NotImplementedError

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Steps[Attr]:
        raise NotImplementedError

    def link(self, ino: int, parent: int, name: bytes) -> Steps[Attr]:
        """Another name for `ino`, held once more. EPERM for directories, ENOENT for an object without names."""
        raise NotImplementedError

    def unlink(self, parent: int, name: bytes) -> Steps[None]:
        raise NotImplementedError

    def rmdir(self, parent: int, name: bytes) -> Steps[None]:
        raise NotImplementedError

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> Steps[None]:
        """flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE; EINVAL for others and for a directory into itself."""
        raise NotImplementedError

    # -- extended attributes -------------------------------------------------------------------------------------------

    def listxattr(self, ino: int) -> Steps[list[bytes]]:
        raise NotImplementedError

    def getxattr(self, ino: int, name: bytes) -> Steps[bytes]:
        """ENODATA if there is none."""
        raise NotImplementedError

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> Steps[None]:
        """flags: 0, XATTR_CREATE (EEXIST) or XATTR_REPLACE (ENODATA). E2BIG above 64 KiB, ERANGE for long names."""
        raise NotImplementedError

    def removexattr(self, ino: int, name: bytes) -> Steps[None]:
        raise NotImplementedError

    # -- space -----------------------------------------------------------------------------------------------------------

    def statfs(self) -> Steps[Usage]:
        """What the lower uses plus the store's room; free is what the store still takes."""
        raise NotImplementedError
