"""Page arithmetic, slots and holds: pure parts against the plainest models."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from overlay.holds import Holds
from overlay.pages import HOLE, PAGE, ZERO, PageMap, Run, cut_range, is_stored, pages_in
from overlay.slots import Slots

PAGES = st.one_of(st.integers(0, 200), st.integers(0, 1 << 40))


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 21))
def test_cuts_cover_a_range_exactly_once_and_keep_to_pages(offset: int, length: int) -> None:
    position = offset
    for page, start, size in cut_range(offset, length):
        assert page * PAGE + start == position
        assert size > 0
        assert (start == 0 and size % PAGE == 0) or start + size <= PAGE
        position += size
    assert position == offset + length
    assert len(cut_range(offset, length)) <= 3


@given(st.integers(0, 1 << 60))
def test_pages_in_is_the_ceiling(size: int) -> None:
    assert pages_in(size) * PAGE >= size > (pages_in(size) - 1) * PAGE


class PageMapMachine(RuleBasedStateMachine):
    """PageMap against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.map = PageMap()
        self.model: dict[int, int] = {}
        self.next = 1

    def _forgotten(self, runs: list[Run], pages: list[int]) -> None:
        before = sorted(self.model[page] for page in pages if is_stored(self.model.get(page, HOLE)))
        assert sorted(slot for run in runs for slot in range(run.slot, run.slot + run.length)) == before

    @rule(page=PAGES, length=st.integers(1, 300), kind=st.sampled_from([HOLE, ZERO, None]))
    def put(self, page: int, length: int, kind: int | None) -> None:
        slot = self.next if kind is None else kind
        old = self.map.put(Run(page, slot, length))
        self._forgotten(old, list(range(page, page + length)))
        for index in range(length):
            self.model[page + index] = slot + index if kind is None else kind
        if kind is None:
            self.next += length + 1

    @rule(page=PAGES)
    def cut(self, page: int) -> None:
        gone = [key for key in self.model if key >= page]
        self._forgotten(self.map.cut(page), gone)
        for key in gone:
            del self.model[key]

    @rule(page=PAGES, length=st.integers(1, 400))
    def runs(self, page: int, length: int) -> None:
        seen: list[int] = []
        previous: Run | None = None
        for run in self.map.runs(page, length):
            assert run.page == page + len(seen)
            step = int(is_stored(run.slot))
            if previous is not None:  # maximal: the run before could not have gone on
                goes_on = previous.slot + previous.length * int(is_stored(previous.slot))
                assert run.slot != goes_on
            seen += [run.slot + step * index for index in range(run.length)]
            previous = run
        assert seen == [self.model.get(key, HOLE) for key in range(page, page + length)]
        assert self.map[page] == seen[0]

    @rule()
    def walk(self) -> None:
        stored = {key: slot for key, slot in self.model.items() if slot != HOLE}
        walked: dict[int, int] = {}
        for run in self.map.walk():
            for index in range(run.length):
                walked[run.page + index] = run.slot + index * int(is_stored(run.slot))
        assert walked == stored
        assert self.map.stored == sum(map(is_stored, stored.values()))
        assert self.map.blocks == len({key >> 6 for key in stored})

    @rule(page=PAGES, length=st.integers(1, 100), kind=st.sampled_from([HOLE, ZERO, None]))
    def unlike_an_older_one(self, page: int, length: int, kind: int | None) -> None:
        copy, before = self.map.copy(), dict(self.model)
        self.put(page, length, kind)
        differs = {key for key in before.keys() | self.model.keys() if before.get(key, 0) != self.model.get(key, 0)}
        seen: dict[int, int] = {}
        for run in self.map.unlike(copy):
            for index in range(run.length):
                seen[run.page + index] = run.slot + index * int(is_stored(run.slot))
        assert seen == {key: self.model.get(key, HOLE) for key in differs}

    @rule(page=PAGES)
    def stored_from(self, page: int) -> None:
        there = [key for key, slot in self.model.items() if key >= page and is_stored(slot)]
        assert self.map.stored_from(page) == len(there)

    @rule(page=PAGES, length=st.integers(1, 300))
    def foresee_blocks(self, page: int, length: int) -> None:
        there = {key >> 6 for key, slot in self.model.items() if slot != HOLE}
        assert self.map.new_blocks(page, length) == len({key >> 6 for key in range(page, page + length)} - there)


class SlotsMachine(RuleBasedStateMachine):
    """Slots against a set."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots()
        self.free: set[int] = set()
        self.taken: list[tuple[int, int]] = []
        self.end = 1

    @rule(length=st.integers(1, 100), gap=st.integers(0, 3))
    def grow(self, length: int, gap: int) -> None:
        self.end += gap
        self.slots.give(self.end, length)
        self.free |= set(range(self.end, self.end + length))
        self.end += length

    @rule(length=st.integers(1, 150), near=st.integers(0, 500))
    def take(self, length: int, near: int) -> None:
        length = min(length, len(self.free))
        extents = self.slots.take(length, near)
        assert sum(extent.length for extent in extents) == length
        for slot, size in extents:
            assert size > 0
            assert set(range(slot, slot + size)) <= self.free
            self.free -= set(range(slot, slot + size))
            self.taken.append((slot, size))

    @rule(back=st.integers(0, 40), length=st.integers(1, 60), data=st.data())
    def take_before(self, back: int, length: int, data: st.DataObject) -> None:
        ends = [sum(extent) for extent in self.slots.extents()]
        end = data.draw(st.sampled_from([*ends, 1]))
        extent = self.slots.take_before(end, end - back, length)
        wanted = set[int]()
        for slot in range(end - back - 1, end - back - 1 - length, -1):
            if not set(range(slot, end)) <= self.free:
                break
            wanted.add(slot)
        assert set(range(extent.slot, sum(extent)) if extent is not None else ()) == wanted
        self.free -= wanted
        if extent is not None:
            self.taken.append(extent)

    @rule(bits=st.integers(0, 6))
    def long_ones(self, bits: int) -> None:
        long = [extent for extent in self.slots.extents() if extent.length >= 1 << bits]
        assert sorted(self.slots.long_extents(1 << bits)) == long

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        slot, size = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        part = data.draw(st.integers(1, size))
        self.slots.give(slot, part)
        self.free |= set(range(slot, slot + part))
        if part < size:
            self.taken.append((slot + part, size - part))

    @rule()
    def check(self) -> None:
        extents = self.slots.extents()
        assert self.slots.free == len(self.free)
        assert {slot for first, size in extents for slot in range(first, first + size)} == self.free
        for (first, size), (following, _) in pairwise(extents):
            assert first + size < following  # neighbours are joined


def test_a_growing_file_stays_in_one_piece() -> None:
    slots = Slots()
    slots.give(1, 1000)
    (first,) = slots.take(10)
    slots.take(5)
    slots.give(first.slot + first.length, 2)
    assert slots.take(2, near=first.slot + first.length) == [(first.slot + first.length, 2)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 63, 64, 65, 1 << 32, (1 << 32) + 1]), st.integers(-4, 4))))
def test_holds_count_and_forget(changes: list[tuple[int, int]]) -> None:
    holds, model = Holds(), dict[int, int]()
    for ino, count in changes:
        if count > 0:
            holds.take(ino, count)
            model[ino] = model.get(ino, 0) + count
        elif model.get(ino, 0) >= -count:
            model[ino] = model.get(ino, 0) + count
            assert holds.drop(ino, -count) == model[ino]
        assert all(holds[key] == value for key, value in model.items())
    for ino, count in model.items():
        holds.drop(ino, count)
    assert not holds._blocks


TestPageMap = PageMapMachine.TestCase
TestSlots = SlotsMachine.TestCase
TestPageMap.settings = TestSlots.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
