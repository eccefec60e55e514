"""Where the lower has an object: its directory and name there, or all of them. Most objects know their place themselves;
nothing leads from one with several names to those, so the first question about such a one reads all of the lower's
directories, once for everybody who was said to be wanted.

Rule: plain calls of the lower that may wait. What was learnt stays known, because the lower never changes, and is then told
without a call.
"""

from collections.abc import Hashable, Iterable, Iterator
from stat import S_ISDIR
from typing import NamedTuple

from overlay.vfs import Entry, Lower

_BATCH = 256
_DEPTH_MAX = 4096


class Place(NamedTuple):
    """A directory of the lower and the name that it lists."""

    parent: int
    name: bytes


class Places:
    """Of one lower."""

    def __init__(self, lower: Lower) -> None:
        self._lower = lower
        self._known: dict[int, list[Place]] = {lower.root: []}
        self._entries_known: dict[Place, Entry | None] = {}
        self._wanted: set[int] = set()
        self._links: dict[int, list[Place]] | None = None

    def want(self, inodes: Iterable[int]) -> None:
        """Somebody will ask for these: said before the first question, it saves a second reading of the directories."""
        more = set(inodes) - self._wanted - self._known.keys()
        if more:
            self._wanted |= more
            self._links = None

    def of(self, ino: int) -> list[Place]:
        """All places of `ino`, which is the lower's; none for the root."""
        known = self._known.get(ino)
        if known is not None:
            return known
        place = self._lower.place(ino)
        if place is not None:
            found = [Place(*place)]
        else:
            self.want((ino,))
            if self._links is None:
                self._links = self._find_links()
            found = self._links.get(ino, [])
        self._known[ino] = found
        return found

    def learn(self, inodes: Iterable[int], names: Iterable[Place] = ()) -> None:
        """Afterwards `of` knows these and every directory above them, and `entry` these names. Of files with several names
        behind such a name `of` knows all, too."""
        waiting = list(inodes)
        for place in names:
            entry = self._entries_known[place] = self._lower.lookup(*place)
            if entry is not None and entry.attr is not None and not S_ISDIR(entry.type) and entry.attr.nlink > 1:
                waiting.append(entry.ino)
        self.want(waiting)
        while waiting:
            waiting += (place.parent for place in self.of(waiting.pop()) if place.parent not in self._known)

    def knows(self, ino: int) -> bool:
        """Whether `of` answers without a call."""
        return ino in self._known

    def knows_entry(self, place: Place) -> bool:
        """Whether `entry` can be asked."""
        return place in self._entries_known

    def entry(self, place: Place) -> Entry | None:
        """What the lower has under a name that was learnt."""
        return self._entries_known[place]

    def path(self, parent: int, name: bytes) -> bytes:
        """From the root, by the first of its places where a directory has several."""
        parts = [name]
        while parent != self._lower.root and len(parts) < _DEPTH_MAX:
            places = self.of(parent) or [Place(self._lower.root, b"?")]
            parent, name = places[0]
            parts.append(name)
        return b"/".join(reversed(parts))

    def _find_links(self) -> dict[int, list[Place]]:
        """Those of the wanted objects: a walk through the lower."""
        found: dict[int, list[Place]] = {}
        waiting = [self._lower.root]
        seen = {self._lower.root}
        while waiting:
            directory = waiting.pop()
            for entry in self._entries(directory):
                if entry.ino in self._wanted:
                    found.setdefault(entry.ino, []).append(Place(directory, entry.name))
                if S_ISDIR(entry.type) and entry.ino not in seen:
                    seen.add(entry.ino)
                    waiting.append(entry.ino)
        return found

    def _entries(self, ino: int) -> Iterator[Entry]:
        """What the lower lists in directory `ino`."""
        after: Hashable | None = None
        while True:
            listing = self._lower.readdir(ino, after, _BATCH)
            yield from listing.entries
            after = listing.next
            if after is None:
                return
