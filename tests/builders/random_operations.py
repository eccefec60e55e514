"""Random operations for an overlay and its model, and the tree below them: many kinds, often on what is there."""

import random
from stat import S_IFCHR, S_IFIFO, S_IFSOCK, S_ISREG
from typing import Any

from builders.lower_tree import LowerTree
from builders.overlay_pair import Pair
from overlay.contents import MAX_SIZE

PAGE = 4096
NAMES = [b"a", b"A", b"b", b"B", b"c", b"dir", b"Dir", b"file", b"link", "ü".encode(), b"n" * 255, b"n" * 256, b"x.y"]
SIZES = [0, 1, 100, 3072, 3073, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 77, 70 * PAGE + 5, 300_000]
FAR = [1 << 33, (1 << 40) + 5, (1 << 62) - 7, MAX_SIZE - 9000, MAX_SIZE, MAX_SIZE + 1]
XATTRS = [b"user.one", b"user.two", b"security.capability"]


def build(case_sensitive: bool) -> LowerTree:
    """Directories three deep, files of many sizes, hard links across directories, symlinks, xattrs, a full directory."""
    lower = LowerTree(case_sensitive)
    source = random.Random(4)
    first = lower.add_directory(lower.root, b"dir")
    second = lower.add_directory(first, b"b", 0o2775)
    third = lower.add_directory(second, b"c")
    for directory in (lower.root, second, third):
        for name, size in ((b"file", 10 * PAGE + 123), (b"a", 5), (b"x.y", 2 * PAGE)):
            lower.add_file(directory, name, source.randbytes(size), 0o6755 if name == b"a" else 0o644)
    shared = lower.add_file(first, b"link", source.randbytes(6 * PAGE + 1))
    lower.link(third, b"link", shared)
    lower.link(lower.root, b"link2", shared)
    lower.things[shared].xattrs = {b"user.one": b"1", b"user.two": b"2"}
    lower.things[first].xattrs = {b"user.one": b"directory"}
    lower.add_symlink(first, b"c", b"b/c")
    many = lower.add_directory(lower.root, b"many")
    for number in range(150):
        lower.add_file(many, b"f%03d" % number, b"%d" % number)
    return lower


class Choice:
    """Draws an operation. `pick(options)` and `number(limit)` are hypothesis's or random's. far: mostly the contents
    of files, and offsets and sizes that nobody could fill, too."""

    def __init__(self, pair: Pair, pick: Any, number: Any, blob: Any, far: bool = False) -> None:
        self.pair, self.pick, self.number, self.blob = pair, pick, number, blob
        self.far = FAR if far else []

    def _ino(self) -> int:
        return self.pick(sorted({self.pair.model.root, *self.pair.model.held}))

    def _directory(self) -> int:
        things = self.pair.model.things
        held = {self.pair.model.root, *self.pair.model.held}
        return self.pick(sorted(ino for ino in held if things[ino].is_directory))

    def _file(self) -> int | None:
        things = self.pair.model.things
        files = sorted(ino for ino in self.pair.model.held if S_ISREG(things[ino].mode))
        return self.pick(files) if files else None

    def _content(self) -> int:
        file = self._file() if self.far and self.number(6) else None
        return self._ino() if file is None else file

    def _name(self, directory: int) -> bytes:
        there = sorted(name for name, _ in self.pair.model.things[directory].children.values())
        if there and self.number(3):
            return self.pick(there)
        return self.pick(NAMES)

    def operation(self) -> tuple[Any, ...]:
        kind = self.pick(
            ["lookup"] * 5 + ["write"] * 4 + ["read"] * 3 + ["truncate"] * 2 + ["rename"] * 4 + ["unlink"] * 2
            + ["create"] * 2 + ["mkdir"] * 2 + ["link"] * 2
            + ["rmdir", "symlink", "mknod", "chmod", "chown", "utimens", "setxattr", "removexattr", "getxattr", "listxattr",
               "readlink"]
        )  # fmt: skip
        umask = self.pick([0, 0o022, 0o077])
        match kind:
            case "lookup" | "unlink" | "rmdir":
                directory = self._directory()
                return kind, directory, self._name(directory)
            case "create" | "mkdir":
                return kind, self._directory(), self.pick(NAMES), self.pick([0o644, 0o777, 0o2755]), umask
            case "mknod":
                mode = self.pick([S_IFCHR | 0o666, S_IFIFO | 0o600, S_IFSOCK | 0o755])
                return kind, self._directory(), self.pick(NAMES), mode, self.number(1000), umask
            case "symlink":
                return kind, self._directory(), self.pick(NAMES), b"t" * (1 + self.number(50))
            case "link":
                return kind, self._ino(), self._directory(), self.pick(NAMES)
            case "rename":
                old, new = self._directory(), self._directory()
                return kind, old, self._name(old), new, self._name(new), self.pick([0, 0, 0, 1, 2])
            case "write":
                ino = self._content()
                size = len(self.pair.model.things[ino].data)
                near = [0, size, self.number(size + 1), self.pick(SIZES), self.number(100 * PAGE)]
                offset = self.pick(near + self.far)
                length = self.pick(
                    [1, 7, self.number(200), PAGE, self.number(3 * PAGE), 2 * PAGE, self.number(80 * PAGE)]
                )
                return kind, ino, offset, self.blob(length), self.pick([False, True])
            case "read":
                ino = self._file()
                if ino is None:
                    return "lookup", self.pair.model.root, b"file"
                size = len(self.pair.model.things[ino].data)
                return kind, ino, self.number(size + 100), self.pick([1, PAGE, 100_000])
            case "truncate":
                ino = self._content()
                size = len(self.pair.model.things[ino].data)
                return kind, ino, self.pick([*SIZES, self.number(size + 1), size, *self.far])
            case "chmod":
                return kind, self._ino(), self.pick([0, 0o644, 0o6755, 0o2644, 0o1777])
            case "chown":
                return kind, self._ino(), self.number(10), self.number(10)
            case "utimens":
                return kind, self._ino(), self.pick([None, -5, 123]), self.pick([None, -(10**18), 456])
            case "setxattr":
                return kind, self._ino(), self.pick(XATTRS), self.blob(self.number(100)), self.pick([0, 0, 1, 2])
            case "removexattr" | "getxattr":
                return kind, self._ino(), self.pick(XATTRS)
        return kind, self._ino()
