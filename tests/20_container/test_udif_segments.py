"""Segmented UDIFs: the parts are found beside the first, joined, and everything that does not fit is named."""

from pathlib import Path

import pytest
from builders.udif import SECTOR, Piece, Table, build

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container
from dmgfs.container.checksum import Verdict
from dmgfs.container.structs import Koly
from dmgfs.errors import CorruptImage

TABLES = [
    Table("a", [Piece("raw", bytes(range(256)) * 40), Piece("zlib", b"segment " * 640)]),
    Table("b", [Piece("zero", 4), Piece("bzip2", b"straddle" * 1280), Piece("raw", bytes(range(255, -1, -1)) * 20)]),
]


def write(folder: Path, segments: int) -> tuple[Path, bytes]:
    image = build(TABLES, segments=segments)
    assert len(image.files) == segments
    for name, data in image.files.items():
        (folder / name).write_bytes(data)
    return folder / "image.dmg", image.disk


def opened(path: Path) -> Container:
    return open_container(path, cache=ChunkCache(1 << 20))


def change(path: Path, **fields: object) -> None:
    data = path.read_bytes()
    trailer = Koly.parse(data[-512:])
    trailer.update(fields)
    path.write_bytes(data[:-512] + Koly.build(trailer))


@pytest.mark.parametrize("segments", [2, 3, 7, 40])
def test_runs_straddle_segments(tmp_path: Path, segments: int) -> None:
    path, disk = write(tmp_path, segments)
    container = opened(path)
    assert container.disk.read(0, container.disk.size) == disk
    for offset in range(0, len(disk), 777):
        assert container.disk.read(offset, min(1000, len(disk) - offset)) == disk[offset : offset + 1000]
    assert container.files == [path] + [tmp_path / f"image.{n:03d}.dmgpart" for n in range(2, segments + 1)]
    assert container.details["segment"]["count"] == segments
    assert container.verify is not None
    verdicts = [step for step in container.verify() if isinstance(step, Verdict)]
    assert len(verdicts) == segments + 3
    assert all(verdict.ok for verdict in verdicts)
    container.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        container.disk.read(0, 1)


def test_missing_segments_are_named(tmp_path: Path) -> None:
    path, _ = write(tmp_path, 12)
    for number in (3, 12):
        (tmp_path / f"image.{number:03d}.dmgpart").unlink()
    with pytest.raises(
        CorruptImage, match=r"has 12 segments; missing in .*: image\.003\.dmgpart, image\.012\.dmgpart$"
    ):
        opened(path)
    for number in range(2, 12):
        (tmp_path / f"image.{number:03d}.dmgpart").unlink(missing_ok=True)
    with pytest.raises(CorruptImage, match=r"image\.009\.dmgpart and 3 more$"):
        opened(path)


def test_a_part_is_opened_instead_of_the_image(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(CorruptImage, match="segment 2 of 3: open the first one"):
        opened(tmp_path / "image.002.dmgpart")


def test_parts_of_another_image(tmp_path: Path) -> None:
    for fields in ({"SegmentID": bytes(16)}, {"SegmentNumber": 3}, {"SegmentCount": 4}):
        path, _ = write(tmp_path, 3)
        change(tmp_path / "image.002.dmgpart", **fields)
        with pytest.raises(CorruptImage, match=r"image\.002\.dmgpart is not segment 2 of this image"):
            opened(path)


def test_parts_that_do_not_line_up(tmp_path: Path) -> None:
    path, _ = write(tmp_path, 3)
    change(tmp_path / "image.002.dmgpart", RunningDataForkOffset=5)
    with pytest.raises(CorruptImage, match="segment 2: its data begins at 0x5 of the whole"):
        opened(path)


def test_a_part_that_is_no_udif(tmp_path: Path) -> None:
    path, _ = write(tmp_path, 2)
    (tmp_path / "image.002.dmgpart").write_bytes(bytes(2000))
    with pytest.raises(CorruptImage, match=r"image\.002\.dmgpart has no UDIF trailer"):
        opened(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path, _ = write(tmp_path, 2)
    part = tmp_path / "image.002.dmgpart"
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptImage, match="symbolic link"):
        opened(path)


def test_damage_in_a_part_hurts_only_its_runs(tmp_path: Path) -> None:
    path, disk = write(tmp_path, 2)
    part = tmp_path / "image.002.dmgpart"
    data = bytearray(part.read_bytes())
    at = data.find(b"BZh")
    if at < 0:  # the chunk begins in the first segment and ends here
        at = 0
    data[at : at + 30] = bytes(30)
    part.write_bytes(data)
    container = opened(path)
    assert container.disk.read(0, 30 * SECTOR) == disk[: 30 * SECTOR]
    with pytest.raises(CorruptImage, match=r"block table 1 \('b'\): run 1"):
        container.disk.read(34 * SECTOR, 1)
    assert container.verify is not None
    failed = [step.what for step in container.verify() if isinstance(step, Verdict) and not step.ok]
    assert failed == ["data fork of segment 2", "block table 1 ('b')"]
