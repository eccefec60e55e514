"""The overlay against its model over several lives: shadow files that are closed, killed and opened again, also where there
is no room; snapshots that are gone back to, also in another life; files that reach further than any disk.
"""

import errno
import random

import pytest
from builders.fault_disk import FaultDisk
from builders.overlay_pair import Pair
from builders.random_operations import Choice, build

from overlay.file import FileStore
from overlay.ram import RamStore

BASE = {"size": 12345}


def choose(pair: Pair, source: random.Random, far: bool = False) -> Choice:
    return Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes, source.randbytes])(length),
        far,
    )


def let_go_of_some(pair: Pair, source: random.Random) -> None:
    if pair.model.held and source.random() < 0.1:
        ino = source.choice(sorted(pair.model.held))
        pair.forget(ino, source.randint(1, pair.model.held[ino]))


class Snapshots:
    """Of a pair: made, gone back to and deleted at random."""

    def __init__(self, pair: Pair, source: random.Random) -> None:
        self.pair, self.source = pair, source
        self.made = 0

    def change(self) -> None:
        pair, known = self.pair, sorted(self.pair.snapshots)
        match self.source.choice(("make", "go back", "go back", "delete")):
            case "make" if len(known) < 5:
                self.made += 1
                try:
                    pair.snapshot(b"%d" % self.made)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            case "go back" if known:
                pair.rollback(self.source.choice(known))
                pair.compare()
            case "delete" if known:
                pair.delete_snapshot(self.source.choice(known))


@pytest.mark.parametrize(("seed", "limit"), [(0, 1 << 40), (1, 1 << 40), (2, 800_000), (3, 640_000)])
def test_lives_of_a_shadow_file_end_like_the_model(seed: int, limit: int) -> None:
    """Ten lives, each ended by closing or by kill -9; with a small limit most of what needs room is refused."""
    source = random.Random(seed)
    disk = FaultDisk(limit=limit)
    pair = Pair(build(case_sensitive=seed % 2 == 0), FileStore(disk, BASE))
    choice = choose(pair, source, far=True)
    snapshots = Snapshots(pair, source)
    for life in range(10):
        for step in range(250):
            pair.call(*choice.operation())
            let_go_of_some(pair, source)
            if seed % 2 and step % 50 == 49:
                snapshots.change()
        pair.compare()
        killed = life % 3 == 1
        pair.close(killed)
        disk = FaultDisk(bytes(disk.data), limit=limit)
        pair.open(FileStore(disk, BASE))
        pair.compare()
        assert isinstance(pair.store, FileStore)
        assert pair.store.verify() == []
    assert (pair.refused > 5) == (limit < 1 << 30)
    pair.end()


def test_what_is_lost_between_lives_is_noticed() -> None:
    """The test above can fail."""
    disk = FaultDisk()
    pair = Pair(build(case_sensitive=True), FileStore(disk, BASE))
    before = bytes(disk.data)
    pair.call("mkdir", pair.overlay.root, b"new", 0o755, 0)
    pair.close(killed=True)
    pair.open(FileStore(FaultDisk(before), BASE))
    with pytest.raises((AssertionError, OSError)):
        pair.compare()


@pytest.mark.parametrize("seed", range(4))
def test_going_back_ends_like_the_model(seed: int) -> None:
    """Snapshots are made, gone back to and deleted in any order, with objects held that were not there then."""
    source = random.Random(seed)
    pair = Pair(build(case_sensitive=seed % 2 == 1), RamStore(700_000 if seed == 3 else 1 << 28))
    choice = choose(pair, source, far=seed == 2)
    snapshots = Snapshots(pair, source)
    for step in range(1200):
        pair.call(*choice.operation())
        let_go_of_some(pair, source)
        if step % 40 == 39:
            snapshots.change()
    assert snapshots.made > 2
    for name in list(pair.snapshots):
        pair.rollback(name)
        pair.compare()
        pair.delete_snapshot(name)
    pair.end()


@pytest.mark.parametrize("seed", range(3))
def test_files_that_reach_far_end_like_the_model(seed: int) -> None:
    source = random.Random(seed)
    pair = Pair(build(case_sensitive=True), RamStore(1 << 20 if seed == 2 else 1 << 28))
    choice = choose(pair, source, far=True)
    for step in range(1500):
        pair.call(*choice.operation())
        let_go_of_some(pair, source)
        if step % 100 == 0:
            pair.compare()
    assert any(len(thing.data) > 1 << 40 for thing in pair.model.things.values())
    pair.end()
