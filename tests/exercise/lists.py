"""Random operations with POSIX access control lists, on a mount with --acl beside a directory whose file system has them:
what a list makes of the permission bits, what chmod makes of a list, what new objects inherit.
"""

import os
import random
from pathlib import Path

from exercise.randomops import Chooser, Operation
from exercise.side import Side
from overlay import acl

KINDS = {"access": "system.posix_acl_access", "default": "system.posix_acl_default"}


def made_up(seed: int) -> bytes:
    """A list, the same for the same seed; every third one says no more than permission bits do."""
    chance = random.Random(seed)

    def rights() -> int:
        return chance.randrange(8)

    named = chance.randrange(3)
    rules = [acl.Rule(acl.USER_OBJ, rights(), 0xFFFFFFFF)]
    rules += [acl.Rule(acl.USER, rights(), 1000 + number) for number in range(named)]
    rules.append(acl.Rule(acl.GROUP_OBJ, rights(), 0xFFFFFFFF))
    rules += [acl.Rule(acl.GROUP, rights(), 2000 + number) for number in range(named and chance.randrange(2))]
    rules += [acl.Rule(acl.MASK, rights(), 0xFFFFFFFF)] if named else []
    rules.append(acl.Rule(acl.OTHER, rights(), 0xFFFFFFFF))
    return acl.pack(rules)


class ListSide(Side):
    """A Side that knows access control lists."""

    def set_list(self, path: str, kind: str, seed: int) -> None:
        self.need_no_symlink(path)
        os.setxattr(self.at(path), KINDS[kind], made_up(seed))

    def get_list(self, path: str, kind: str) -> bytes:
        self.need_no_symlink(path)
        return os.getxattr(self.at(path), KINDS[kind])

    def drop_list(self, path: str, kind: str) -> None:
        """Where there is none, file systems differ in whether that is an error."""
        self.need_no_symlink(path)
        if KINDS[kind] in os.listxattr(self.at(path)):
            os.removexattr(self.at(path), KINDS[kind])

    def need_no_symlink(self, path: str) -> None:
        if os.path.islink(self.at(path)):
            raise FileNotFoundError(2, "lists of symbolic links are not a thing")


class ListChooser(Chooser):
    """A third of the operations are about lists, or show what they did."""

    def __init__(self, chance: random.Random, model: Path) -> None:
        super().__init__(chance, model)
        self.lists = 0

    def next(self) -> Operation:
        operation = super().next()
        if self.chance.random() > 0.35:
            return operation
        self.lists += 1
        kind = self.chance.choice(("access", "access", "default"))
        path = self.folder() if kind == "default" else self.old()
        match self.chance.randrange(8):
            case 0 | 1 | 2:
                return ("set_list", path, kind, self.chance.getrandbits(30))
            case 3 | 4 | 5:
                return ("get_list", path, kind)
            case 6:
                return ("drop_list", path, kind)
        return ("lstat", path)
