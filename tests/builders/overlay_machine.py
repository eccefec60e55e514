"""The overlay and its model as a hypothesis machine; how it is run."""

import random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders.overlay_pair import Pair, Pending
from builders.random_operations import Choice, build
from overlay.ram import RamStore

# Shrinking a run of this machine takes longer than reading it.
SETTINGS = settings(
    max_examples=30, stateful_step_count=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)


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
