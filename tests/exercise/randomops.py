"""Random operations on two directories that start equal: the mount under test and an ordinary directory of this machine.
Every operation is done to both and must end alike (same result or same errno); at checkpoints the trees must be equal.

An operation is a tuple of a name and arguments that say all of it (paths, offsets, the seed of the data), so a list of
operations can be replayed, shortened and printed. Which ones are chosen depends on the seed and the ordinary directory
alone. Methods of `Side` are the operations.
"""

import contextlib
import errno
import os
import random
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exercise.side import ATTRIBUTES, NAMES, SIZES, SLOTS, Side
from exercise.trees import differences

Operation = tuple[Any, ...]

FAR = 1 << 40


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
        return ("setxattr", path, name, seed, self.chance.choice([0, 1, 50, 600]), flags)

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
            (2, lambda: ("far_and_back", self.old(), FAR + offset, seed, size)),
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


Outcome = tuple[str, Any]
"""Whether an operation returned or failed, and what."""

FREEING = {"unlink", "rmdir", "remove_tree", "removexattr"}
"""What must not fail for want of room."""


def outcome(side: Side, operation: Operation) -> Outcome:
    name, *arguments = operation
    try:
        return "returned", getattr(side, name)(*arguments)
    except OSError as error:
        return "failed with", errno.errorcode.get(error.errno or 0, error.errno)


class Pair:
    """The mount under test and the ordinary directory beside it. started: times since then need not be equal. full: the
    mount may refuse what needs room; `refused` counts how often it did."""

    def __init__(self, subject: Path, model: Path, started: float | None = None, full: bool = False) -> None:
        self.sides = (Side(subject), Side(model))
        self.done: list[Operation] = []
        self.started = time.time() if started is None else started
        self.full = full
        self.refused = 0

    def do(self, operation: Operation) -> Outcome:
        """Raises Different."""
        self.done.append(operation)
        subject, model = self.sides
        seen = outcome(subject, operation)
        if self.full and self._lacked_room(operation, seen):
            return seen
        expected = outcome(model, operation)
        model.most = None
        if seen != expected:
            told = [f"{how} {value!r:.300}" for how, value in (seen, expected)]
            raise Different(f"{operation}: the mount {told[0]}, the directory {told[1]}", self.done)
        return seen

    def _lacked_room(self, operation: Operation, seen: Outcome) -> bool:
        """Whether the mount refused the operation for want of room, and so the model must not do it. What was written in
        part, the model writes in part."""
        name, *arguments = operation
        if seen[0] == "returned":
            if name in ("write", "rewrite", "append", "held_write") and seen[1] < arguments[-1]:
                self.refused += 1
                self.sides[1].most = seen[1]
            return False
        if seen[1] != "ENOSPC":
            return False
        if name in FREEING:
            raise Different(f"{operation} failed for want of room", self.done)
        self.refused += 1
        if name == "rewrite":  # perhaps it was opened, which empties it, and not written
            subject, model = (side.at(arguments[0]) for side in self.sides)
            if os.path.lexists(subject) and not os.stat(subject).st_size:
                os.close(os.open(model, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
        return True

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
    subject: Path,
    model: Path,
    seed: int,
    operations: int,
    checkpoint: int = 250,
    started: float | None = None,
    full: bool = False,
) -> list[Operation]:
    """Does that many random operations; returns them. started: when the two were equal, if not now. full: the mount may
    lack room. Raises Different."""
    os.umask(0o022)
    pair = Pair(subject, model, started, full)
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
