"""Snapshots in a shadow file: made without copying a page, there after any end of the process and any power cut, and
nothing of them left when they are deleted."""

import os
import random
from pathlib import Path

import pytest
from builders.fault_disk import FaultDisk, killed, unplugged
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.overlay_state import state
from builders.overlay_walk import everything, walk
from builders.rough_use import forest, move_around

import overlay.file
import overlay.recovery
import overlay.space
from overlay.change import Change, GoBack, Keep, Put, Unkeep
from overlay.check import check
from overlay.compact import compact
from overlay.errors import ShadowDamaged
from overlay.file import FileStore
from overlay.history import MOST_SNAPSHOTS, History
from overlay.keeps import Keeps
from overlay.overlay import Overlay
from overlay.store import Sync
from overlay.vfs import run

BASE = {"image": "x"}
CALLER = Caller()
PAGE = 4096


def past(tree: Overlay) -> str:
    """What is and what the snapshots are, as one text."""
    views = [(name, one.made_ns, state(one.view)) for name, one in tree.snapshots().items()]
    return repr((state(tree), views))


def reopen(data: bytes, lower: LowerTree) -> tuple[Overlay, FileStore]:
    store = FileStore(FaultDisk(data), BASE)
    return Overlay(lower, store), store


def one_thing(tree: Overlay, source: random.Random) -> None:
    """With snapshots and resets among the things that happen."""
    name = b"snapshot %d" % source.randrange(4)
    try:
        match source.randrange(12):
            case 0 | 1:
                tree.snapshot(name)
            case 2:
                tree.rollback(name)
            case 3:
                tree.delete_snapshot(name)
            case 4:
                tree.reset()
            case 5:
                run(tree.restore(source.choice([b"dir", b"dir/b", b"dir/b/c/link", b"file", b"empty", b"dir/c"])))
            case _:
                move_around(tree, source, 1)
    except OSError:
        pass


class Diary:
    """A run on a disk: after which event which state was reached."""

    def __init__(self, seed: int, operations: int) -> None:
        source = random.Random(seed)
        self.disk, self.lower = FaultDisk(), forest(case_sensitive=True)
        store = FileStore(self.disk, BASE)
        tree = Overlay(self.lower, store)
        self.ends = [len(self.disk.events)]
        self.states = [past(tree)]
        self.synced = [(len(self.disk.events), 0)]
        commit = tree._state.commit

        def noted(change: Change) -> None:
            commit(change)
            self.ends.append(len(self.disk.events))
            self.states.append(past(tree))

        tree._state.commit = noted
        under_way: list[Sync] = []
        while len(self.ends) <= operations:
            if source.random() < 0.1:
                run(tree.fsync())
                self.synced.append((len(self.disk.events), len(self.states) - 1))
            elif source.random() < 0.1 and (sync := store.begin_sync()) is not None:
                sync.flush()
                self.synced.append((len(self.disk.events), len(self.states) - 1))
                under_way.append(sync)
            elif under_way and source.random() < 0.2:
                store.end_sync(under_way.pop())
            elif source.random() < 0.1:
                for ino in tree.held:
                    tree.forget(ino, 1000)
            else:
                one_thing(tree, source)

    def allowed(self, count: int, kept: bool) -> set[str]:
        last = max((index for index, end in enumerate(self.ends) if end <= count), default=0)
        first = last if kept else max(safe for end, safe in self.synced if end <= count)
        return set(self.states[first : last + 2])


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_write(seed: int) -> None:
    diary = Diary(seed, 70)
    for count in range(diary.ends[0], len(diary.disk.events)):
        tree, store = reopen(killed(diary.disk.events, count, (count % 5) / 5), diary.lower)
        assert past(tree) in diary.allowed(count, kept=True), count
        assert store.verify() == []


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", range(4))
def test_without_power_at_any_write(seed: int) -> None:
    diary = Diary(10 + seed, 70)
    source = random.Random(seed)
    for count in range(diary.ends[0], len(diary.disk.events)):
        tree, store = reopen(unplugged(diary.disk.events, count, source), diary.lower)
        assert past(tree) in diary.allowed(count, kept=False), count
        assert store.verify() == []


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("fault", ["slots not kept", "kept slots taken for free ones"])
def test_the_search_finds_what_it_is_for(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "slots not kept":
        monkeypatch.setattr(Keeps, "release", lambda self, runs: list(runs))
    else:
        free = overlay.recovery._free_slots
        monkeypatch.setattr(
            overlay.recovery, "_free_slots", lambda disk, history, log: free(disk, History(history.tree), log)
        )

    def search() -> None:
        for seed in range(4):
            diary = Diary(seed, 70)
            for count in range(diary.ends[0], len(diary.disk.events)):
                tree, store = reopen(killed(diary.disk.events, count, 0.5), diary.lower)
                assert past(tree) in diary.allowed(count, kept=True)
                for number in range(3):
                    ino = run(tree.mknod(2, b"new %d" % number, 0o100644, 0, CALLER)).ino
                    run(tree.write(ino, 0, b"new" * 5000))
                assert store.verify() == []

    # KeyError: a slot that is free already. OSError: a page that is not what was written.
    with pytest.raises((AssertionError, KeyError, ShadowDamaged, OSError)):
        search()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("seed", range(4))
def test_again_and_again_from_the_file(seed: int, tmp_path: Path) -> None:
    """Used, closed and opened again, many times; after every opening all is as it was, and in the end no page is lost."""
    source = random.Random(seed)
    path = tmp_path / "shadow"
    lower = forest(case_sensitive=bool(seed % 2))
    before = None
    for life in range(12):
        tree = Overlay(lower, FileStore.open_file(path, BASE))
        assert before is None or past(tree) == before
        for _ in range(25):
            one_thing(tree, source)
        for ino in tree.held:
            tree.forget(ino, 1000)
        before = past(tree)
        assert tree.tree.weight == tree.tree.weigh()
        tree.close()
        report = check(path)
        assert report.problems == []
        assert len(report.snapshots) == before.count("b'snapshot ")
        if life % 4 == 3:
            with open(tmp_path / "compact", "w+b") as new:
                compact(str(path), os.dup(new.fileno()))
            (tmp_path / "compact").rename(path)
    tree = Overlay(lower, FileStore.open_file(path, BASE))
    for name in list(tree.snapshots()):
        tree.delete_snapshot(name)
    tree.reset()
    tree.close()
    report = check(path)
    assert (report.inodes, report.problems) == (0, [])
    assert report.size < 1 << 18


def test_a_snapshot_copies_no_page_and_gives_all_back() -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    ino = run(tree.mknod(2, b"big", 0o100644, 0, CALLER)).ino
    run(tree.write(ino, 0, random.Random(1).randbytes(1000 * PAGE)))
    run(tree.fsync())
    used, written = store.used, sum(len(event.data) for event in disk.events)
    for number in range(10):
        tree.snapshot(b"%d" % number)
    assert sum(len(event.data) for event in disk.events) - written < 2000
    assert store.used - used < 4 * PAGE
    run(tree.write(ino, 7 * PAGE, b"x" * PAGE))
    assert store.used - used < 6 * PAGE
    run(tree.unlink(2, b"big"))
    tree.forget(ino)
    run(tree.fsync())
    assert store.used > 1000 * PAGE
    tree.rollback(b"3")
    assert bytes(run(tree.read(walk(tree)[b"big"], 7 * PAGE, PAGE))) != b"x" * PAGE
    tree.reset()
    for number in range(10):
        run(tree.fsync())
        assert store.used > 1000 * PAGE
        tree.delete_snapshot(b"%d" % number)
    run(tree.fsync())
    assert store.used < used - 990 * PAGE


def test_compacting_copies_what_snapshots_share_once(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(LowerTree(), FileStore.open_file(path, BASE))
    ino = run(tree.mknod(2, b"big", 0o100644, 0, CALLER)).ino
    run(tree.write(ino, 0, random.Random(1).randbytes(1000 * PAGE)))
    for number in range(20):
        tree.snapshot(b"%d" % number)
        run(tree.write(ino, number * 9 * PAGE, random.Random(number).randbytes(PAGE)))
    before = past(tree)
    tree.close()
    with open(tmp_path / "compact", "w+b") as new:
        compact(str(path), os.dup(new.fileno()))
    assert (tmp_path / "compact").stat().st_size < 1300 * PAGE
    again = Overlay(LowerTree(), FileStore.open_file(tmp_path / "compact", BASE))
    assert past(again) == before


def test_the_record_of_a_whole_tree_with_snapshots_says_each_thing_once(tmp_path: Path) -> None:
    """A checkpoint with 20 snapshots of a thousand objects is hardly larger than one without."""
    store = FileStore.open_file(tmp_path / "shadow", BASE)
    tree = Overlay(LowerTree(), store)
    for number in range(1000):
        tree.forget(run(tree.mknod(2, b"file %d" % number, 0o100644, 0, CALLER)).ino)
    store._checkpoint()
    size = store._log.size
    for number in range(20):
        tree.snapshot(b"%d" % number)
        run(tree.unlink(2, b"file %d" % number))
    was = everything(tree)
    store._checkpoint()
    assert store._log.size < size + 20 * 500
    tree.close()
    assert everything(Overlay(LowerTree(), FileStore.open_file(tmp_path / "shadow", BASE))) == was


@pytest.mark.parametrize(
    "items",
    [
        [GoBack(b"none")],
        [Unkeep(b"none")],
        [Keep(1, b"twice")],
        [Keep(1, b"a"), Keep(1, b"b")],
        [Keep(1, b"a"), Unkeep(b"a")],
    ],
)
def test_records_that_make_no_sense_are_damage(items: list[object]) -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    tree.snapshot(b"twice")
    change = Change()
    change.items += items
    store.commit(change)
    with pytest.raises(ShadowDamaged):
        reopen(bytes(disk.data), LowerTree())


def test_a_file_cannot_make_us_keep_any_number_of_copies() -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    for number in range(MOST_SNAPSHOTS + 1):
        change = Change()
        change.items += [Put(run(tree.getattr(2)), 0), Keep(1, b"%d" % number)]
        store.commit(change)
    with pytest.raises(ShadowDamaged, match="does not apply"):
        reopen(bytes(disk.data), LowerTree())
