"""The overlay against a plain model: random operations, also many suspended at once, end alike in every particular."""

import random

import pytest
from builders.overlay_machine import SETTINGS, OverlayMachine
from builders.overlay_pair import Pair, Pending
from builders.random_operations import Choice, build

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
    choice = Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes(length), source.randbytes(length)]),
    )
    pending: list[Pending] = []
    for step in range(4000):
        if source.random() < 0.3 and len(pending) < 8:
            waiting = pair.start(*choice.operation())
            if not waiting.done:
                pending.append(waiting)
        elif pending and source.random() < 0.5:
            waiting = source.choice(pending)
            waiting.go()
            if waiting.done:
                pending.remove(waiting)
        else:
            pair.call(*choice.operation())
        if not pending and pair.model.held and source.random() < 0.1:
            ino = source.choice(sorted(pair.model.held))
            pair.forget(ino, source.randint(1, pair.model.held[ino]))
        if step % 500 == 0:
            pair.compare()
        if sum(len(thing.data.pages) for thing in pair.model.things.values()) > 8000:
            break
    while pending:
        pending[0].go()
        if pending[0].done:
            pending.pop(0)
    pair.end()
