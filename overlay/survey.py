"""Where in the merged tree the changed objects are: the ground of comparing and exporting. Looks at what changed and at
the places of that in the lower (`overlay.places`), not at the rest.

Rule: works on a tree that does not change, with plain calls of the lower that may wait. Paths are relative to the root,
b"" is the root itself.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from overlay.places import Place, Places
from overlay.state import State
from overlay.tree import Node
from overlay.vfs import Attr, Entry


class Name(NamedTuple):
    """A visible name: directory, name, inode. own: the overlay's entry, else the lower's."""

    parent: int
    name: bytes
    ino: int
    own: bool


class Survey:
    """Of one state of an overlay."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.lower = state.lower
        self.tree = state.tree
        self._own: dict[int, list[Name]] = {}
        for ino, node in self.tree.nodes.items():
            directory = self.tree.directory(ino)
            if directory is not None and node.attr.nlink:
                for own in directory.added.values():
                    self._own.setdefault(own.ino, []).append(Name(ino, own.name, own.ino, True))
        self._paths: dict[int, bytes | None] = {self.lower.root: b""}
        self._places = Places(self.lower)
        self._places.want(ino for ino in self.tree.nodes if state.is_lower(ino))

    # -- names of the lower ------------------------------------------------------------------------------------------

    def lower_names(self, ino: int) -> list[Place]:
        """All names that the lower has for `ino`."""
        return self._places.of(ino) if self.state.is_lower(ino) else []

    def want(self, inodes: AbstractSet[int]) -> None:
        """Somebody will ask for the names of these, too."""
        self._places.want(inodes)

    def lower_path(self, parent: int, name: bytes) -> bytes:
        """Where the lower has it."""
        return self._places.path(parent, name)

    # -- names that show ---------------------------------------------------------------------------------------------

    def is_shown(self, parent: int, name: bytes) -> bool:
        """Whether the lower's entry `name` of directory `parent` shows, in a directory that does."""
        directory = self.tree.directory(parent)
        if directory is not None and (directory.opaque or name in directory.whiteouts):
            return False
        return self.path(parent) is not None

    def names(self, ino: int) -> list[Name]:
        """All names that show for `ino`."""
        own = [name for name in self._own.get(ino, []) if self.path(name.parent) is not None]
        shown = [place for place in self.lower_names(ino) if self.is_shown(*place)]
        return own + [Name(parent, name, ino, False) for parent, name in shown]

    def path(self, ino: int) -> bytes | None:
        """The path of directory `ino`; None if nothing leads to it any more."""
        chain: list[int] = []
        while ino not in self._paths and ino not in chain and len(chain) < 4096:
            chain.append(ino)
            above = self._above(ino)
            if above is None:
                break
            ino = above[0]
        for child in reversed(chain):
            above = self._above(child)
            upper = self._paths.get(above[0]) if above is not None else None
            self._paths[child] = None if above is None or upper is None else join(upper, above[1])
        return self._paths.get(chain[0] if chain else ino)

    def _above(self, ino: int) -> tuple[int, bytes] | None:
        """Directory and name of the one entry that shows directory `ino`."""
        for own in self._own.get(ino, []):
            return own.parent, own.name
        for parent, name in self.lower_names(ino):
            directory = self.tree.directory(parent)
            if directory is None or not (directory.opaque or name in directory.whiteouts):
                return parent, name
        return None

    def above(self, ino: int) -> int:
        """The directory that shows directory `ino`; the root shows itself."""
        place = self._above(ino)
        return self.lower.root if place is None else place[0]

    # -- objects -----------------------------------------------------------------------------------------------------

    def attr(self, ino: int) -> Attr:
        """As it is now."""
        node = self.tree.nodes.get(ino)
        return node.attr if node is not None else self.lower.getattr(ino)

    def living(self) -> Iterator[tuple[int, Node]]:
        """Changed and new objects that have a name."""
        for ino, node in self.tree.nodes.items():
            if node.attr.nlink:
                yield ino, node

    def hidden(self, ino: int) -> Iterator[Entry]:
        """The entries of the lower that do not show any more in directory `ino` (which itself shows)."""
        directory = self.tree.directory(ino)
        if directory is None or not self.state.is_lower(ino):
            return
        for name in directory.whiteouts:
            entry = self.lower.lookup(ino, name)
            if entry is not None:
                yield entry


def join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name
