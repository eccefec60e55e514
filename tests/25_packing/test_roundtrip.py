"""What is packed comes back, in every format; and the same disk gives the same bytes."""

import os
import random
from pathlib import Path

import pytest
from builders.partitions import HFS_GUID, Part, gpt_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmgfs import open_image
from dmgfs.errors import CorruptImage
from dmgfs.packing import FORMATS, pack
from dmgfs.source import Buffer, MemorySource

SECTOR = 512
CHUNK = 64 * SECTOR


def disks() -> st.SearchStrategy[bytes]:
    """Stretches of zeros, text and noise, with and without an end on a sector. None begins like compressed data: a raw disk
    that does would be taken for the rest of an image (and hypothesis tries the words that it finds in the code)."""
    stretch = st.one_of(
        st.builds(bytes, st.integers(1, 100_000)),
        st.builds(lambda seed, n: random.Random(seed).randbytes(n), st.integers(0, 9), st.integers(1, 40_000)),
        st.builds(lambda word, n: (word * n)[:60_000], st.binary(min_size=1, max_size=40), st.integers(1, 3000)),
    )
    return st.lists(stretch, max_size=6).map(b"".join).map(lambda data: (b"\1" + data).ljust(SECTOR, b"\1"))


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(disk=disks(), chunk=st.sampled_from([8, 64, 200, 2048]))
def test_what_is_packed_comes_back(
    tmp_path: Path, packed, unpacked, format_name: str, disk: bytes, chunk: int
) -> None:
    out = tmp_path / "out.dmg"
    told: list[int] = []
    result = packed(out, disk, format_name, chunk=chunk * SECTOR, replace=True, workers=2, advance=told.append)
    whole = disk if format_name == "raw" else disk + bytes(-len(disk) % SECTOR)
    assert unpacked(out) == whole
    assert result.size == out.stat().st_size
    assert len(disk) <= sum(told) <= len(whole)


@pytest.mark.corpus
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        "Homebrew_brew__container.dmg",  # GPT
        "Homebrew_brew__NestedApp.dmg",  # APM
        "jhermsmeier_node-udif__compression-lzfse.dmg",  # MBR
        "jhermsmeier_node-udif__zlib-compressed.dmg",  # no map
    ],
)
def test_real_disks_come_back(tmp_path: Path, corpus_image, unpacked, name: str, format_name: str) -> None:
    out = tmp_path / "out.dmg"
    with open_image(corpus_image(name)) as image:
        pack(image.disk, out, format_name, layout=image.map)
        assert unpacked(out) == image.disk.read(0, image.disk.size)


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_disk_gives_the_same_bytes(tmp_path: Path, packed, format_name: str) -> None:
    disk = bytearray(gpt_disk([Part(HFS_GUID, 64, 1000, "x")], 1200 * SECTOR))
    disk[70 * SECTOR : 900 * SECTOR] = (random.Random(1).randbytes(2000) * 250)[: 830 * SECTOR]
    files = []
    for workers in (1, 4):
        packed(tmp_path / f"{workers}", bytes(disk), format_name, chunk=CHUNK, workers=workers)
        files.append((tmp_path / f"{workers}").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("format_name", FORMATS)
def test_damage_ends_it_and_leaves_nothing(tmp_path: Path, format_name: str) -> None:
    class Damaged(MemorySource):
        def read(self, offset: int, length: int) -> Buffer:
            if offset + length > 300 * SECTOR:
                raise CorruptImage("UDIF", "block table 0: run 9", "damaged")
            return super().read(offset, length)

    with pytest.raises(CorruptImage, match="run 9"):
        pack(Damaged(bytes(1000 * SECTOR)), tmp_path / "out", format_name, chunk=CHUNK)
    assert os.listdir(tmp_path) == []


def test_raw_disks_and_sparse_images_have_holes(tmp_path: Path, packed) -> None:
    disk = bytes(8 << 20) + os.urandom(4096) + bytes(8 << 20)
    packed(tmp_path / "raw", disk, "raw")
    assert (tmp_path / "raw").stat().st_size == len(disk)
    assert (tmp_path / "raw").stat().st_blocks * 512 <= 64 << 10
    result = packed(tmp_path / "sparse", disk, "sparseimage")
    assert result.runs == {"band": 1}
    assert (tmp_path / "sparse").stat().st_size == 4096 + (1 << 20)


def test_sparse_images_of_several_index_nodes(tmp_path: Path, packed, unpacked) -> None:
    band = 8 * SECTOR
    numbers = [n for n in range(2500) if n % 7]  # more than 1008 + 1010 bands
    disk = bytearray(2500 * band)
    for number in numbers:
        disk[number * band] = 1 + number % 255
    result = packed(tmp_path / "out", bytes(disk), "sparseimage", chunk=band)
    assert result.runs == {"band": len(numbers)}
    with open_image(tmp_path / "out") as image:
        assert image.container.details["index_nodes"] == 3
    assert unpacked(tmp_path / "out") == disk


@pytest.mark.parametrize(
    ("format_name", "options", "words"),
    [
        ("udzo", {"chunk": 7 * SECTOR}, "sectors"),
        ("udzo", {"chunk": 40000 * SECTOR}, "sectors"),
        ("udzo", {"chunk": 64 * SECTOR + 1}, "sectors"),
        ("udzo", {"level": 13}, "levels"),
        ("udro", {"level": 1}, "not compressed"),
        ("raw", {"level": 1}, "not compressed"),
        ("ulfo", {"level": 1}, "no levels"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, packed, format_name: str, options, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        packed(tmp_path / "out", bytes(4096), format_name, **options)
    assert os.listdir(tmp_path) == []
