"""An overlay with its model, and random operations for both that follow from a seed."""

import random

from builders.overlay_pair import Pair, Pending
from builders.random_operations import Choice, build
from overlay.ram import RamStore


def choose(pair: Pair, source: random.Random) -> Choice:
    return Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes(length), source.randbytes(length)]),
    )


def shuffled(seed: int, *, case_sensitive: bool, budget: int = 1 << 28, layers: int = 0) -> tuple[Pair, Choice]:
    """layers: of random changes, below an empty store."""
    source = random.Random(seed)
    pair = Pair(build(case_sensitive), RamStore(budget))
    choice = choose(pair, source)
    for _ in range(layers):
        for _ in range(150):
            pair.call(*choice.operation())
        pair.stack(RamStore(budget))
    return pair, choice


class Crowd:
    """Operations of which some wait, eight at most, while others run."""

    def __init__(self, pair: Pair, source: random.Random) -> None:
        self._pair = pair
        self._source = source
        self._choice = choose(pair, source)
        self.waiting: list[Pending] = []

    def step(self, share: float) -> None:
        """An operation: begun only, which happens to that share of them, or gone on with, or done at once."""
        if self._source.random() < share and len(self.waiting) < 8:
            begun = self._pair.start(*self._choice.operation())
            if not begun.done:
                self.waiting.append(begun)
        elif self.waiting and self._source.random() < 0.5:
            self._go(self._source.choice(self.waiting))
        else:
            self._pair.call(*self._choice.operation())

    def forget(self) -> None:
        """Now and then, when nothing waits: the kernel lets go of something."""
        held = self._pair.model.held
        if not self.waiting and held and self._source.random() < 0.1:
            ino = self._source.choice(sorted(held))
            self._pair.forget(ino, self._source.randint(1, held[ino]))

    def end(self) -> None:
        while self.waiting:
            self._go(self.waiting[0])

    def _go(self, one: Pending) -> None:
        one.go()
        if one.done:
            self.waiting.remove(one)
