"""convert --to raw: the disk, with holes, all or nothing."""

import os
import stat
from pathlib import Path

from builders.partitions import HFS_GUID, Part, gpt_disk
from builders.udif import Piece, Table, build


def image_of(path: Path, disk: bytes, packed: bytes | None = None) -> Path:
    path.write_bytes(build([Table("whole disk", [Piece("zlib", disk, packed=packed), Piece("zero", 4096)])]).bytes)
    return path


def test_the_disk_is_written_with_holes(run, tmp_path: Path) -> None:
    disk = os.urandom(100 * 512)
    out = tmp_path / "out"
    assert run("convert", image_of(tmp_path / "image", disk), out).code == 0
    assert out.read_bytes() == disk + bytes(4096 * 512)
    assert out.stat().st_blocks * 512 < 200_000
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_one_partition(run, tmp_path: Path) -> None:
    disk = gpt_disk([Part(HFS_GUID, 64, 10, "one")], 1 << 17)
    disk[64 * 512 : 74 * 512] = b"x" * 5120
    assert run("convert", image_of(tmp_path / "image", bytes(disk)), tmp_path / "out", "--partition", "one").code == 0
    assert (tmp_path / "out").read_bytes() == b"x" * 5120


def test_what_is_there_stays(run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    said = run("convert", image_of(tmp_path / "image", bytes(512)), tmp_path / "out")
    assert "File exists" in said.err
    assert (tmp_path / "out").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["image", "out"]


def test_damage_leaves_nothing_behind(run, tmp_path: Path) -> None:
    said = run("convert", image_of(tmp_path / "image", os.urandom(1 << 20), b"nonsense"), tmp_path / "out")
    assert said.code == 65
    assert os.listdir(tmp_path) == ["image"]
