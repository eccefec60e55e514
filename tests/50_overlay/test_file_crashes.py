"""The file store under crashes: cuts at every write, as by kill and as by a power failure. Nothing that was synced is ever
missing, and what is found is always the state after some operation.
"""

import random

import pytest
from builders.fault_disk import Event, FaultDisk, killed, unplugged
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller, Pair
from builders.overlay_state import state
from builders.random_operations import Choice, build

import overlay.file
import overlay.recovery
import overlay.space
from overlay.errors import ShadowDamaged
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.store import Sync
from overlay.vfs import run

BASE = {"size": 12345, "koly": "abc", "volume": "0123456789ABCDEF"}
CALLER = Caller()


def reopen(data: bytes, lower: LowerTree) -> tuple[Overlay, FileStore]:
    store = FileStore(FaultDisk(data), BASE)
    return Overlay(lower, store), store


class Diary:
    """A run of random operations on a disk: after which event which state was reached. states[0] is that before all."""

    def __init__(self, seed: int, operations: int) -> None:
        source = random.Random(seed)
        self.disk = FaultDisk()
        self.pair = Pair(build(case_sensitive=True), FileStore(self.disk, BASE))
        self.ends = [len(self.disk.events)]
        self.states = [state(self.pair.overlay)]
        self.synced: list[tuple[int, int]] = [(len(self.disk.events), 0)]  # after this event, this state is safe
        choice = Choice(
            self.pair,
            source.choice,
            lambda limit: source.randrange(max(1, limit)),
            lambda length: source.choice([bytes, source.randbytes])(min(length, 30_000)),
        )
        under_way: list[Sync] = []
        while len(self.ends) <= operations:
            if source.random() < 0.08:
                run(self.pair.overlay.fsync())
                self.synced.append((len(self.disk.events), len(self.states) - 1))
            elif source.random() < 0.05 and (sync := self.pair.store.begin_sync()) is not None:
                sync.flush()  # as in another thread: operations go on before its end is heard of
                self.synced.append((len(self.disk.events), len(self.states) - 1))
                under_way.append(sync)
            elif under_way and source.random() < 0.1:
                self.pair.store.end_sync(under_way.pop(source.randrange(len(under_way))))
            elif source.random() < 0.15 and self.pair.model.held:
                ino = source.choice(sorted(self.pair.model.held))
                self.pair.forget(ino, self.pair.model.held[ino])
            else:
                self.pair.call(*choice.operation())
            if len(self.disk.events) > self.ends[-1]:
                self.ends.append(len(self.disk.events))
                self.states.append(state(self.pair.overlay))

    def allowed(self, count: int, kept: bool) -> set[str]:
        """States that may be found after `count` events; `kept`: nothing that ended before may be missing."""
        last = max((index for index, end in enumerate(self.ends) if end <= count), default=0)
        first = last if kept else max(safe for end, safe in self.synced if end <= count)
        return set(self.states[first : last + 2])


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_write_nothing_that_ended_is_missing(seed: int) -> None:
    diary = Diary(seed, 140)
    events = diary.disk.events
    begun = diary.ends[0]
    assert len(events) - begun > 150
    for count in range(begun, len(events)):
        tree, store = reopen(killed(events, count, (count % 5) / 5), diary.pair.lower)
        assert state(tree) in diary.allowed(count, kept=True), count
        assert store.verify() == []


def search(seed: int) -> None:
    """Raises AssertionError if a power cut anywhere in this run does harm."""
    diary = Diary(seed, 140)
    events = diary.disk.events
    source = random.Random(seed)
    for count in range(diary.ends[0], len(events)):
        tree, store = reopen(unplugged(events, count, source), diary.pair.lower)
        assert state(tree) in diary.allowed(count, kept=False), count
        assert store.verify() == []


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_without_power_at_any_write_nothing_synced_is_missing(seed: int) -> None:
    search(seed)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    "fault", ["slots used again at once", "pages not checked", "no sync before what is reported"]
)
def test_the_search_finds_what_it_is_for(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule of the store taken away: some power cut then does harm."""
    if fault == "slots used again at once":
        monkeypatch.setattr(
            overlay.space.Space, "give_later", lambda self, slot, length: self._slots.give(slot, length)
        )
    elif fault == "pages not checked":
        apply = overlay.recovery._Replay.apply
        monkeypatch.setattr(overlay.recovery._Replay, "apply", lambda self, record, check: apply(self, record, False))
    else:
        monkeypatch.setattr(FaultDisk, "sync", lambda self: None)

    def search_on() -> None:
        for seed in range(3, 12):
            search(seed)

    with pytest.raises((AssertionError, ShadowDamaged, OSError)):  # OSError: a page that is not what was written
        search_on()


def test_what_a_killed_process_left_is_made_safe_before_anything_is_built_on_it() -> None:
    """It may be in the file and not on the medium yet; free slots may hold what the medium would go back to."""
    disk = FaultDisk()
    tree = Overlay(LowerTree(), FileStore(disk, BASE))
    run(tree.mknod(2, b"new", 0o100644, 0, CALLER))
    before = len(disk.events)
    Overlay(LowerTree(), FileStore(disk, BASE))
    kinds = [event.kind for event in disk.events[before:]]
    assert kinds.index("sync") < kinds.index("write")


@pytest.mark.usefixtures("busy")
def test_cuts_while_the_file_is_begun() -> None:
    disk = FaultDisk()
    tree = Overlay(LowerTree(), FileStore(disk, BASE))
    empty = state(tree)
    for count in range(len(disk.events) + 1):
        for seed in range(20):
            data = unplugged(disk.events, count, random.Random(seed))
            assert state(reopen(data, LowerTree())[0]) == empty
        assert state(reopen(killed(disk.events, count, 0.5), LowerTree())[0]) == empty


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 101])
def test_many_crashes_in_a_row(seed: int) -> None:
    """Each life goes on from what the last crash left; nothing synced is ever lost, nothing lost comes back (seed 101: by
    records left behind the end, to which a record like the lost one led again)."""
    source = random.Random(seed)
    data = b""
    lower = build(case_sensitive=True)
    allowed: set[str] = set()
    for life in range(25):
        disk = FaultDisk(data)
        tree = Overlay(lower, FileStore(disk, BASE))
        found = state(tree)
        assert not life or found in allowed, f"life {life}"
        start = len(disk.events)
        marks = [(start, found, True)]
        for _ in range(source.randrange(1, 25)):
            kind = source.randrange(5)
            name = b"%d" % source.randrange(12)
            try:
                if kind == 0:
                    run(tree.mknod(2, name, 0o100644, 0, CALLER))
                elif kind == 1:
                    run(tree.unlink(2, name))
                elif kind == 2:
                    run(tree.fsync())
                    marks.append((len(disk.events), state(tree), True))
                else:
                    ino = run(tree.lookup(2, name)).ino
                    run(tree.write(ino, source.randrange(30_000), source.randbytes(source.randrange(1, 20_000))))
            except (FileExistsError, FileNotFoundError):
                continue
            marks.append((len(disk.events), state(tree), False))
        count = source.randrange(start, len(disk.events) + 1)
        # The data before this life is on the medium: opening syncs.
        data = _cut(data, disk, count, source)
        ended = [mark for mark in marks if mark[0] <= count]
        safe = max(index for index, mark in enumerate(ended) if mark[2])
        allowed = {mark[1] for mark in marks[safe : len(ended) + 1]}


def _cut(data: bytes, disk: FaultDisk, count: int, source: random.Random) -> bytes:
    before = [Event("size", len(data), b""), Event("write", 0, data), Event("sync", 0, b"")] if data else []
    return unplugged([*before, *disk.events], count + len(before), source)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", range(3))
def test_random_runs_over_a_file_end_like_the_model_and_survive(seed: int) -> None:
    source = random.Random(seed)
    disk = FaultDisk()
    disk.cold = seed == 1
    pair = Pair(build(case_sensitive=seed != 2), FileStore(disk, BASE))
    choice = Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes, source.randbytes])(length),
    )
    for step in range(1500):
        if step % 50 == 0:
            run(pair.overlay.fsync())
        if pair.model.held and source.random() < 0.1:
            ino = source.choice(sorted(pair.model.held))
            pair.forget(ino, source.randint(1, pair.model.held[ino]))
        pair.call(*choice.operation())
    pair.end()
    before = state(pair.overlay)
    pair.overlay.close()
    tree, store = reopen(bytes(disk.data), pair.lower)
    assert state(tree) == before
    assert store.verify() == []
    assert tree._state.tree.weight == tree._state.tree.weigh()
    assert not [node for node in tree._state.tree.nodes.values() if not node.attr.nlink]
