"""The overlay against a plain model: random operations, also many suspended at once, end alike in every particular."""

import random

import pytest
from builders.overlay_pair import Pair, Pending
from builders.random_operations import Choice, build
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from overlay.ram import RamStore


class OverlayMachine(RuleBasedStateMachine):
    """Operations at once, operations that wait while others run, forgets, looks at everything."""

    case_sensitive = True
    budget = 1 << 28

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(build(self.case_sensitive), RamStore(self.budget))
        self.pending: list[Pending] = []

    def _choice(self, data: st.DataObject) -> Choice:
        def blob(length: int) -> bytes:
            seed = data.draw(st.integers(0, 3))
            return bytes(length) if seed == 0 else random.Random(seed).randbytes(length)

        return Choice(
            self.pair,
            lambda options: data.draw(st.sampled_from(options)),
            lambda limit: data.draw(st.integers(0, max(0, limit - 1))),
            blob,
        )

    @rule(data=st.data())
    def at_once(self, data: st.DataObject) -> None:
        self.pair.call(*self._choice(data).operation())

    @rule(data=st.data())
    @precondition(lambda self: len(self.pending) < 6)
    def begin(self, data: st.DataObject) -> None:
        pending = self.pair.start(*self._choice(data).operation())
        if not pending.done:
            self.pending.append(pending)

    @rule(data=st.data())
    @precondition(lambda self: self.pending)
    def go_on(self, data: st.DataObject) -> None:
        pending = data.draw(st.sampled_from(self.pending))
        pending.go()
        if pending.done:
            self.pending.remove(pending)

    @rule(data=st.data())
    @precondition(lambda self: self.pair.model.held and not self.pending)
    def forget(self, data: st.DataObject) -> None:
        ino = data.draw(st.sampled_from(sorted(self.pair.model.held)))
        self.pair.forget(ino, data.draw(st.integers(1, self.pair.model.held[ino])))

    @rule(limit=st.integers(1, 40))
    def look(self, limit: int) -> None:
        self.pair.compare(limit)

    @invariant()
    def within_budget(self) -> None:
        assert self.pair.store.used <= self.pair.store.budget

    def teardown(self) -> None:
        while self.pending:
            pending = self.pending[-1]
            pending.go()
            if pending.done:
                self.pending.pop()
        self.pair.end()


class InsensitiveMachine(OverlayMachine):
    case_sensitive = False


class TightMachine(OverlayMachine):
    """A budget that is soon used up: whatever is refused has changed nothing."""

    budget = 200_000


# Shrinking a run of this machine takes longer than reading it.
_SETTINGS = settings(
    max_examples=30, stateful_step_count=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
TestSensitive = OverlayMachine.TestCase
TestSensitive.settings = _SETTINGS
TestInsensitive = InsensitiveMachine.TestCase
TestInsensitive.settings = _SETTINGS
TestTight = TightMachine.TestCase
TestTight.settings = _SETTINGS


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
        if sum(len(thing.data) for thing in pair.model.things.values()) > 30_000_000:
            break
    while pending:
        pending[0].go()
        if pending[0].done:
            pending.pop(0)
    pair.end()
