"""Recording and replaying: what is noted, what is fetched ahead, and that neither runs away."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders.udif import Piece, Table, build

from dmgfs.errors import CorruptImage
from dmgfs.fuse import playlist as playing
from dmgfs.fuse.playlist import PLAIN_PART, Playing, Replay, WatchedDisk, Wish, automatic_folder
from dmgfs.image import Image, open_image
from dmgfs.playlist import Playlist, identity_of, read_file, write_file
from dmgfs.source import Load, MemorySource

UNIT = 100


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


class Units:
    """A disk of units of 100 bytes that are decoded one by one; `decoded` says which, in order."""

    def __init__(self, count: int, broken: frozenset[int] = frozenset()) -> None:
        self.size = count * UNIT
        self.decoded: list[int] = []
        self._broken = broken

    def parts(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        return [(unit * UNIT, UNIT) for unit in range(offset // UNIT, (offset + length - 1) // UNIT + 1)]

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        unit = offset // UNIT
        if unit in self._broken:
            return [Load(unit, self._fail)]
        return [] if unit in self.decoded else [Load(unit, lambda: self.decoded.append(unit))]

    def _fail(self) -> None:
        raise CorruptImage("test", "unit", "broken")


def touches(disk: WatchedDisk) -> list[int]:
    return [start // UNIT for start, _ in disk.touches]


# -- watching -----------------------------------------------------------------------------------------------------------


def test_parts_are_noted_once_and_in_order() -> None:
    disk = WatchedDisk(Units(50), memory=1 << 30)
    for offset, length in ((1000, 10), (1005, 20), (0, 1), (950, 200), (1000, 5), (99, 1)):
        assert len(disk.read(offset, length)) == length
    assert touches(disk) == [10, 0, 9, 11]


def test_a_part_is_noted_again_when_it_may_be_forgotten() -> None:
    disk = WatchedDisk(Units(50), memory=3 * UNIT)
    for unit in (0, 1, 2, 0, 3, 4, 0, 5, 6, 7, 8, 0):
        disk.read(unit * UNIT, 1)
    assert touches(disk) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_a_plain_disk_is_noted_in_pieces() -> None:
    disk = WatchedDisk(MemorySource(bytes(3 * PLAIN_PART + 5)), memory=1 << 30)
    disk.read(PLAIN_PART - 1, 2)
    disk.read(3 * PLAIN_PART, 5)
    assert disk.touches == [(0, PLAIN_PART), (PLAIN_PART, PLAIN_PART), (3 * PLAIN_PART, 5)]


def test_looking_notes_nothing_and_bad_ranges_do_not_either() -> None:
    disk = WatchedDisk(Units(5), memory=1 << 30)
    assert len(disk.cold(0, 10)) == 1
    disk.read(490, 20)
    disk.read(-5, 5)
    disk.read(0, 0)
    assert disk.touches == []


def test_a_recording_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "MOST_RECORDED", 3)
    disk = WatchedDisk(Units(50), memory=1 << 30)
    disk.read(0, 5000)
    assert touches(disk) == [0, 1, 2]


def test_the_chunks_of_a_udif_are_its_parts(tmp_path: Path) -> None:
    pieces = [
        Piece("zlib", b"a" * 8192),
        Piece("zero", 16),
        Piece("raw", b"b" * 300_032),
        Piece("bzip2", b"c" * 4096),
    ]
    for name, data in build([Table("t", pieces)]).files.items():
        (tmp_path / name).write_bytes(data)
    with open_image(tmp_path / "image.dmg") as image:
        disk = WatchedDisk(image.disk, memory=1 << 30)
        assert len(disk.read(0, image.disk.size)) == image.disk.size
        raw, size = 8192 + 16 * 512, 300_032
        assert disk.touches == [
            (0, 8192),
            (raw, 131_072),
            (raw + 131_072, 131_072),
            (raw + 262_144, size - 262_144),
            (raw + size, 4096),
        ]


# -- replaying ----------------------------------------------------------------------------------------------------------


def replay(disk: Units, units: Sequence[int], budget: int = 1 << 30) -> Replay:
    return Replay([(unit * UNIT, UNIT) for unit in units], disk, budget)


def test_the_list_is_fetched_in_its_order() -> None:
    disk = Units(50)
    one = replay(disk, [7, 3, 40, 3])
    one.start()
    assert eventually(lambda: disk.decoded == [7, 3, 40])
    for unit in (7, 3, 40):
        one.touch(unit * UNIT)
    one.stop()
    assert (one.fetched, one.wanted, one.too_late) == (3, 3, 0)


def test_it_stays_within_its_budget_and_goes_on_as_it_is_used() -> None:
    disk = Units(50)
    one = replay(disk, range(20), budget=5 * UNIT)
    one.start()
    assert eventually(lambda: len(disk.decoded) == 5)
    time.sleep(0.05)
    assert disk.decoded == [0, 1, 2, 3, 4]
    one.touch(1 * UNIT)
    one.touch(2 * UNIT)
    assert eventually(lambda: len(disk.decoded) == 7)
    time.sleep(0.05)
    assert disk.decoded == list(range(7))
    one.stop()


def test_it_does_not_stick_to_what_nobody_wants() -> None:
    disk = Units(50)
    one = replay(disk, range(20), budget=4 * UNIT)
    one.start()
    assert eventually(lambda: len(disk.decoded) == 4)
    time.sleep(0.05)
    one.touch(10 * UNIT)  # listed, not fetched: the older half of what was fetched is given up
    assert eventually(lambda: len(disk.decoded) == 6)
    one.stop()
    assert one.too_late == 1


def test_what_was_asked_for_already_is_left_out() -> None:
    disk = Units(50)
    one = replay(disk, range(10))
    one.touch(3 * UNIT)
    one.touch(49 * UNIT)  # not in the list
    one.start()
    assert eventually(lambda: len(disk.decoded) == 9)
    one.stop()
    assert 3 not in disk.decoded
    assert one.too_late == 1


def test_broken_parts_and_parts_larger_than_the_budget_are_passed_over() -> None:
    disk = Units(50, broken=frozenset({1}))
    one = Replay([(0, UNIT), (UNIT, UNIT), (2 * UNIT, 99 * UNIT), (3 * UNIT, UNIT)], disk, 10 * UNIT)
    one.start()
    assert eventually(lambda: disk.decoded == [0, 3])
    one.stop()


def test_it_stops_while_it_waits() -> None:
    disk = Units(50)
    one = replay(disk, range(20), budget=2 * UNIT)
    one.start()
    assert eventually(lambda: len(disk.decoded) == 2)
    begin = time.monotonic()
    one.stop()
    assert time.monotonic() - begin < 2
    assert len(disk.decoded) == 2


def test_touches_from_many_threads() -> None:
    disk = Units(2000)
    one = replay(disk, range(2000), budget=50 * UNIT)
    one.start()
    readers = [
        threading.Thread(target=lambda first=first: [one.touch(unit * UNIT) for unit in range(first, 2000, 4)])
        for first in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    one.stop()
    assert len(set(disk.decoded)) == len(disk.decoded)
    assert one.wanted + one.too_late <= 2000, "the others were given up"
    assert one._ahead == sum(one._unread.values()) <= 50 * UNIT


# -- on an image --------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name, data in build(
        [Table("t", [Piece("zlib", bytes([unit]) * 8192) for unit in range(1, 30)])]
    ).files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path / "image.dmg"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "SAVE_SECONDS", 0.01)


def read(image: Image, *units: int) -> None:
    for unit in units:
        assert image.disk.read(unit * 8192, 8192) == bytes([unit + 1]) * 8192


def listed(path: Path) -> list[int]:
    return [start // 8192 for start, _ in read_file(str(path)).parts]


def test_what_is_recorded_is_replayed(path: Path, tmp_path: Path) -> None:
    kept = tmp_path / "list"
    with open_image(path) as image:
        one = Playing(Wish("record", str(kept)), image)
        one.start()
        read(image, 5, 3, 20)
        assert eventually(kept.exists), "it is saved while the mount lives"
        one.stop()
        one.stop()
    assert listed(kept) == [5, 3, 20]
    with open_image(path) as image:
        one = Playing(Wish("use", str(kept)), image)
        one.start()
        assert eventually(lambda: "3 of 3 parts fetched" in one.describe())
        assert eventually(lambda: not image.disk.cold(20 * 8192, 1))
        misses = image.cache.statistics().misses
        read(image, 5, 3, 20)
        assert image.cache.statistics().misses == misses
        assert "3 of them wanted, 0 too late" in one.describe()
        one.stop()
    assert listed(kept) == [5, 3, 20]


@pytest.mark.parametrize("kind", ["other image", "damaged", "missing", "folder"])
def test_a_list_that_cannot_be_used_is_a_warning(path: Path, tmp_path: Path, caplog, kind: str) -> None:
    kept = tmp_path / "list"
    if kind == "other image":
        write_file(Playlist("0" * 32, 29 * 8192, ((0, 8192),)), str(kept))
    elif kind == "damaged":
        kept.write_bytes(b"dmgfs playlist 1\nimage \x00")
    elif kind == "folder":
        kept.mkdir()
    with open_image(path) as image, caplog.at_level(logging.WARNING):
        one = Playing(Wish("use", str(kept)), image)
        one.start()
        read(image, 7)
        one.stop()
    (record,) = caplog.records
    assert "is ignored" in record.message


def test_a_hostile_list_costs_no_more_than_its_budget(path: Path, tmp_path: Path) -> None:
    kept = tmp_path / "list"
    with open_image(path, cache_bytes=64 << 10) as image:
        size = image.disk.size
        parts = [(0, size), *((at, 1) for at in range(0, size, 7)), (size - 1, 1), (0, size)]
        write_file(Playlist(identity_of(image.container), size, tuple(parts)), str(kept))
        one = Playing(Wish("use", str(kept)), image)
        one.start()
        read(image, *range(29))
        one.stop()
        assert image.cache.statistics().bytes <= 64 << 10


def test_automatic_lists_are_kept_by_image_and_learn(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert automatic_folder() == str(tmp_path / "cache" / "dmgfs")
    for units in ((5, 3), (3, 9), ()):
        with open_image(path) as image:
            one = Playing(Wish("auto"), image)
            one.start()
            read(image, *units)
            one.stop()
    (kept,) = (tmp_path / "cache" / "dmgfs").iterdir()
    assert listed(kept) == [5, 3, 9]
    assert os.stat(tmp_path / "cache" / "dmgfs").st_mode & 0o777 == 0o700


def test_only_the_latest_automatic_lists_stay(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(playing, "MOST_KEPT", 3)
    folder = tmp_path / "dmgfs"
    folder.mkdir()
    for age in range(5):
        old = folder / f"{age:032x}.playlist"
        old.touch()
        os.utime(old, (1000 - age, 1000 - age))
    (folder / "something else").touch()
    with open_image(path) as image:
        one = Playing(Wish("auto"), image)
        one.start()
        read(image, 1)
        one.stop()
        name = f"{identity_of(image.container)}.playlist"
    assert {entry.name for entry in folder.iterdir()} == {
        f"{0:032x}.playlist",
        f"{1:032x}.playlist",
        name,
        "something else",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(path: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "dmgfs").mkdir()
    os.chown(tmp_path / "dmgfs", 12345, 12345)
    with open_image(path) as image, caplog.at_level(logging.WARNING):
        one = Playing(Wish("auto"), image)
        one.start()
        read(image, 1)
        one.stop()
    assert "belongs to user 12345" in caplog.text
    assert list((tmp_path / "dmgfs").iterdir()) == []


def test_a_full_disk_loses_the_list_and_nothing_else(path: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(playing, "write_file", full)
    with open_image(path) as image, caplog.at_level(logging.WARNING):
        one = Playing(Wish("record", str(tmp_path / "list")), image)
        one.start()
        read(image, 1)
        assert eventually(lambda: "cannot be saved: No space" in caplog.text)
        read(image, 2)
        one.stop()


def test_recording_into_a_folder_that_is_not_there_fails_at_once(path: Path, tmp_path: Path) -> None:
    with open_image(path) as image, pytest.raises(FileNotFoundError):
        Playing(Wish("record", str(tmp_path / "none" / "list")), image)
