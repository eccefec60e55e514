"""Overlays on overlays against the plain model: whatever becomes a read-only layer, and however often, nobody can tell from
above. Random operations as in `test_model`; what was changed so far becomes a layer every now and then."""

import random

import pytest
from builders.overlay_machine import SETTINGS, OverlayMachine
from builders.overlay_pair import Pair
from builders.random_operations import build
from builders.shuffled import Crowd, choose
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from overlay.ram import RamStore

DEEPEST = 4


class StackMachine(OverlayMachine):
    """As OverlayMachine, and layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = 0

    @rule()
    @precondition(lambda self: not self.pending and self.layers < DEEPEST)
    def stack(self) -> None:
        self.pair.stack(RamStore(self.budget))
        self.layers += 1
        self.pair.compare()

    @rule(data=st.data())
    def many(self, data: st.DataObject) -> None:
        """Enough to be worth a layer."""
        source = random.Random(data.draw(st.integers(0, 1000)))
        choice = choose(self.pair, source)
        for _ in range(40):
            self.pair.call(*choice.operation())


class InsensitiveStackMachine(StackMachine):
    case_sensitive = False


TestStack = StackMachine.TestCase
TestStack.settings = settings(SETTINGS, max_examples=6)
TestInsensitiveStack = InsensitiveStackMachine.TestCase
TestInsensitiveStack.settings = settings(SETTINGS, max_examples=6)


@pytest.mark.parametrize("seed", range(3))
def test_long_random_runs_through_layers_end_like_the_model(seed: int) -> None:
    """2500 operations, some suspended while others run, a layer every 500."""
    source = random.Random(seed)
    pair = Pair(build(case_sensitive=seed % 2 == 0), RamStore(1 << 28))
    crowd = Crowd(pair, source)
    for step in range(1, 2501):
        crowd.step(0.2)
        if step % 500 == 0:
            crowd.end()
            pair.compare()
            pair.stack(RamStore(1 << 28))
            pair.compare()
    pair.end()
