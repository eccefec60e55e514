"""What an operation does to the tree: a short list of items, made whole before anything happens, then committed by the
store and applied to the tree in one piece. The same items, read back from a file, rebuild the tree.

Items are absolute ("this name leads to that inode"), so a list applies exactly once and in order. Nothing here knows how
a store keeps them.
"""

from collections.abc import Callable
from typing import NamedTuple

from overlay.pages import Run
from overlay.vfs import Attr, Buffer


class Put(NamedTuple):
    """The attributes of an inode, new or known. `parent`: of a directory that is new or was moved, else 0."""

    attr: Attr
    parent: int


class Drop(NamedTuple):
    """Nobody can reach this inode any more: forget everything about it."""

    ino: int


class Name(NamedTuple):
    """Directory `parent` shows `name` (whose folded form is `key`) for `ino`; replaces what the overlay had under `key`."""

    parent: int
    key: bytes
    name: bytes
    ino: int


class Unname(NamedTuple):
    """The overlay's own entry `key` goes."""

    parent: int
    key: bytes


class White(NamedTuple):
    """The lower's entry that is listed as `name` is hidden for good."""

    parent: int
    name: bytes


class Show(NamedTuple):
    """The lower's entry that is listed as `name` shows again. Nothing of the overlay's own may be under that name."""

    parent: int
    name: bytes


class Shut(NamedTuple):
    """A directory was removed: it is empty for ever."""

    ino: int


class Target(NamedTuple):
    """Where a new symbolic link leads."""

    ino: int
    target: bytes


class Xattr(NamedTuple):
    """An extended attribute; None: it is gone, also where the lower has it."""

    ino: int
    name: bytes
    value: bytes | None


class Limit(NamedTuple):
    """From here on the lower's bytes of a file are dead. The first one makes the file's content ours."""

    ino: int
    limit: int


class Inline(NamedTuple):
    """All bytes of a small file that nothing of the lower shows in (zeros follow up to its size); None: it has outgrown
    this and lives in pages."""

    ino: int
    data: bytes | None


class Cutoff(NamedTuple):
    """The pages from `page` on are holes."""

    ino: int
    page: int


class Mark(NamedTuple):
    """Pages that become HOLE or ZERO (`run.slot` says which)."""

    ino: int
    run: Run


class Fill(NamedTuple):
    """`length` whole pages of bytes. The store finds slots for them and says which in `Change.placed`."""

    ino: int
    page: int
    length: int
    data: Buffer


class Patch(NamedTuple):
    """Bytes inside a page that has a slot already."""

    ino: int
    page: int
    start: int
    data: Buffer


class Place(NamedTuple):
    """Where a store put pages: what Fill and Patch became."""

    ino: int
    run: Run


class Keep(NamedTuple):
    """What the tree is now stays known under a name (a snapshot). Like the next two: the last item of its change."""

    made_ns: int
    name: bytes


class Unkeep(NamedTuple):
    """A snapshot is let go."""

    name: bytes


class GoBack(NamedTuple):
    """The tree is again what it was when this snapshot was made, but for nodes that the snapshot does not have."""

    name: bytes


Item = (
    Put
    | Drop
    | Name
    | Unname
    | White
    | Show
    | Shut
    | Target
    | Xattr
    | Limit
    | Inline
    | Cutoff
    | Mark
    | Fill
    | Patch
    | Place
    | Keep
    | Unkeep
    | GoBack
)


class Change:
    """items: in order. weight: bytes of memory it may add at most, pages not counted. new_pages: slots it needs if pages
    that have one are written in place. removing: the change frees something sooner or later, so it may use the last
    reserve of the budget. shared: tells of a slot whether it must stay as it is because a frozen copy has it, too; None:
    there are none. placed: filled in by the store, where pages went that were moved or are new."""

    __slots__ = ("items", "new_pages", "placed", "removing", "shared", "weight")

    def __init__(self, removing: bool = False) -> None:
        self.items: list[Item] = []
        self.weight = 0
        self.new_pages = 0
        self.removing = removing
        self.shared: Callable[[int], bool] | None = None
        self.placed: list[Place] = []
