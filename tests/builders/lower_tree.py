"""A Lower in memory for tests of the overlay: dictionaries, optionally case-insensitive, with hard links, damaged objects
and a record of everything that was asked. It checks the contract from the other side: nobody may change it."""

import errno
import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR, S_ISREG

from overlay.vfs import FIRST_NEW_INODE, Attr, Entry, Listing, Usage

ROOT = 2


@dataclass
class Thing:
    attr: Attr
    data: bytes = b""
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)  # folded → name, inode
    parent: int = 0
    damaged: bool = False


class Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        assert length > 0
        assert offset + length <= self.size
        self.reads.append((offset, length))
        return self._data[offset : offset + length]

    def cold(self, offset: int, length: int) -> Sequence[object]:
        return ()


class LowerTree:
    """add_* build it; afterwards it is a Lower."""

    def __init__(self, case_sensitive: bool = True) -> None:
        self.case_sensitive = case_sensitive
        self.things: dict[int, Thing] = {}
        self._next = ROOT
        self.contents: dict[int, Bytes] = {}
        self.asked: list[str] = []
        self._add(0, b"", S_IFDIR | 0o755, nlink=2)

    # -- building ----------------------------------------------------------------------------------------------------

    def _add(
        self, parent: int, name: bytes, mode: int, *, nlink: int = 1, data: bytes = b"", target: bytes = b""
    ) -> int:
        ino = self._next
        self._next += 1
        size = len(data) or len(target)
        time = 1_000_000_000 * ino
        attr = Attr(ino, mode, nlink, 501, 20, 0, size, -(-len(data) // 4096) * 8, time, time + 1, time + 2, time + 3)
        self.things[ino] = Thing(attr, data, target)
        if parent:
            self.things[ino].parent = parent
            self.link(parent, name, ino, count=False)
            if S_ISDIR(mode):
                self._adjust(parent, +1)
        else:
            self.things[ino].parent = ino
        return ino

    def _adjust(self, ino: int, links: int) -> None:
        thing = self.things[ino]
        thing.attr = thing.attr._replace(nlink=thing.attr.nlink + links)

    def link(self, parent: int, name: bytes, ino: int, *, count: bool = True) -> None:
        self.things[parent].children[self.fold(name)] = name, ino
        if count:
            self._adjust(ino, +1)

    def add_directory(self, parent: int, name: bytes, mode: int = 0o755) -> int:
        return self._add(parent, name, S_IFDIR | mode, nlink=2)

    def add_file(self, parent: int, name: bytes, data: bytes = b"", mode: int = 0o644) -> int:
        return self._add(parent, name, S_IFREG | mode, data=data)

    def add_symlink(self, parent: int, name: bytes, target: bytes) -> int:
        return self._add(parent, name, S_IFLNK | 0o777, target=target)

    # -- the Lower ---------------------------------------------------------------------------------------------------

    root = ROOT
    name_max = 765
    end_ino = FIRST_NEW_INODE

    def fold(self, name: bytes) -> bytes:
        return name if self.case_sensitive else name.lower()

    def _thing(self, ino: int, question: str) -> Thing:
        self.asked.append(f"{question} {ino}")
        thing = self.things[ino]
        if thing.damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return thing

    def getattr(self, ino: int) -> Attr:
        return self._thing(ino, "getattr").attr

    def parent(self, ino: int) -> int:
        return self._thing(ino, "parent").parent

    def place(self, ino: int) -> tuple[int, bytes] | None:
        self.asked.append(f"place {ino}")
        named = [
            (parent, name)
            for parent, thing in self.things.items()
            for name, child in thing.children.values()
            if child == ino
        ]
        return named[0] if len(named) == 1 else None

    def _entry(self, name: bytes, ino: int) -> Entry:
        thing = self.things[ino]
        return Entry(name, ino, S_IFMT(thing.attr.mode), None if thing.damaged else thing.attr)

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        found = self._thing(parent, "lookup").children.get(self.fold(name))
        return None if found is None else self._entry(*found)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        children = sorted(self._thing(ino, "readdir").children.items())
        if after is not None:
            children = [child for child in children if child[0] > after]
        part = children[:limit]
        following = part[-1][0] if len(children) > limit else None
        return Listing([self._entry(*child) for _, child in part], following)

    def open(self, ino: int) -> Bytes:
        thing = self._thing(ino, "open")
        assert S_ISREG(thing.attr.mode)
        if ino not in self.contents:
            self.contents[ino] = Bytes(thing.data)
        return self.contents[ino]

    def readlink(self, ino: int) -> bytes:
        return self._thing(ino, "readlink").target

    def listxattr(self, ino: int) -> list[bytes]:
        return sorted(self._thing(ino, "listxattr").xattrs)

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        return self._thing(ino, "getxattr").xattrs.get(name)

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def statfs(self) -> Usage:
        return Usage(4096, 1000, 10, len(self.things), 0, 765)

    # -- for assertions ----------------------------------------------------------------------------------------------

    def checksum(self) -> str:
        digest = hashlib.sha256()
        for ino, thing in sorted(self.things.items()):
            digest.update(repr((ino, thing.attr, thing.target, thing.xattrs, thing.children, thing.parent)).encode())
            digest.update(thing.data)
        return digest.hexdigest()
