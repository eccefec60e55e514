"""Shadows in files on real mounts: kill -9 of the daemon under load, and disks that are full. The long forms are
`scripts/test-crashes`; a cut at every single write is in tests/50_overlay/test_file_crashes.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise import full
from exercise.crashes import Life
from exercise.daemon import clear_away
from exercise.randomops import Different
from exercise.trees import digest
from exercise.workloads.home import Home

pytestmark = pytest.mark.kernel

WORKLOAD = Path(__file__).resolve().parents[1] / "data/workload.dmg"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    before = digest(os.fsencode(WORKLOAD))
    home = Home(WORKLOAD, tmp_path / "mnt", tmp_path / "shadow")
    yield home
    clear_away(home.place)
    assert digest(os.fsencode(WORKLOAD)) == before


def test_killed_under_load_nothing_that_returned_is_missing(home: Home, tmp_path: Path) -> None:
    life = Life(home, tmp_path / "models", processes=2, seed=7)
    for seconds in (0.2, 0.6, 0.4):
        life.once(seconds)
    assert life.ended > 50
    home.leave()


def test_that_test_can_fail(home: Home, tmp_path: Path) -> None:
    """Something that no operation under way explains."""
    life = Life(home, tmp_path / "models", processes=1, seed=8)
    (tmp_path / "models/home 0/returned").touch()
    with pytest.raises(Different, match="returned"):
        life.once(0.2)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with full.small_disk(tmp_path / "disk", "2m") as disk:
        home = Home(WORKLOAD, tmp_path / "mnt", disk / "shadow")
        try:
            assert full.exercise(home, tmp_path / "model", seed=3, rounds=2, operations=150, kill=True) > 10
        finally:
            clear_away(home.place)
