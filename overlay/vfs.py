"""The vocabulary of the overlay: what a file system object looks like, what is needed from below, how slow work is asked
for. Nothing here does anything.

Rules that hold in the whole library:
- a Lower is immutable by contract; that is what makes every cache above it correct;
- the overlay does no I/O of its own on the lower. An operation that needs the lower is a generator which yields an `Ask`
  and is resumed with the answer (or with the exception). A driver fulfils it: `run` below does so at once; the FUSE
  driver fulfils it inline when the bytes are in memory and elsewhere when not;
- between two yields an operation is atomic: it runs on one thread, so there are no locks. After a yield it must check
  again what it assumed before;
- errors of ours are OSError with an errno; errors of the lower pass through untouched.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")

Buffer = bytes | bytearray | memoryview

FIRST_NEW_INODE = 1 << 32
"""Inode numbers of the lowest lower are below this, those of new objects start here. They never change."""

LAYER_INODES = 1 << 40
"""So many numbers has each overlay of a stack for its new objects: nothing depends on how many a lower one has given."""


class Attr(NamedTuple):
    """What stat() shows. size in bytes, blocks in 512-byte units, times in nanoseconds since 1970 (negative: before).
    btime_ns: creation. A directory's nlink is 2 + its subdirectories, or 1 where the lower does not know."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int


class Entry(NamedTuple):
    """One name of a directory. `attr` is None where the object behind the name is damaged: the name is listed all the
    same, and getattr of `ino` raises. `type` is the S_IFMT part of the mode."""

    name: bytes
    ino: int
    type: int
    attr: Attr | None


class Listing(NamedTuple):
    """A part of a directory in the lower's own, unchanging order. `next` is where to go on, None at the end."""

    entries: Sequence[Entry]
    next: Hashable | None


class DirEntry(NamedTuple):
    """One line of the overlay's own readdir. `next` is the cookie that continues after this entry (above 0, below 2^63).
    `attr` is None where the object is damaged: it is listed all the same. . and .. are among the entries."""

    name: bytes
    ino: int
    type: int
    attr: Attr | None
    next: int


class Usage(NamedTuple):
    """What statfs() shows: sizes in units of `block_size` bytes."""

    block_size: int
    blocks: int
    free_blocks: int
    files: int
    free_files: int
    name_max: int


class Caller(Protocol):
    """Who asks. pyfuse3's request context has this shape."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def umask(self) -> int: ...


class Content(Protocol):
    """The bytes of a lower file. Exact, positional, thread-safe reads; immutable."""

    @property
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> Buffer: ...
    def cold(self, offset: int, length: int) -> Sequence[Any]: ...


class Lower(Protocol):
    """The read-only tree below. Every method is a function of its arguments for ever, and may be called again with the
    same arguments after an exception. Objects are named by inode number."""

    @property
    def root(self) -> int: ...

    @property
    def end_ino(self) -> int:
        """All its inode numbers are below this, those of new objects above it begin here."""
        ...

    @property
    def name_max(self) -> int:
        """Longest name in bytes that the lower itself may show; new names are limited to 255 by the overlay."""
        ...

    def fold(self, name: bytes) -> bytes:
        """A key under which all spellings of one name are equal: the identity on a case-sensitive volume whose names
        need no normalisation. Pure arithmetic, never slow."""
        ...

    def getattr(self, ino: int) -> Attr: ...

    def parent(self, ino: int) -> int:
        """The directory that holds directory `ino`; the root's is the root. Where a directory has several names, the
        parent of any one of them, always the same."""
        ...

    def place(self, ino: int) -> tuple[int, bytes] | None:
        """The directory that lists `ino` and the name it has there; None if that is not one place (the root, hard links),
        or not known."""
        ...

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        """The entry that `name` finds, with the spelling that readdir shows; None if there is none."""
        ...

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        """Up to `limit` entries, perhaps none, after the cursor of an earlier listing (None: from the start), without .
        and .."""
        ...

    def open(self, ino: int) -> Content:
        """The bytes of a regular file. Its `size` is that of getattr."""
        ...

    def readlink(self, ino: int) -> bytes: ...

    def listxattr(self, ino: int) -> Sequence[bytes]: ...

    def getxattr(self, ino: int, name: bytes) -> bytes | None: ...

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        """One of the `overlay.acl` lists, None where there is none. Never slow, never fails: it is asked for in the middle
        of operations. Only overlays keep such lists."""
        ...

    def statfs(self) -> Usage: ...


class Ask(NamedTuple):
    """A call that an operation waits for: `function(*arguments)`. May be made more than once. slow: it waits for a disk, a
    driver that must not wait makes it in another thread."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    slow: bool = False


Steps = Generator[Ask, Any, T]
"""An operation under way: yields Asks, returns T."""


def run(steps: Steps[T]) -> T:
    """The simplest driver: every Ask is fulfilled at once, in this thread. For tests and for verbs without a mount."""
    try:
        ask = next(steps)
        while True:
            try:
                answer = ask.function(*ask.arguments)
            except Exception as error:
                ask = steps.throw(error)
            else:
                ask = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
