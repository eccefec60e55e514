"""Random operations on a volume that takes `a` and `A` for one name, beside an ordinary directory that does not: the model
looks for every name as such a volume would.
"""

import os
import random
from pathlib import Path

from exercise.randomops import Chooser, Operation
from exercise.side import Side, renameat2

TWO_PATHS = {"link", "rename", "rename_noreplace", "exchange"}
SECOND = {"hold", "hold_new"}
"""Operations whose path is their second argument."""


class FoldingSide(Side):
    """An ordinary directory, used as if its names had no case (ASCII letters)."""

    def at(self, path: str) -> bytes:
        place = self.root
        for part in path.split("/"):
            wanted = os.fsencode(part)
            place = os.path.join(place, self._shown(place, wanted))
        return place

    @staticmethod
    def _shown(folder: bytes, wanted: bytes) -> bytes:
        """The spelling in use."""
        if wanted in (b".", b".."):
            return wanted
        try:
            found = [name for name in os.listdir(folder) if name.lower() == wanted.lower()]
        except OSError:
            return wanted
        return found[0] if found else wanted

    def rename(self, path: str, new: str) -> None:
        """What is replaced loses its spelling, too. One name in two spellings is one name: nothing happens."""
        source, target = self.at(path), self.at(new)
        replaced = os.path.lexists(target) and not os.path.samestat(os.lstat(source), os.lstat(target))
        os.rename(source, target)
        spelled = os.path.join(os.path.dirname(target), os.fsencode(os.path.basename(new)))
        if replaced and spelled != target:
            renameat2(target, spelled, 1)


class SpellingChooser(Chooser):
    """Names in any spelling; no symbolic links, which the model's kernel would follow by exact names."""

    def __init__(self, chance: random.Random, model: Path) -> None:
        super().__init__(chance, model)
        self.respelled = 0

    def next(self) -> Operation:
        while (operation := super().next())[0] == "symlink":
            pass
        name, *arguments = operation
        if name == "let_go" or name.startswith("held_"):
            return operation
        for place in (0, 1) if name in TWO_PATHS else (1,) if name in SECOND else (0,):
            if self.chance.random() < 0.4:
                arguments[place] = self._respell(arguments[place])
        return (name, *arguments)

    def _respell(self, path: str) -> str:
        self.respelled += 1
        parts = path.split("/")
        number = self.chance.randrange(len(parts))
        parts[number] = "".join(
            c.swapcase() if c.isascii() and self.chance.random() < 0.5 else c for c in parts[number]
        )
        return "/".join(parts)
