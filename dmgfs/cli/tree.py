"""A volume by path, as Linux would show it: finding, listing and walking without a mount.

Rules that hold here:
- names, attributes and contents come from the same Lower as in the mount, so verbs and mount agree;
- links inside the volume are followed inside the volume, an absolute one from its root, at most 40 in all;
- one damaged object is one answer with an error; the walk goes on behind it;
- a folder that contains itself (hard links to folders can do that) is not entered twice on one path.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dmgfs.errors import CorruptImage, DmgError
from dmgfs.forks import FIRST, NAMED_FORK, RESOURCE
from dmgfs.source import ByteSource
from dmgfs.volume import MOST_DEPTH, Volume
from overlay.vfs import Attr, Entry, Lower

MOST_LINKS = 40
PAGE = 1024
XATTR_VALUE_MAX = 64 << 10
FORK_OF_A_FILE = [NAMED_FORK, RESOURCE]


@dataclass(frozen=True, slots=True)
class Item:
    """An object at a path. path: from the root, without a leading slash, b"" for the root itself."""

    path: bytes
    ino: int
    attr: Attr

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.attr.mode)


class Step(NamedTuple):
    """One object of a walk, or the error it has instead."""

    path: bytes
    item: Item | None
    error: DmgError | OSError | None


class Tree:
    """`volume` through `lower`."""

    def __init__(self, volume: Volume, lower: Lower) -> None:
        self.volume = volume
        self.lower = lower

    def root(self) -> Item:
        return Item(b"", self.lower.root, self.lower.getattr(self.lower.root))

    def find(self, path: str | bytes, *, follow: bool = False) -> Item:
        """The object at `path`; follow: what a link at its end leads to. The resource fork of a file is an object beside
        it (see `dmgfs.forks`), `FILE/..namedfork/rsrc` finds it too. Raises FileNotFoundError, NotADirectoryError,
        OSError(ELOOP) with `path` as filename, and CorruptImage."""
        wanted = os.fsencode(path)
        trail = [self.root()]
        todo = _parts(wanted)
        links = 0
        while todo:
            part = todo.pop(0)
            here = trail[-1]
            if not here.is_folder:
                if [part, *todo] != FORK_OF_A_FILE or not stat.S_ISREG(here.attr.mode):
                    raise _failure(errno.ENOTDIR, path)
                trail.pop()
                todo = [NAMED_FORK, here.name, RESOURCE]
                continue
            if part == b"..":
                del trail[max(1, len(trail) - 1) :]
                continue
            entry = self.lower.lookup(here.ino, part)
            if entry is None:
                raise _failure(errno.ENOENT, path)
            item = self._item(here, entry)
            if stat.S_ISLNK(item.attr.mode) and (todo or follow):
                links += 1
                if links > MOST_LINKS:
                    raise _failure(errno.ELOOP, path)
                target = self.lower.readlink(item.ino)
                todo = _parts(target) + todo
                if target.startswith(b"/"):
                    del trail[1:]
                continue
            trail.append(item)
        return trail[-1]

    def contents(self, path: str | bytes) -> ByteSource:
        """The bytes of the file at `path`, links followed."""
        item = self.find(path, follow=True)
        if item.is_folder:
            raise _failure(errno.EISDIR, path)
        if not stat.S_ISREG(item.attr.mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        return self.lower.open(item.ino)

    def resource_is_large(self, ino: int) -> bool:
        """Whether the file has a resource fork that does not fit into an extended attribute."""
        return ino < FIRST and self.volume.resource(self.volume.node(ino)).size > XATTR_VALUE_MAX

    def children(self, folder: Item) -> Iterator[Step]:
        """What is in the folder, in the volume's order."""
        after = None
        while True:
            page = self.lower.readdir(folder.ino, after, PAGE)
            for entry in page.entries:
                try:
                    item = self._item(folder, entry)
                except (DmgError, OSError) as error:
                    yield Step(_join(folder.path, entry.name), None, error)
                else:
                    yield Step(item.path, item, None)
            if page.next is None:
                return
            after = page.next

    def walk(self, start: Item) -> Iterator[Step]:
        """`start` and everything below it, folders before what they hold."""
        yield Step(start.path, start, None)
        if not start.is_folder:
            return
        levels = [(start, self.children(start))]
        while levels:
            folder, steps = levels[-1]
            try:
                step = next(steps, None)
            except (DmgError, OSError) as error:
                yield Step(folder.path, None, error)
                step = None
            if step is None:
                levels.pop()
                continue
            item = step.item
            if item is None or not item.is_folder:
                yield step
            elif len(levels) >= MOST_DEPTH or any(above.ino == item.ino for above, _ in levels):
                why = "the folder contains itself, or stands too deep"
                yield Step(step.path, None, CorruptImage("volume", f"folder {item.ino}", why))
            else:
                yield step
                levels.append((item, self.children(item)))

    def _item(self, parent: Item, entry: Entry) -> Item:
        attr = entry.attr if entry.attr is not None else self.lower.getattr(entry.ino)
        return Item(_join(parent.path, entry.name), entry.ino, attr)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _failure(number: int, path: str | bytes) -> OSError:
    return OSError(number, os.strerror(number), os.fsdecode(path))
