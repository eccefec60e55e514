"""An overlay with its model, and random operations for both that follow from a seed."""

import random

from builders.overlay_pair import Pair
from builders.random_operations import Choice, build
from overlay.ram import RamStore


def shuffled(seed: int, *, case_sensitive: bool, budget: int = 1 << 28, layers: int = 0) -> tuple[Pair, Choice]:
    """layers: of random changes, below an empty store."""
    source = random.Random(seed)
    pair = Pair(build(case_sensitive), RamStore(budget))
    choice = Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes(length), source.randbytes(length)]),
    )
    for _ in range(layers):
        for _ in range(150):
            pair.call(*choice.operation())
        pair.stack(RamStore(budget))
    return pair, choice
