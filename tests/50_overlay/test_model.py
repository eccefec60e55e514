"""The overlay against a plain model: random operations, also many suspended at once, end alike in every particular."""

import random

import pytest
from builders.overlay_machine import SETTINGS, OverlayMachine
from builders.overlay_pair import Pair
from builders.random_operations import build
from builders.shuffled import Crowd

from overlay.ram import RamStore


class InsensitiveMachine(OverlayMachine):
    case_sensitive = False


class TightMachine(OverlayMachine):
    """A budget that is soon used up: whatever is refused has changed nothing."""

    budget = 200_000


TestSensitive = OverlayMachine.TestCase
TestSensitive.settings = SETTINGS
TestInsensitive = InsensitiveMachine.TestCase
TestInsensitive.settings = SETTINGS
TestTight = TightMachine.TestCase
TestTight.settings = SETTINGS


@pytest.mark.parametrize("seed", range(6))
def test_long_random_runs_end_like_the_model(seed: int) -> None:
    """4000 operations per seed, a third of them suspended while others run."""
    source = random.Random(seed)
    pair = Pair(build(case_sensitive=seed % 2 == 0), RamStore(1 << 28 if seed % 3 else 600_000))
    crowd = Crowd(pair, source)
    for step in range(4000):
        crowd.step(0.3)
        crowd.forget()
        if step % 500 == 0:
            pair.compare()
        if sum(len(thing.data.pages) for thing in pair.model.things.values()) > 8000:
            break
    crowd.end()
    pair.end()
