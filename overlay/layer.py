"""The changes of an overlay as a layer of an OCI image: what to put over the lower to get what the overlay shows.

Rules that hold here:
- a name of the lower that is gone is an empty file `.wh.NAME` beside where it was; a directory that hides all of the
  lower's directory of the same name holds a file `.wh..wh..opq`;
- a layer cannot say "renamed": what was moved is there again, whole, under its new path;
- all names of a changed object are there, the second and later ones as hard links to the first: a layer that had one of
  them only would break the link;
- directories come before what is in them, and every directory above something is there, too.
"""

from collections.abc import Iterator
from stat import S_ISDIR
from typing import NamedTuple

from overlay.overlay import Overlay
from overlay.survey import Name, Survey, join
from overlay.vfs import Attr, run

GONE = b".wh."
OPAQUE = b".wh..wh..opq"
_BATCH = 256


class Member(NamedTuple):
    """attr None: an empty file that stands for something gone. link: the earlier path of the same object."""

    path: bytes
    attr: Attr | None
    link: bytes | None


def layer(view: Overlay) -> Iterator[Member]:
    """Of an overlay that does not change meanwhile (`Overlay.freeze`, or a store opened for reading)."""
    return _Layer(view).members()


class _Layer:
    def __init__(self, view: Overlay) -> None:
        self._view = view
        self._survey = view.changes()
        self._first: dict[int, bytes] = {}  # of objects with several names: the path that is out already

    def members(self) -> Iterator[Member]:
        survey = self._survey
        moved, places = self._places(survey)
        whole: bytes | None = None
        for path in sorted(places, key=lambda path: path.split(b"/")):
            if whole is not None and path.startswith(whole):
                continue
            ino = places[path]
            if path in moved:
                yield from self._tree(path, ino, opaque=moved[path])
                whole = path + b"/"
                continue
            yield self._member(path, survey.attr(ino))
            directory = survey.tree.directory(ino)
            if directory is not None and not directory.opaque:
                spellings = {own.name for own in directory.added.values()}
                for name in sorted(directory.whiteouts - spellings):
                    yield Member(join(path, GONE + name), None, None)

    def _places(self, survey: Survey) -> tuple[dict[bytes, bool], dict[bytes, int]]:
        """Paths of directories that are not where the lower has them (True: the lower has another one there); all paths of
        changed objects, and of the directories above, with their inodes."""
        moved: dict[bytes, bool] = {}
        places: dict[bytes, int] = {}
        if self._view.root in survey.tree.nodes:
            places[b""] = self._view.root
        for ino, _ in survey.living():
            for name in survey.names(ino):
                path = self._add(survey, places, name)
                if name.own and S_ISDIR(survey.attr(ino).mode):
                    directory = survey.tree.directory(name.parent)
                    hidden = directory is not None and name.name in directory.whiteouts
                    entry = survey.lower.lookup(name.parent, name.name) if hidden else None
                    if entry is None or entry.ino != ino:  # otherwise it is back in its place
                        moved[path] = entry is not None and S_ISDIR(entry.type)
        linked = {attr.ino for path in moved for attr in self._linked(places[path])} - survey.tree.nodes.keys()
        survey.want(linked)
        for ino in linked:
            for name in survey.names(ino):
                self._add(survey, places, name)
        return moved, places

    def _linked(self, ino: int) -> Iterator[Attr]:
        """The objects below a directory that have names elsewhere, perhaps."""
        waiting = [ino]
        while waiting:
            for _, child, attr in self._children(waiting.pop()):
                if S_ISDIR(attr.mode):
                    waiting.append(child)
                elif attr.nlink > 1:
                    yield attr

    def _add(self, survey: Survey, places: dict[bytes, int], name: Name) -> bytes:
        """Its path, and that with all above it in `places`."""
        above = survey.path(name.parent) or b""
        path = join(above, name.name)
        places[path] = name.ino
        self._add_above(survey, places, above, name.parent)
        return path

    def _add_above(self, survey: Survey, places: dict[bytes, int], path: bytes, ino: int) -> None:
        while path and path not in places:
            places[path] = ino
            path = path.rpartition(b"/")[0]
            ino = survey.above(ino)

    def _member(self, path: bytes, attr: Attr) -> Member:
        if attr.nlink > 1 and not S_ISDIR(attr.mode):
            first = self._first.setdefault(attr.ino, path)
            return Member(path, attr, None if first == path else first)
        return Member(path, attr, None)

    def _tree(self, path: bytes, ino: int, *, opaque: bool) -> Iterator[Member]:
        """A directory and all that shows in it."""
        waiting = [(path, ino)]
        while waiting:
            path, ino = waiting.pop()
            yield self._member(path, run(self._view.getattr(ino)))
            if opaque:
                yield Member(join(path, OPAQUE), None, None)
                opaque = False
            for name, child, attr in self._children(ino):
                if S_ISDIR(attr.mode):
                    waiting.append((join(path, name), child))
                else:
                    yield self._member(join(path, name), attr)

    def _children(self, ino: int) -> Iterator[tuple[bytes, int, Attr]]:
        handle = run(self._view.opendir(ino))
        after = 0
        while entries := run(self._view.readdir(handle, after, _BATCH)):
            for entry in entries:
                if entry.name not in (b".", b".."):
                    yield entry.name, entry.ino, run(self._view.getattr(entry.ino))
            after = entries[-1].next
        self._view.releasedir(handle)
