"""Random operations on two directories that start equal: the mount under test and an ordinary directory of this machine.
Every operation is done to both and must end alike (same result or same errno); at checkpoints the trees must be equal.

An operation is a tuple of a name and arguments that say all of it (paths, offsets, the seed of the data), so a list of
operations can be replayed, shortened and printed. Which ones are chosen depends on the seed and the ordinary directory
alone. Methods of `Side` are the operations: one place that says how each is done.
"""

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import random
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exercise.trees import differences

Operation = tuple[Any, ...]

SLOTS = 6
"""Files that are held open at a time, across renames and unlinks."""

NAMES = [f"{word}{number}" for word in ("ant", "bee", "cat", "dog", "elk") for number in range(4)]
ATTRIBUTES = ["user.a", "user.b", "user.c"]
SIZES = [0, 1, 100, 4095, 4096, 4097, 20000, 70000, 300000]
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: bytes, target: bytes, flags: int) -> None:
    if libc.renameat2(-100, source, -100, target, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def data(seed: int, length: int) -> bytes:
    """Bytes that are the same for both sides; half of the seeds give compressible ones."""
    if seed % 2:
        return random.Random(seed).randbytes(length)
    return (b"%d " % seed * (length // 2 + 1))[:length]


class Side:
    """One of the two directories. Every operation returns something comparable or raises OSError."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.open_files: dict[int, int] = {}

    def at(self, path: str) -> bytes:
        return os.path.join(self.root, os.fsencode(path))

    def close_all(self) -> None:
        for file in self.open_files.values():
            os.close(file)
        self.open_files.clear()

    # Names.

    def create(self, path: str, mode: int) -> None:
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self.at(path), mode, device)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def link(self, path: str, new: str) -> None:
        os.link(self.at(path), self.at(new), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def rename(self, path: str, new: str) -> None:
        os.rename(self.at(path), self.at(new))

    def rename_noreplace(self, path: str, new: str) -> None:
        renameat2(self.at(path), self.at(new), RENAME_NOREPLACE)

    def exchange(self, path: str, new: str) -> None:
        renameat2(self.at(path), self.at(new), RENAME_EXCHANGE)

    def listdir(self, path: str) -> list[bytes]:
        return sorted(os.listdir(self.at(path)))

    def readlink(self, path: str) -> bytes:
        return os.readlink(self.at(path))

    def remove_tree(self, path: str) -> None:
        top = self.at(path)
        for folder, folders, files in os.walk(top, topdown=False):
            for name in files:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                inner = os.path.join(folder, name)
                if os.path.islink(inner):
                    os.unlink(inner)
                else:
                    os.rmdir(inner)
        os.rmdir(top)

    # Contents by path.

    def write(self, path: str, offset: int, seed: int, length: int) -> int:
        file = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            return os.pwrite(file, data(seed, length), offset)
        finally:
            os.close(file)

    def rewrite(self, path: str, seed: int, length: int) -> int:
        """What an editor does: open with O_TRUNC, write all."""
        file = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
        try:
            return os.write(file, data(seed, length))
        finally:
            os.close(file)

    def append(self, path: str, seed: int, length: int) -> int:
        file = os.open(self.at(path), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        try:
            return os.write(file, data(seed, length))
        finally:
            os.close(file)

    def truncate(self, path: str, size: int) -> None:
        self.need_plain_file(path)
        os.truncate(self.at(path), size)

    def read(self, path: str, offset: int, length: int) -> str:
        self.need_plain_file(path)
        with open(self.at(path), "rb", buffering=0) as file:
            file.seek(offset)
            return hashlib.sha256(file.read(length)).hexdigest()

    def map_write(self, path: str, seed: int) -> int:
        """Changes some bytes of the file through a shared mapping."""
        self.need_plain_file(path)
        with open(self.at(path), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 0
            with mmap.mmap(file.fileno(), size) as pages:
                start = seed % size
                part = data(seed, min(5000, size - start))
                pages[start : start + len(part)] = part
        return size

    def need_plain_file(self, path: str) -> None:
        """A FIFO would wait for ever and a device would answer: neither is ours to test here."""
        mode = os.stat(self.at(path)).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a file")

    # Metadata.

    def lstat(self, path: str) -> tuple[int, ...]:
        status = os.lstat(self.at(path))
        if stat.S_ISDIR(status.st_mode):
            return (status.st_mode, status.st_uid, status.st_gid)
        return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink, status.st_rdev)

    def chmod(self, path: str, mode: int) -> None:
        if os.path.islink(self.at(path)):
            raise OSError(errno.EINVAL, "chmod would follow the link")
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def utime(self, path: str, seconds: int) -> None:
        os.utime(self.at(path), (seconds, seconds), follow_symlinks=False)
        if int(os.lstat(self.at(path)).st_mtime) != seconds:
            raise AssertionError(f"utime of {path} did not set mtime to {seconds}")

    def setxattr(self, path: str, name: str, seed: int, length: int, flags: int) -> None:
        os.setxattr(self.at(path), name, data(seed, length), flags, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def listxattr(self, path: str) -> list[str]:
        return sorted(name for name in os.listxattr(self.at(path), follow_symlinks=False) if name.startswith("user."))

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self.at(path), name, follow_symlinks=False)

    # Files held open.

    def hold(self, slot: int, path: str) -> None:
        self.need_plain_file(path)
        file = os.open(self.at(path), os.O_RDWR)
        if slot in self.open_files:
            os.close(self.open_files[slot])
        self.open_files[slot] = file

    def hold_new(self, slot: int, path: str) -> None:
        """Creates a file, holds it, and takes its name away at once: a temporary file."""
        file = os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if slot in self.open_files:
            os.close(self.open_files[slot])
        self.open_files[slot] = file
        os.unlink(self.at(path))

    def let_go(self, slot: int) -> None:
        if slot in self.open_files:
            os.close(self.open_files.pop(slot))

    def held_write(self, slot: int, offset: int, seed: int, length: int) -> int:
        return os.pwrite(self.held(slot), data(seed, length), offset)

    def held_read(self, slot: int, offset: int, length: int) -> str:
        return hashlib.sha256(os.pread(self.held(slot), length, offset)).hexdigest()

    def held_truncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.held(slot), size)

    def held_stat(self, slot: int) -> tuple[int, ...]:
        status = os.fstat(self.held(slot))
        return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink)

    def held_chmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.held(slot), mode)

    def held_sync(self, slot: int) -> None:
        os.fsync(self.held(slot))

    def held(self, slot: int) -> int:
        if slot not in self.open_files:
            raise OSError(errno.EBADF, "nothing is held there")
        return self.open_files[slot]


class Chooser:
    """Makes up operations from a random sequence and the paths that exist (or did a moment ago) in the model."""

    def __init__(self, chance: random.Random, model: Path) -> None:
        self.chance = chance
        self.model = model
        self.known: list[str] = []
        self.folders: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.symbolic: list[str] = []
        self.age = 0

    def look(self) -> None:
        self.known, self.folders = [], ["."]
        for folder, folders, files in os.walk(self.model):
            place = os.path.relpath(folder, self.model)
            inside = [os.path.normpath(os.path.join(place, name)) for name in sorted(folders + files)]
            self.known += inside
            self.folders += [path for path in inside if os.path.basename(path) in folders]
        self.known.sort()
        self.folders.sort()

    def old(self) -> str:
        """A path that exists, mostly."""
        if not self.known or self.chance.random() < 0.03:
            return self.new()
        return self.chance.choice(self.known)

    def folder(self) -> str:
        return self.chance.choice(self.folders)

    def new(self) -> str:
        """A path that may be free, in a folder that exists, mostly."""
        return os.path.normpath(os.path.join(self.folder(), self.chance.choice(NAMES)))

    def anywhere(self) -> str:
        return self.old() if self.chance.random() < 0.35 else self.new()

    def attribute(self) -> tuple[str, str]:
        """A path and the name of an attribute that was set there lately, mostly."""
        if self.attributes and self.chance.random() < 0.8:
            return self.chance.choice(self.attributes)
        return self.old(), self.chance.choice(ATTRIBUTES)

    def set_attribute(self, seed: int) -> Operation:
        path, name = self.attribute() if self.chance.random() < 0.3 else (self.old(), self.chance.choice(ATTRIBUTES))
        if os.path.isfile(self.model / path) and not os.path.islink(self.model / path):
            self.attributes = [*self.attributes[-10:], (path, name)]
        flags = self.chance.choice([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
        return ("setxattr", path, name, seed, self.chance.choice([0, 1, 50, 1000]), flags)

    def new_symlink(self) -> Operation:
        path = self.new()
        self.symbolic = [*self.symbolic[-10:], path]
        return ("symlink", self.anywhere(), path)

    def next(self) -> Operation:
        if self.age % 10 == 0:
            self.look()
        self.age += 1
        chance = self.chance
        seed, slot = chance.getrandbits(30), chance.randrange(SLOTS)
        size, offset = chance.choice(SIZES), chance.choice([0, 1, 4095, 4096, 50000, chance.randrange(400000)])
        mode = chance.choice([0o644, 0o600, 0o755, 0o4755, 0o2770, 0o1777, 0o444, 0o000])
        choices: list[tuple[int, Callable[[], Operation]]] = [
            (14, lambda: ("create", self.new(), mode)),
            (8, lambda: ("mkdir", self.new(), mode)),
            (1, lambda: ("mknod", self.new(), stat.S_IFIFO | mode, 0)),
            (1, lambda: ("mknod", self.new(), stat.S_IFCHR | mode, os.makedev(1, 3))),
            (3, self.new_symlink),
            (6, lambda: ("link", self.old(), self.anywhere())),
            (5, lambda: ("unlink", self.old())),
            (3, lambda: ("rmdir", self.folder())),
            (8, lambda: ("rename", self.old(), self.anywhere())),
            (3, lambda: ("rename", self.folder(), self.anywhere())),
            (3, lambda: ("rename_noreplace", self.old(), self.anywhere())),
            (4, lambda: ("exchange", self.old(), self.old())),
            (4, lambda: ("listdir", self.folder())),
            (2, lambda: ("readlink", chance.choice(self.symbolic or ["."]))),
            (1, lambda: ("remove_tree", self.folder()) if chance.random() < 0.1 else ("listdir", self.folder())),
            (12, lambda: ("write", self.old(), offset, seed, size)),
            (4, lambda: ("rewrite", self.anywhere(), seed, size)),
            (6, lambda: ("append", self.old(), seed, size)),
            (7, lambda: ("truncate", self.old(), chance.choice(SIZES))),
            (8, lambda: ("read", self.old(), offset, size)),
            (4, lambda: ("map_write", self.old(), seed)),
            (6, lambda: ("lstat", self.old())),
            (5, lambda: ("chmod", self.old(), mode)),
            (4, lambda: ("chown", self.old(), chance.choice([0, 1000, 65534]), chance.choice([0, 1000, 65534]))),
            (4, lambda: ("utime", self.old(), chance.randrange(10**9))),
            (6, lambda: self.set_attribute(seed)),
            (3, lambda: ("getxattr", *self.attribute())),
            (2, lambda: ("listxattr", self.old())),
            (3, lambda: ("removexattr", *self.attribute())),
            (5, lambda: ("hold", slot, self.old())),
            (2, lambda: ("hold_new", slot, self.new())),
            (2, lambda: ("let_go", slot)),
            (5, lambda: ("held_write", slot, offset, seed, size)),
            (5, lambda: ("held_read", slot, offset, size)),
            (3, lambda: ("held_truncate", slot, chance.choice(SIZES))),
            (3, lambda: ("held_stat", slot)),
            (1, lambda: ("held_chmod", slot, mode)),
            (1, lambda: ("held_sync", slot)),
        ]
        weights = [weight for weight, _ in choices]
        (_, make), *_ = chance.choices(choices, weights)
        operation = make()
        if operation[0] == "remove_tree" and operation[1] == ".":
            return ("listdir", ".")
        return operation


class Different(AssertionError):
    """The two sides differ. `operations`: what was done up to there."""

    def __init__(self, what: str, operations: Sequence[Operation]) -> None:
        super().__init__(what)
        self.what = what
        self.operations = list(operations)


class Pair:
    """The mount under test and the ordinary directory beside it. started: times since then need not be equal."""

    def __init__(self, subject: Path, model: Path, started: float | None = None) -> None:
        self.sides = (Side(subject), Side(model))
        self.done: list[Operation] = []
        self.started = time.time() if started is None else started

    def do(self, operation: Operation) -> None:
        """Raises Different."""
        self.done.append(operation)
        name, *arguments = operation
        outcomes = []
        for side in self.sides:
            try:
                outcomes.append(("returned", getattr(side, name)(*arguments)))
            except OSError as error:
                outcomes.append(("failed with", errno.errorcode.get(error.errno or 0, error.errno)))
        if outcomes[0] != outcomes[1]:
            told = [f"{how} {value!r:.300}" for how, value in outcomes]
            raise Different(f"{operation}: the mount {told[0]}, the directory {told[1]}", self.done)

    def compare(self) -> None:
        """Raises Different."""
        # Two seconds of grace: file times may be those of the kernel's last tick.
        found = list(differences(self.sides[0].root, self.sides[1].root, self.started - 2))
        if found:
            raise Different("the trees differ:\n  " + "\n  ".join(found[:20]), self.done)

    def close(self) -> None:
        for side in self.sides:
            side.close_all()


def exercise(
    subject: Path, model: Path, seed: int, operations: int, checkpoint: int = 250, started: float | None = None
) -> list[Operation]:
    """Does that many random operations; returns them. started: when the two were equal, if not now. Raises Different."""
    os.umask(0o022)
    pair = Pair(subject, model, started)
    chooser = Chooser(random.Random(seed), model)
    try:
        pair.compare()
        for number in range(1, operations + 1):
            pair.do(chooser.next())
            if number % checkpoint == 0:
                pair.compare()
        pair.compare()
    finally:
        pair.close()
    return pair.done


def replay(subject: Path, model: Path, operations: Sequence[Operation]) -> str | None:
    """What goes wrong when these operations are done to a fresh pair; None if nothing does."""
    pair = Pair(subject, model)
    try:
        for operation in operations:
            pair.do(operation)
        pair.compare()
    except Different as difference:
        return difference.what
    finally:
        pair.close()
    return None


Fresh = Callable[[], contextlib.AbstractContextManager[tuple[Path, Path]]]
"""Makes a fresh mount and a fresh directory beside it, and takes them away again."""


def shrink(operations: Sequence[Operation], fresh: Fresh, seconds: float) -> tuple[list[Operation], str | None]:
    """A shorter list of operations that still ends in a difference, found by leaving parts out for that many seconds."""

    def failure(candidate: Sequence[Operation]) -> str | None:
        with fresh() as (subject, model):
            return replay(subject, model, candidate)

    deadline = time.monotonic() + seconds
    kept = list(operations)
    what = failure(kept)
    if what is None:
        return kept, None
    part = len(kept) // 2
    while part and time.monotonic() < deadline:
        start = 0
        while start < len(kept) and time.monotonic() < deadline:
            candidate = kept[:start] + kept[start + part :]
            found = failure(candidate)
            if found is None:
                start += part
            else:
                kept, what = candidate, found
        part //= 2
    return kept, what
