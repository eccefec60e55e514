"""An overlay as it was at one moment, to be read while the live one goes on: for comparing, exporting, saving, and for
snapshots. Made by `Overlay.freeze` in constant memory per changed object; pages are shared, not copied.

Rule: a frozen overlay may be read in any one thread (its lower's and its store's reads are thread-safe); it is made and let
go on the thread of the live one only.
"""

import errno
import os
from collections.abc import Callable, Generator, Sequence

from overlay.change import Change
from overlay.history import History
from overlay.pages import Run
from overlay.store import Store, Sync
from overlay.tree import Tree
from overlay.vfs import Buffer


class Reader:
    """A store that only gives bytes: those of `store`. A Store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.budget = store.budget
        self.used = store.used

    def resize(self, budget: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def load(self, tree: Tree) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def history(self) -> History | None:
        return None

    def commit(self, change: Change) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def view(self, slot: int, count: int) -> Buffer:
        return self._store.copy(slot, count)

    view_now = view

    copy = view

    def warm(self, slot: int, count: int) -> None:
        """`view` never has to wait."""

    def free(self, runs: Sequence[Run]) -> None:
        return None

    def litter(self) -> int:
        return 0

    def reclaim(self, everything: bool) -> Generator[Callable[[], None], None, None]:
        yield from ()

    def begin_sync(self) -> Sync | None:
        return None

    def end_sync(self, sync: Sync) -> None:
        return None

    def close(self) -> None:
        return None
