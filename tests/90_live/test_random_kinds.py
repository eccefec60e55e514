"""The kinds of random runs that `scripts/test-random` makes beside the plain ones (tests/exercise/varieties.py), short, and
that they can fail.
"""

import os
import random
import shutil
from pathlib import Path

import pytest
from exercise import together
from exercise.randomops import Different, Pair
from exercise.spelling import FoldingSide
from exercise.varieties import KINDS

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("kind", "seed", "operations"),
    [
        ("lives", 1, 300),
        ("snapshots", 1, 360),
        ("without room", 1, 500),
        ("spellings", 1, 500),
        ("lists", 1, 500),
        ("crowd", 1, 450),
    ],
)
def test_a_short_run_shows_no_difference(tmp_path: Path, kind: str, seed: int, operations: int) -> None:
    KINDS[kind](tmp_path, seed, operations)


def test_a_room_that_is_not_lacking_must_not_be_refused(tmp_path: Path) -> None:
    """A pair that may lack room tolerates ENOSPC and nothing else, and not where room becomes free."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    pair = Pair(tmp_path / "one", tmp_path / "other", full=True)
    (tmp_path / "one/file").unlink()
    with pytest.raises(Different, match="ENOENT"):
        pair.do(("unlink", "file"))


def test_a_model_without_case_finds_and_respells(tmp_path: Path) -> None:
    side = FoldingSide(tmp_path)
    side.mkdir("Folder", 0o755)
    side.create("FOLDER/File", 0o644)
    with pytest.raises(FileExistsError):
        side.create("folder/FILE", 0o644)
    side.create("folder/other", 0o644)
    side.rename("folder/OTHER", "folder/fILE")
    assert os.listdir(tmp_path / "Folder") == ["fILE"]
    side.rename("folder/File", "FOLDER/FILE")
    assert os.listdir(tmp_path / "Folder") == ["fILE"]


def test_what_does_not_add_up_is_noticed(tmp_path: Path) -> None:
    def settled() -> list[tuple[int, list[str], list[str]]]:
        place = tmp_path / "meeting"
        shutil.rmtree(place, ignore_errors=True)
        together.Meeting.prepare(place)
        reports = []
        for number in range(2):
            meeting = together.Meeting(place, number)
            for turn in range(3):
                meeting.meet(turn, random.Random(number))
            reports.append((meeting.appended, meeting.won, meeting.names))
        return reports

    meeting = tmp_path / "meeting"
    together.settle(meeting, settled())
    reports = settled()
    with open(meeting / "log", "r+b") as log:
        log.truncate(together.RECORD * 5)
    with pytest.raises(AssertionError, match="records"):
        together.settle(meeting, reports)
    reports = settled()
    reports[1][1].append(reports[0][1][0])
    with pytest.raises(AssertionError, match="twice"):
        together.settle(meeting, reports)
    reports = settled()
    os.link(meeting / "shared", tmp_path / "another")
    with pytest.raises(AssertionError):
        together.settle(meeting, reports)
