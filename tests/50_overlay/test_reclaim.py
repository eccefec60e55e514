"""What a shadow file holds for nothing goes back to the file system while it is used: nothing else goes, at no cut."""

import ctypes
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.fault_disk import FaultDisk, killed, unplugged
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.overlay_state import state
from builders.refusal import refused
from builders.rough_use import forest, move_around

import overlay.disk
import overlay.file
import overlay.overlay
import overlay.recovery
import overlay.space
from overlay.change import Change
from overlay.check import check
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.store import Sync
from overlay.vfs import run

BASE = {"image": "x"}
CALLER = Caller()
PAGE = 4096


def make(tree: Overlay, name: bytes, pages: int, seed: int = 0) -> int:
    ino = run(tree.mknod(2, name, 0o100644, 0, CALLER)).ino
    run(tree.write(ino, 0, random.Random(seed).randbytes(pages * PAGE)))
    return ino


def remove(tree: Overlay, name: bytes) -> None:
    ino = run(tree.lookup(2, name)).ino
    run(tree.unlink(2, name))
    tree.forget(ino, 1000)


class Diary:
    """A run with reclaiming under way while other things happen, each part of it at another time."""

    def __init__(self, seed: int, operations: int) -> None:
        source = random.Random(seed)
        self.disk, self.lower = FaultDisk(), forest(case_sensitive=True)
        store = FileStore(self.disk, BASE)
        tree = Overlay(self.lower, store)
        self.ends, self.states = [len(self.disk.events)], [state(tree)]
        self.synced = [(len(self.disk.events), 0)]
        commit = tree._state.commit
        begin = store.begin_sync

        def noted(change: Change) -> None:
            commit(change)
            self.ends.append(len(self.disk.events))
            self.states.append(state(tree))

        def begun() -> Sync | None:
            """What had ended when a sync began is safe when it has returned."""
            sync, reached = begin(), len(self.states) - 1

            def flush() -> None:
                sync.flush()
                self.synced.append((len(self.disk.events), reached))

            return None if sync is None else sync._replace(flush=flush)

        tree._state.commit = noted
        store.begin_sync = begun
        works = iter(())
        work: Callable[[], None] | None = None
        self.punched = 0
        while len(self.ends) <= operations:
            if source.random() < 0.2:
                if work is not None:
                    work()
                work = next(works, None)
                self.punched += work is not None
                if work is None:
                    works = store.reclaim(source.random() < 0.7)
            elif source.random() < 0.1:
                tree.reset()
            elif source.random() < 0.1:
                for ino in tree.held:
                    tree.forget(ino, 1000)
            else:
                move_around(tree, source, 1)

    def allowed(self, count: int, kept: bool) -> set[str]:
        last = max((index for index, end in enumerate(self.ends) if end <= count), default=0)
        first = last if kept else max(safe for end, safe in self.synced if end <= count)
        return set(self.states[first : last + 2])


@pytest.fixture
def small_pieces(busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay.space, "_PIECE", 5)
    monkeypatch.setattr(overlay.space, "_PIECE_MIN", 1)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("seed", range(3))
def test_cuts_anywhere_while_space_is_given_back(seed: int) -> None:
    diary = Diary(seed, 80)
    events = diary.disk.events
    source = random.Random(seed)
    assert diary.punched > 15
    assert any(event.kind == "size" and event.offset for event in events[diary.ends[0] :])
    for count in range(diary.ends[0], len(events)):
        kept = bool(count % 2)
        data = killed(events, count, (count % 5) / 5) if kept else unplugged(events, count, source)
        store = FileStore(FaultDisk(data), BASE)
        tree = Overlay(diary.lower, store)
        assert state(tree) in diary.allowed(count, kept), count
        assert store.verify() == []


def test_what_is_removed_goes_back_and_the_file_is_cut_off() -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    for number in range(20):
        make(tree, b"%d" % number, 500, number)
    run(tree.fsync())
    full = disk.allocated()
    for number in range(19):
        remove(tree, b"%d" % number)
    kept = state(tree)
    assert store.litter() >= 19 * 500 * PAGE
    run(tree.reclaim(everything=True))
    assert disk.allocated() < full - 18 * 500 * PAGE
    assert store.litter() < 200 * PAGE
    remove(tree, b"19")
    run(tree.reclaim(everything=True))
    assert disk.size < 600 * PAGE
    make(tree, b"19", 500, 19)
    assert state(Overlay(LowerTree(), FileStore(FaultDisk(bytes(disk.data)), BASE))) != kept
    store.close()
    assert FileStore(FaultDisk(bytes(disk.data)), BASE, read_only=True).budget > 0


def test_it_happens_by_itself_only_where_much_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay.overlay, "_LITTER_MIN", 300 * PAGE)
    disk = FaultDisk()
    tree = Overlay(LowerTree(), FileStore(disk, BASE))
    for number in range(10):
        make(tree, b"%d" % number, 100, number)
    remove(tree, b"0")
    events = len(disk.events)
    run(tree.reclaim())
    assert len(disk.events) == events
    for number in range(1, 5):
        remove(tree, b"%d" % number)
    taken = disk.allocated()
    run(tree.reclaim())
    assert disk.allocated() <= taken - 400 * PAGE
    events = len(disk.events)
    run(tree.reclaim())
    assert len(disk.events) == events


def test_nobody_takes_what_is_about_to_be_thrown_away() -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    make(tree, b"old", 1000)
    make(tree, b"last", 1)
    remove(tree, b"old")
    for work in store.reclaim(True):
        make(tree, b"new %d" % len(disk.events), 300, len(disk.events))  # before the worker comes to it
        work()
    assert store.verify() == []


def test_what_is_given_up_in_the_middle_may_still_happen() -> None:
    """The mount ends while a worker is at it: what is written meanwhile goes elsewhere."""
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(LowerTree(), store)
    make(tree, b"old", 1000)
    make(tree, b"last", 1)
    remove(tree, b"old")
    run(tree.fsync())
    steps = tree.reclaim(everything=True)
    ask = next(steps)
    while "punch" not in repr(ask.function):
        ask.function(*ask.arguments)
        ask = steps.send(None)
    steps.close()
    make(tree, b"new", 1000)
    ask.function(*ask.arguments)
    was = state(tree)
    assert store.verify() == []
    tree.close()
    assert state(Overlay(LowerTree(), FileStore(FaultDisk(bytes(disk.data)), BASE))) == was


def test_a_file_system_that_cannot_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(LowerTree(), FileStore.open_file(path, BASE))
    make(tree, b"old", 1000)
    make(tree, b"last", 1)
    remove(tree, b"old")
    monkeypatch.setattr(overlay.disk, "_FALLOCATE", lambda *arguments: ctypes.set_errno(errno.EOPNOTSUPP) or -1)
    run(tree.reclaim(everything=True))
    make(tree, b"new", 1000)
    assert tree.store.verify() == []


def test_a_failure_goes_to_whoever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def punch(self: FaultDisk, offset: int, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = FileStore(FaultDisk(), BASE)
    tree = Overlay(LowerTree(), store)
    make(tree, b"old", 1000)
    make(tree, b"last", 1)
    remove(tree, b"old")
    run(tree.fsync())
    free = store._space._slots.free
    monkeypatch.setattr(FaultDisk, "punch", punch)
    with refused(errno.EIO):
        run(tree.reclaim(everything=True))
    assert store._space._slots.free >= free - 200
    make(tree, b"new", 1000)
    assert store.verify() == []


def test_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(LowerTree(), FileStore.open_file(path, BASE))
    for number in range(10):
        make(tree, b"%d" % number, 256, number)
    for number in range(9):
        remove(tree, b"%d" % number)
    was = state(tree)
    run(tree.fsync())
    assert path.stat().st_blocks * 512 > 9 << 20
    free = os.statvfs(path).f_bavail
    run(tree.reclaim(everything=True))
    assert path.stat().st_blocks * 512 < 3 << 20
    assert tree.store.budget <= tree.store.used + (free + 9 * 256 + 20_000) * PAGE
    tree.close()
    assert check(path).problems == []
    assert state(Overlay(LowerTree(), FileStore.open_file(path, BASE))) == was


def test_what_was_preallocated_stays_reserved(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(LowerTree(), FileStore.open_file(path, BASE, preallocate=8 << 20))
    make(tree, b"old", 1000)
    remove(tree, b"old")
    run(tree.reclaim(everything=True))
    assert path.stat().st_size == 8 << 20
    assert path.stat().st_blocks * 512 >= 8 << 20
    tree.close()


def test_a_shadow_in_memory_and_none_have_nothing_to_wait_for() -> None:
    tree = Overlay(LowerTree(), RamStore(1 << 24))
    make(tree, b"old", 100)
    remove(tree, b"old")
    run(tree.reclaim(everything=True))
    assert not tree.store.arena.stale
    run(Overlay(LowerTree()).reclaim(everything=True))
