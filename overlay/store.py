"""Where changes live: the contract between the overlay and its stores.

Every operation ends in exactly one `commit` of a Change. A commit happens whole or, if it raises, not at all; a store on
disk makes it survive a crash whole or not at all. The tree itself is always in memory; a store keeps pages and, if it is
on disk, the changes that rebuild the tree.
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, Protocol

from overlay.change import Change
from overlay.history import History
from overlay.pages import Run
from overlay.tree import Tree
from overlay.vfs import Buffer


class Sync(NamedTuple):
    """flush may wait and may run in any thread while commits go on; what was committed after `begin_sync` is not its
    business. number: the store's own."""

    flush: Callable[[], None]
    number: int


class Store(Protocol):
    """Room for pages and the record of changes. Sizes in bytes."""

    @property
    def budget(self) -> int:
        """How much the store may take in all."""
        ...

    @property
    def used(self) -> int:
        """How much it takes now: pages, and the tree where that counts."""
        ...

    def resize(self, budget: int) -> None:
        """A new budget, at once. OSError(ENOSPC) if more is in use, or the room cannot be had."""
        ...

    def load(self, tree: Tree) -> None:
        """Fills an empty tree with what the store holds, and stays bound to it. Called once, before anything else."""
        ...

    def history(self) -> History | None:
        """The copies that `load` found, too; None where they never last."""
        ...

    def commit(self, change: Change) -> None:
        """Makes the change last, puts its bytes into slots and notes in `change.placed` where they are. Raises
        OSError(ENOSPC) or another and has done nothing then. The caller applies the change to the tree next."""
        ...

    def view(self, slot: int, count: int) -> Buffer:
        """The bytes of `count` slots in a row, good until the next commit. May wait for a disk. Raises OSError(EIO) where
        they are not what was written."""
        ...

    def view_now(self, slot: int, count: int) -> Buffer | None:
        """The same, or None where it would have to wait."""
        ...

    def warm(self, slot: int, count: int) -> None:
        """Waits for these slots, so that `view_now` need not. In any thread: who has them meanwhile does not matter."""
        ...

    def copy(self, slot: int, count: int) -> Buffer:
        """The bytes of slots that a frozen copy refers to, in any thread and for good while the copy lives. May wait."""
        ...

    def free(self, runs: Sequence[Run]) -> None:
        """Nothing refers to these slots any more."""
        ...

    def litter(self) -> int:
        """Bytes that it holds for nothing, and that `reclaim` would give back."""
        ...

    def reclaim(self, everything: bool) -> Generator[Callable[[], None], None, None]:
        """Gives back what it holds for nothing: yields calls that may wait and may run in any thread while commits go on;
        the next is asked for when one has returned. everything: as much as can be had."""
        ...

    def begin_sync(self) -> Sync | None:
        """What makes all commits so far safe; None if they are."""
        ...

    def end_sync(self, sync: Sync) -> None:
        """`sync.flush` has returned."""
        ...

    def close(self) -> None:
        """After a last sync. Nothing may follow."""
        ...
