"""The move into memory as the mount does it: the memory check, every file of the image, and a disk that fails."""

import logging
import os
import time
from pathlib import Path

import pytest
from builders.udif import Piece, Table, build

from dmgfs.errors import Unsupported
from dmgfs.fuse import toram
from dmgfs.fuse.toram import MARGIN, ToRam, _of_groups, available
from dmgfs.image import open_image


def images(folder: Path, segments: int = 1) -> Path:
    image = build([Table("t", [Piece("zlib", os.urandom(300_032)), Piece("raw", b"raw!" * 1280)])], segments=segments)
    for name, data in image.files.items():
        (folder / name).write_bytes(data)
    (folder / "disk").write_bytes(image.disk)
    return folder / "image.dmg"


def finish(one: ToRam) -> None:
    end = time.monotonic() + 10
    while "closed" not in one.describe():
        assert time.monotonic() < end, one.describe()
        time.sleep(0.002)


@pytest.mark.parametrize("segments", [1, 4])
def test_every_file_of_an_image_is_moved(tmp_path: Path, segments: int, caplog) -> None:
    path = images(tmp_path, segments)
    disk = (tmp_path / "disk").read_bytes()
    one = ToRam()
    with open_image(path, open_file=one.open_file) as image, caplog.at_level(logging.INFO):
        one.prepare(image.container.kind, 0)
        one.start()
        finish(one)
        for file in tmp_path.glob("image*"):
            file.write_bytes(b"")
        assert image.disk.read(0, image.disk.size) == disk
        one.stop()
        assert "its file is closed" in caplog.text


def test_too_little_memory_is_refused_before_anything_is_taken(tmp_path: Path, monkeypatch) -> None:
    path = images(tmp_path)
    size = path.stat().st_size
    one = ToRam()
    with open_image(path, open_file=one.open_file) as image:
        monkeypatch.setattr(toram, "available", lambda: size + 1000 + MARGIN - 1)
        with pytest.raises(MemoryError, match=r"needs 0\.3 MiB for the image.*without --toram"):
            one.prepare(image.container.kind, 1000)
        monkeypatch.setattr(toram, "available", lambda: size + 1000 + MARGIN)
        one.prepare(image.container.kind, 1000)


def test_a_bundle_is_refused_by_its_name() -> None:
    with pytest.raises(Unsupported, match=r"--toram for a sparse bundle.*convert"):
        ToRam().prepare("sparse bundle", 0)


def test_a_disk_that_fails_leaves_the_rest_in_the_file(tmp_path: Path, monkeypatch, caplog) -> None:
    path = images(tmp_path)
    disk = (tmp_path / "disk").read_bytes()
    one = ToRam()

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with open_image(path, open_file=one.open_file) as image, caplog.at_level(logging.ERROR):
        one.prepare(image.container.kind, 0)
        monkeypatch.setattr("dmgfs.container.residentfile.os.preadv", fail)
        one.start()
        one._thread.join(10)
        monkeypatch.undo()
        assert "the rest stays in its file: Input/output error" in one.describe()
        assert "must remain" in caplog.text
        assert image.disk.read(0, image.disk.size) == disk
        one.stop()


def test_it_stops_in_the_middle(tmp_path: Path, monkeypatch) -> None:
    path = images(tmp_path)
    monkeypatch.setattr("dmgfs.container.residentfile.STEP", 1)
    one = ToRam()
    with open_image(path, open_file=one.open_file) as image:
        one.prepare(image.container.kind, 0)
        one.start()
        one.stop()
        assert not one._thread.is_alive()
        assert "closed" not in one.describe()


def test_memory_is_what_the_tightest_group_leaves(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/\n0::/outer/inner\n")
    (inner / "memory.max").write_text("max\n")
    outer = inner.parent
    (outer / "memory.max").write_text("1000\n")
    (outer / "memory.current").write_text("700\n")
    (outer / "memory.stat").write_text("anon 600\ninactive_file 50\nactive_file 50\n")
    assert list(_of_groups(tmp_path, str(membership))) == [350]
    (outer / "memory.current").write_text("2000\n")
    assert list(_of_groups(tmp_path, str(membership))) == [0]
    assert list(_of_groups(tmp_path / "none", str(tmp_path / "none"))) == []


def test_this_machine_says_what_is_available() -> None:
    amount = available()
    assert amount is not None
    assert 0 < amount <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
