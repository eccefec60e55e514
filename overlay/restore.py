"""One object of the lower back, with everything below it, whatever happened to it, while the rest stays as it is.

Rules that hold here:
- a path is looked up as the lower has it; the directories above must show where the lower has them. A path that the lower
  does not have is looked up as the overlay shows it, so that something in a renamed directory can be named, too;
- the object and what the lower has below it lose every change: names that the overlay gave them, contents, attributes.
  They show where the lower has them, also those that were moved elsewhere. Of a file with several names in the lower only
  those that are asked for come back;
- new objects under these names, or below these directories, are removed. Other objects of the lower that were moved there
  go back to where the lower has them and keep their changes; where that is not possible everything is refused. So a reset
  never loses an object of the lower;
- all of it is one operation. Objects that somebody holds live on as after unlink; whoever has a file of the lower open
  reads the lower's bytes.
"""

import errno
from collections import Counter
from collections.abc import Iterator
from stat import S_ISDIR
from typing import NamedTuple

from overlay.change import Change, Drop, Show, Shut, Unname
from overlay.facts import Facts, Need
from overlay.places import Place, Places
from overlay.reset import Stale, to_lower
from overlay.state import State, changed, touched
from overlay.tree import Own
from overlay.vfs import Attr, Entry


def restore(state: State, facts: Facts, places: Places, path: bytes) -> Stale:
    """`path` is the lower's again; what a kernel must forget. ENOENT for what the lower does not have there, EBUSY where it
    would not fit into what the overlay shows; the message says what to do."""
    state.require_writable()
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise OSError(errno.EINVAL, "write the path without ..")
    if not parts:
        return to_lower(state)
    parent, entry = _find(state, facts, places, parts)
    _learn(state, places, [parent, entry.ino])
    return _Restoring(state, facts, places, parent, entry).commit()


def _learn(state: State, places: Places, inodes: list[int]) -> None:
    """Everything about the lower that the tree as it is now makes necessary to know."""
    inodes = [ino for ino in (*state.tree.nodes, *inodes) if state.is_lower(ino) and not places.knows(ino)]
    names = [place for place in _hidden(state) if not places.knows_entry(place)]
    if inodes or names:
        raise Need(places.learn, (tuple(inodes), tuple(names)), slow=True)


def _hidden(state: State) -> Iterator[Place]:
    for ino in state.tree.nodes:
        directory = state.tree.directory(ino)
        if directory is not None and not directory.opaque:
            yield from (Place(ino, name) for name in directory.whiteouts)


# -- which object ------------------------------------------------------------------------------------------------------


def _find(state: State, facts: Facts, places: Places, parts: list[bytes]) -> tuple[int, Entry]:
    """Directory and entry of the lower."""
    directory = state.lower.root
    moved: bytes | None = None
    for number, name in enumerate(parts, 1):
        entry = facts.lookup(directory, name)
        if entry is None:
            break
        if number == len(parts):
            if moved is not None:
                shown = _shown(moved)
                raise OSError(errno.ENOENT, f"it was in {shown}, which is not the image's any more: reset {shown}")
            return directory, entry
        if not S_ISDIR(entry.type):
            break
        found = state.find(facts, directory, name)
        if moved is None and (found is None or found.ino != entry.ino):
            moved = b"/".join(parts[:number])
        directory = entry.ino
    return _find_shown(state, facts, places, parts)


def _find_shown(state: State, facts: Facts, places: Places, parts: list[bytes]) -> tuple[int, Entry]:
    directory = state.lower.root
    for name in parts[:-1]:
        found = state.find(facts, directory, name)
        if found is None or not S_ISDIR(state.attr(facts, found.ino).mode):
            raise OSError(errno.ENOENT, "the image has nothing there, and nothing is there now")
        directory = found.ino
    entry = facts.lookup(directory, parts[-1]) if state.is_lower(directory) else None
    if entry is not None:
        return directory, entry
    found = state.find(facts, directory, parts[-1])
    if found is None:
        raise OSError(errno.ENOENT, "the image has nothing there, and nothing is there now")
    if state.is_lower(found.ino):
        _learn(state, places, [found.ino])
        origins = places.of(found.ino)
        if origins:
            raise OSError(errno.ENOENT, f"the image has it as {_shown(places.path(*origins[0]))}: reset that")
    raise OSError(errno.ENOENT, "the image has nothing there; what is there now is new, remove it with rm")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


# -- what becomes of the rest ------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """An entry of the overlay's own in a directory."""

    parent: int
    own: Own


class _Restoring:
    """The plan for one object: made whole, with refusals, before anything is done."""

    def __init__(self, state: State, facts: Facts, places: Places, parent: int, entry: Entry) -> None:
        self.state, self.facts, self.places = state, facts, places
        self.tree = state.tree
        self.parent, self.entry = parent, entry
        self.now = state.clock()
        self._inside: dict[int, bool] = {entry.ino: True, state.lower.root: False}
        self.owns: dict[int, list[_Entry]] = {}  # inode → all entries of the overlay's own that lead there
        for ino in self.tree.nodes:
            directory = self.tree.directory(ino)
            for own in directory.added.values() if directory is not None else ():
                self.owns.setdefault(own.ino, []).append(_Entry(ino, own))
        self.back = [ino for ino in self.tree.nodes if state.is_lower(ino) and self.is_inside(ino)]
        self.gone: dict[tuple[int, bytes], _Entry] = {}  # entries that go, by directory and key
        self.lost: Counter[int] = Counter()  # how many names the others lose thereby
        self._lose_names()
        self.homes: dict[int, Place] = {}  # objects of the lower that were in the way
        self.removed: set[int] = set()  # new objects without a name then
        self._place_others()
        self._require_reachable()

    def is_inside(self, ino: int) -> bool:
        """Whether the lower has `ino` as the object or below it."""
        seen: set[int] = set()
        waiting = [ino]
        while waiting:
            one = waiting.pop()
            known = self._inside.get(one)
            if known:
                self._inside[ino] = True
                return True
            if known is None and one not in seen:
                seen.add(one)
                waiting += (place.parent for place in self.places.of(one))
        self._inside |= dict.fromkeys(seen, False)
        return False

    def _lose_names(self) -> None:
        waiting = [own for ino in {*self.back, self.entry.ino} for own in self.owns.get(ino, [])]
        for ino in self.back:
            waiting += self._entries(ino)
        covering = self._own(self.parent, self.entry.name)
        if covering is not None:
            waiting.append(covering)
        while waiting:
            one = waiting.pop()
            key = one.parent, one.own.key
            if key in self.gone:
                continue
            self.gone[key] = one
            ino = one.own.ino
            if self.state.is_lower(ino) and self.is_inside(ino):
                continue
            self.lost[ino] += 1
            if not self.state.is_lower(ino):
                waiting += self._entries(ino)

    def _entries(self, ino: int) -> list[_Entry]:
        directory = self.tree.directory(ino)
        return [] if directory is None else [_Entry(ino, own) for own in directory.added.values()]

    def _own(self, parent: int, name: bytes) -> _Entry | None:
        directory = self.tree.directory(parent)
        own = directory.added.get(self.state.lower.fold(name)) if directory is not None else None
        return None if own is None else _Entry(parent, own)

    def _place_others(self) -> None:
        for ino, count in self.lost.items():
            attr = self.tree.nodes[ino].attr
            if not S_ISDIR(attr.mode) and attr.nlink > count:
                continue
            if not self.state.is_lower(ino):
                self.removed.add(ino)
                continue
            home = next((place for place in self.places.of(ino) if self._is_free(place)), None)
            if home is None:
                origins = self.places.of(ino)
                origin = _shown(self.places.path(*origins[0])) if origins else "something"
                raise OSError(errno.EBUSY, f"{origin} of the image is in the way and cannot go back: move it first")
            self.homes[ino] = home

    def _is_free(self, place: Place) -> bool:
        """Whether the lower's entry can show again."""
        directory = self.tree.directory(place.parent)
        if directory is None or directory.opaque or place.name not in directory.whiteouts:
            return False
        own = self._own(*place)
        return own is None or (own.parent, own.own.key) in self.gone

    # -- where directories are afterwards ------------------------------------------------------------------------------

    def _require_reachable(self) -> None:
        for ino in (self.parent, *(home.parent for home in self.homes.values())):
            if not self._is_reachable(ino):
                raise OSError(
                    errno.EBUSY, "what is there now holds the directory that the image has it in: move it first"
                )

    def _is_reachable(self, ino: int) -> bool:
        seen: set[int] = set()
        above: int | None = ino
        while above is not None and above != self.state.lower.root:
            if above in seen:
                return False
            seen.add(above)
            above = self._above(above)
        return above is not None

    def _above(self, ino: int) -> int | None:
        """The directory that shows directory `ino` afterwards."""
        if ino in self.homes:
            return self.homes[ino].parent
        if ino == self.entry.ino:
            return self.parent
        if self.state.is_lower(ino) and self.is_inside(ino):
            return self.places.of(ino)[0].parent
        for one in self.owns.get(ino, []):
            if (one.parent, one.own.key) not in self.gone:
                return one.parent
        if not self.state.is_lower(ino):
            return None
        return next((place.parent for place in self.places.of(ino) if self._shows(place)), None)

    def _shows(self, place: Place) -> bool:
        """Whether the lower's entry shows afterwards, if its directory does."""
        if place == (self.parent, self.entry.name) or self.is_inside(place.parent):
            return True
        directory = self.tree.directory(place.parent)
        return directory is None or not (directory.opaque or place.name in directory.whiteouts)

    def _links(self, ino: int) -> int:
        """How many names a file of the lower has afterwards that lost all of the overlay's."""
        return sum(self._shows(place) and self._is_reachable(place.parent) for place in self.places.of(ino))

    # -- doing it --------------------------------------------------------------------------------------------------------

    def commit(self) -> Stale:
        change = Change(removing=True)
        items = change.items
        names = {(self.parent, self.entry.name), *self.homes.values()}
        dropped = {*self.back, *self.removed}
        attrs: dict[int, Attr] = {}
        subdirectories: Counter[int] = Counter()
        for one in self.gone.values():
            names.add((one.parent, one.own.name))
            if one.parent not in dropped:
                items.append(Unname(one.parent, one.own.key))
                subdirectories[one.parent] -= self._is_directory(one.own.ino)
        for ino in self.back:
            directory = self.tree.directory(ino)
            names |= {(ino, name) for name in directory.whiteouts} if directory is not None else set()
            items.append(Drop(ino))
        for ino in self.removed:
            if self.state.holds[ino]:
                attrs[ino] = self.tree.nodes[ino].attr._replace(nlink=0)
                items += [Shut(ino)] if self._is_directory(ino) else []
            else:
                items.append(Drop(ino))
        for ino in self.lost.keys() - self.removed:
            links = int(ino in self.homes) - self.lost[ino]
            attr = self.tree.nodes[ino].attr
            attrs[ino] = changed(attr, self.now, links=0 if S_ISDIR(attr.mode) else links)
        for ino, (parent, name) in self.homes.items():
            items.append(Show(parent, name))
            subdirectories[parent] += self._is_directory(ino)
        above = self.tree.directory(self.parent)
        if above is not None and self.entry.name in above.whiteouts and self.parent not in dropped:
            items.append(Show(self.parent, self.entry.name))
            subdirectories[self.parent] += S_ISDIR(self.entry.type)
        for ino, count in subdirectories.items():
            attrs[ino] = touched(attrs.get(ino) or self.state.attr(self.facts, ino), self.now, count)
        for ino in self._linked():
            below = self.facts.getattr(ino)
            links = self._links(ino)
            if links != below.nlink:
                attrs[ino] = below._replace(nlink=links)
        for ino, attr in attrs.items():
            self.state.put(change, attr, self.homes[ino].parent if ino in self.homes and S_ISDIR(attr.mode) else 0)
        if items:
            self.state.commit(change)
        return Stale([*dropped, *(attrs.keys() - dropped)], list(names))

    def _is_directory(self, ino: int) -> bool:
        return S_ISDIR(self.tree.nodes[ino].attr.mode)

    def _linked(self) -> set[int]:
        """Files that come back and of which the lower has several names: some may stay hidden elsewhere."""
        found = {ino for ino in (*self.back, self.entry.ino) if len(self.places.of(ino)) > 1}
        for place in _hidden(self.state):
            entry = self.places.entry(place)
            if entry is not None and entry.ino not in self.tree.nodes and self.places.knows(entry.ino):
                found |= {entry.ino} if self.is_inside(entry.ino) else set()
        return {ino for ino in found if not self._is_folder(ino)}

    def _is_folder(self, ino: int) -> bool:
        return S_ISDIR(self.facts.getattr(ino).mode)
