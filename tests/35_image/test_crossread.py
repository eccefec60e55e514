"""Containers and wrappers that no real image of the corpus has, cross-read by programs that we did not write.

Segmented images: none of 7-Zip, qemu-img, dmg2img and libmodi (which says so) joins segments, and The Sleuth Kit knows no
UDIF. What they can judge is the disk: the data forks of the segments, one behind the other and under one trailer, are an
image in one piece, and the disk that they read there must be the disk that we read from the segments.

HFS wrapper: 7-Zip and The Sleuth Kit find the HFS+ volume inside; libfshfs opens no wrapper of this block size.
"""

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, wrap
from builders.sound import SoundBuilder
from builders.udif import SECTOR, Piece, Table, build
from builders.walk import walk, whole

from dmgfs.image import open_image

CONTENTS = {"letter": b"Dear reader, " * 900, "folder/inside": bytes(range(256)) * 40}


def volume() -> bytes:
    builder = SoundBuilder()
    builder.file(ROOT, "letter", CONTENTS["letter"])
    builder.file(builder.folder(ROOT, "folder"), "inside", CONTENTS["folder/inside"])
    return bytes(builder.build().data)


def run(*command: str | Path) -> bytes:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run([*map(str, command)], capture_output=True, timeout=60)
    assert ended.returncode == 0, (command, ended.stdout[-500:], ended.stderr[-500:])
    return ended.stdout


# -- segments ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """(the same in one piece, the disk as we read it from three segments)."""
    folder = tmp_path_factory.mktemp("segments")
    data = volume()
    cuts = range(0, len(data), 8 * SECTOR)
    tables = [Table("whole disk (Apple_HFS : 0)", [Piece("zlib", data[at : at + 8 * SECTOR]) for at in cuts])]
    image, whole_image = build(tables, segments=3), build(tables)
    first, *parts = image.files.items()
    assert len(parts) == 2
    joined = first[1][: image.koly["DataForkLength"]] + b"".join(part[:-SECTOR] for _, part in parts)
    assert joined == whole_image.bytes[: len(joined)]
    assert len(joined) == whole_image.koly["DataForkLength"]
    for name, part in image.files.items():
        (folder / name).write_bytes(part)
    (folder / "joined.dmg").write_bytes(whole_image.bytes)
    with open_image(folder / first[0]) as opened:
        disk = whole(opened.container.disk)
    assert disk == data
    return folder / "joined.dmg", disk


def test_7_zip_reads_the_disk_of_the_segments(segmented: tuple[Path, bytes], tmp_path: Path) -> None:
    path, disk = segmented
    run("7z", "x", "-y", "-tdmg", f"-o{tmp_path}", path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [disk]


def test_qemu_img_reads_the_disk_of_the_segments(segmented: tuple[Path, bytes], tmp_path: Path) -> None:
    path, disk = segmented
    run("qemu-img", "convert", "-f", "dmg", "-O", "raw", path, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == disk


def test_libmodi_reads_the_disk_of_the_segments(segmented: tuple[Path, bytes]) -> None:
    path, disk = segmented
    pymodi = pytest.importorskip("pymodi")
    handle = pymodi.handle()
    handle.open_file_object(io.BytesIO(path.read_bytes()))
    assert handle.read_buffer(handle.get_media_size()) == disk
    handle.close()


def test_libmodi_says_that_it_does_not_join_segments(segmented: tuple[Path, bytes]) -> None:
    """When it learns to, the indirect tests above can go."""
    path, _ = segmented
    pymodi = pytest.importorskip("pymodi")
    with pytest.raises(OSError, match="unsupported number of segments"):
        pymodi.handle().open(str(path.with_name("image.dmg")))


# -- wrapper -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    path = tmp_path / "wrapped.img"
    path.write_bytes(wrap(volume()))
    with open_image(path) as image:
        assert image.found(image.partitions[0]).wrapped
        opened = image.volume()
        files = {path: node for path, node in walk(opened) if path != "folder"}
        assert {path: whole(opened.data(node)) for path, node in files.items()} == CONTENTS
    return path


def test_7_zip_reads_the_volume_in_the_wrapper(wrapped: Path, tmp_path: Path) -> None:
    run("7z", "x", "-y", f"-o{tmp_path / 'out'}", wrapped)
    root = tmp_path / "out" / "Test"
    found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert found == CONTENTS


def test_the_sleuth_kit_reads_the_volume_in_the_wrapper(wrapped: Path) -> None:
    listing = run("fls", "-f", "hfs", "-r", "-p", "-F", wrapped).decode()
    numbers = dict(reversed(line.split(" ", 1)[1].split(":\t")) for line in listing.splitlines())
    assert {name for name in numbers if not name.startswith("$")} == set(CONTENTS)
    for name, content in CONTENTS.items():
        assert run("icat", "-f", "hfs", wrapped, numbers[name]) == content
