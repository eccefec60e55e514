"""UDIF images of every variant, built here, read back at random ranges, both by a thread that may wait and by one that may
not."""

import os
import random
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.udif import SECTOR, Image, Piece, Table, build
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container, open_source
from dmgfs.container.structs import RUN, Koly, Mish, Run
from dmgfs.errors import CorruptImage, DmgError
from dmgfs.source import ByteSource, Cold, MemorySource, forbid_blocking

CODECS = ("raw", "adc", "zlib", "bzip2", "lzfse", "xz")


def opened(image: Image | bytes, budget: int = 1 << 24) -> Container:
    data = image.bytes if isinstance(image, Image) else image
    return open_source(MemorySource(data), cache=ChunkCache(budget))


def read_without_waiting(source: ByteSource, offset: int, length: int) -> bytes:
    """As the thread that serves FUSE reads: ask, run the loads elsewhere, ask again."""
    for _ in range(4):
        forbid_blocking()
        try:
            return bytes(source.read(offset, length))
        except Cold as cold:
            loads = cold.loads
            assert loads
        finally:
            forbid_blocking(False)
        for load in loads:
            load.run()
    raise AssertionError("still cold after its loads ran")


def sectors(seed: int, count: int) -> bytes:
    """Compressible and different for every seed."""
    chosen = random.Random(seed)
    words = [chosen.randbytes(chosen.randint(3, 40)) for _ in range(12)]
    out = bytearray()
    while len(out) < count * SECTOR:
        out += chosen.choice(words)
    return bytes(out[: count * SECTOR])


@st.composite
def disks(draw: st.DrawFn) -> Image:
    tables = []
    seed = draw(st.integers(0, 1 << 16))
    for number in range(draw(st.integers(1, 4))):
        pieces = []
        for index in range(draw(st.integers(1, 6))):
            codec = draw(st.sampled_from((*CODECS, "zero", "ignore", "comment")))
            count = draw(st.integers(1, 12))
            content = sectors(seed + 100 * number + index, count) if codec in CODECS else count
            pieces.append(Piece(codec, content))
        tables.append(Table(f"table {number}", pieces, terminator=draw(st.booleans())))
    shuffled = draw(st.booleans())
    # The base of an image with something in front is known only if nothing lies between its parts.
    prefix, slack = draw(st.sampled_from(((b"", b""), (b"", b"\n"), (bytes(128), b""), (b"xar!" + bytes(1000), b""))))
    return build(
        tables,
        tables_in=draw(st.sampled_from(("xml", "fork", "both"))),
        lead=bytes(draw(st.sampled_from((0, 1, 512)))),
        prefix=prefix,
        slack=slack,
        shuffle=random.Random(seed).shuffle if shuffled else None,
        checksum_type=draw(st.sampled_from((0, 2, 4, 6, 7, 8, 9))),
    )


@given(image=disks(), ranges=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_range_of_any_image(image: Image, ranges: list[tuple[float, float]]) -> None:
    size = len(image.disk)
    for small_cache in (False, True):
        container = opened(image, 3 * SECTOR if small_cache else 1 << 24)
        assert container.disk.size == size
        for a, b in ranges:
            start, end = sorted((int(a * size), int(b * size)))
            assert container.disk.read(start, end - start) == image.disk[start:end]
        assert container.disk.read(0, size) == image.disk
    container = opened(image)
    for a, b in ranges:
        start, end = sorted((int(a * size), int(b * size)))
        assert read_without_waiting(container.disk, start, end - start) == image.disk[start:end]
    assert read_without_waiting(container.disk, 0, size) == image.disk
    assert container.disk.cold(0, size) == ()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("tables_in", ["xml", "fork"])
def test_each_coding(codec: str, tables_in: str) -> None:
    image = build([Table("whole disk", [Piece(codec, sectors(1, 40)), Piece("zero", 3)])], tables_in=tables_in)
    container = opened(image)
    assert container.kind == "UDIF"
    assert container.disk.read(0, container.disk.size) == image.disk
    assert container.details["codecs"][codec]["runs"] == 1
    assert container.details["codecs"][codec]["expanded"] == 40 * SECTOR
    assert container.details["warnings"] == []


@pytest.mark.parametrize("tables_in", ["xml", "fork"])
def test_the_builder_is_believed_by_7zip(tables_in: str, tmp_path: Path) -> None:
    """What is built here is UDIF to others too: else these tests would prove that two mistakes agree."""
    seven_zip = shutil.which("7z") or shutil.which("7zz")
    if seven_zip is None:
        pytest.skip("7z is not installed (apt install 7zip)")
    pieces = [Piece(codec, sectors(n, 40)) for n, codec in enumerate(CODECS)]
    tables = [Table("a", pieces[:3]), Table("b", [*pieces[3:], Piece("zero", 5), Piece("ignore", 7)], data_offset=9)]
    image = build(tables, tables_in=tables_in)
    path = tmp_path / "image.dmg"
    path.write_bytes(image.bytes)
    tested = subprocess.run([seven_zip, "t", "-tdmg", str(path)], capture_output=True, text=True, check=False)
    assert "Everything is Ok" in tested.stdout, tested.stdout + tested.stderr
    theirs = subprocess.run([seven_zip, "x", "-so", "-tdmg", str(path)], capture_output=True, check=True).stdout
    assert theirs == image.disk


class CountingCache(ChunkCache[memoryview]):
    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.loads: list[object] = []

    def get(self, key, load, *, quick=False):  # type: ignore[no-untyped-def]
        def counted() -> memoryview:
            self.loads.append(key)
            return load()

        return super().get(key, counted, quick=quick)


def test_a_chunk_is_decoded_once_and_its_bytes_are_not_copied() -> None:
    image = build([Table("t", [Piece("zlib", sectors(1, 64)), Piece("zlib", sectors(2, 64))])])
    cache = CountingCache(1 << 20)
    disk = open_source(MemorySource(image.bytes), cache=cache).disk
    one, two = disk.read(10, 100), disk.read(5000, 300)
    assert isinstance(one, memoryview)
    assert isinstance(two, memoryview)
    assert one.obj is two.obj
    assert one.readonly
    assert len(cache.loads) == 1
    disk.read(64 * SECTOR - 1, 2)
    assert len(cache.loads) == 2


def test_zeros_and_raw_runs_do_not_enter_the_cache() -> None:
    image = build([Table("t", [Piece("raw", sectors(1, 64)), Piece("zero", 64), Piece("ignore", 64)])])
    cache = CountingCache(1 << 20)
    disk = open_source(MemorySource(image.bytes), cache=cache).disk
    assert disk.read(0, disk.size) == image.disk
    assert cache.loads == []
    assert cache.statistics().entries == 0


def test_cold_names_every_missing_chunk_once() -> None:
    image = build([Table("t", [Piece("zlib", sectors(n, 8)) for n in range(5)])])
    disk = opened(image).disk
    disk.read(8 * SECTOR, 1)
    assert len(disk.cold(0, disk.size)) == 4
    assert len(disk.cold(100, 100)) == 1
    assert disk.cold(8 * SECTOR, 8 * SECTOR) == ()
    assert disk.cold(-1, 10) == disk.cold(disk.size, 10) == disk.cold(0, 0) == ()
    assert len(disk.cold(39 * SECTOR, 1 << 40)) == 1
    forbid_blocking()
    try:
        with pytest.raises(Cold) as caught:
            disk.read(0, disk.size)
    finally:
        forbid_blocking(False)
    assert len(caught.value.loads) == 4


def test_two_images_share_a_cache() -> None:
    cache: ChunkCache[memoryview] = ChunkCache(1 << 20)
    images = [build([Table("t", [Piece("zlib", sectors(seed, 8))])]) for seed in (1, 2)]
    disks = [open_source(MemorySource(image.bytes), cache=cache).disk for image in images]
    for _ in range(2):
        for image, disk in zip(images, disks, strict=True):
            assert disk.read(0, disk.size) == image.disk


def test_many_threads() -> None:
    image = build([Table("t", [Piece(CODECS[n % 6], sectors(n, 16)) for n in range(24)])])
    disk = opened(image, 40 * SECTOR).disk
    barrier = threading.Barrier(8)

    def reader(seed: int) -> None:
        chosen = random.Random(seed)
        barrier.wait()
        for _ in range(60):
            start = chosen.randrange(disk.size)
            length = min(chosen.randrange(1, 20_000), disk.size - start)
            assert disk.read(start, length) == image.disk[start : start + length]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reader, range(8)))


def test_outside_the_disk() -> None:
    disk = opened(build([Table("t", [Piece("zlib", sectors(1, 8))])])).disk
    assert disk.read(disk.size, 0) == b""
    for offset, length in ((-1, 1), (disk.size, 1), (0, disk.size + 1), (0, -1)):
        with pytest.raises(CorruptImage):
            disk.read(offset, length)


def test_data_offset_of_a_table_counts() -> None:
    """koly.DataForkOffset + mish.DataOffset + the run's own: readers that forget the middle one return wrong bytes."""
    image = build(
        [Table("a", [Piece("zlib", sectors(1, 8))]), Table("b", [Piece("zlib", sectors(2, 8))], data_offset=100)],
        lead=b"\xee" * 300,
    )
    assert opened(image).disk.read(0, 16 * SECTOR) == image.disk


@pytest.mark.parametrize("tables_in", ["xml", "fork", "both"])
@pytest.mark.parametrize("signature", [b"", b"\xfa\xde\x0c\xc0" + (500).to_bytes(4, "big") + bytes(492)])
def test_something_in_front(tables_in: str, signature: bytes) -> None:
    """A MacBinary header or a XAR that the offsets know nothing of."""
    image = build(
        [Table("t", [Piece("zlib", sectors(1, 8))])], tables_in=tables_in, prefix=b"M" * 128, signature=signature
    )
    container = opened(image)
    assert container.disk.read(0, container.disk.size) == image.disk
    assert container.details["base"] == 128
    assert "begins 128 bytes into the file" in container.details["warnings"][0]
    assert (container.details["signature"] is not None) == bool(signature)


def test_a_polyglot_whose_offsets_are_absolute() -> None:
    image = build([Table("t", [Piece("zlib", sectors(1, 8))])], prefix=b"xar!" + bytes(996), absolute=True)
    container = opened(image)
    assert container.disk.read(0, container.disk.size) == image.disk
    assert container.details["base"] == 0
    assert container.details["data_offset"] == 1000


def test_garbage_in_the_signature_fields_of_an_old_image() -> None:
    for offset, length in ((1 << 60, 1 << 60), (0, 600), (3, 9)):
        image = build(
            [Table("t", [Piece("zlib", sectors(1, 8))])],
            prefix=bytes(128),
            koly={"CodeSignatureOffset": offset, "CodeSignatureLength": length},
        )
        container = opened(image)
        assert container.disk.read(0, container.disk.size) == image.disk
        assert container.details["signature"] is None


def test_trailer_at_the_start() -> None:
    image = build([Table("t", [Piece("zlib", sectors(1, 8))])], at_start=True)
    container = opened(image)
    assert container.disk.read(0, container.disk.size) == image.disk
    assert container.details["trailer"] == "start"


@pytest.mark.parametrize(
    "koly",
    [
        {"SectorCount": 0},
        {"SegmentNumber": 0, "SegmentCount": 0, "SegmentID": bytes(16), "DataChecksum": bytes(136)},
        {"Flags": 5},
        {"ImageVariant": 2},
        {"MasterChecksum": bytes(136)},
    ],
    ids=lambda koly: next(iter(koly)),
)
def test_what_may_be_missing(koly: dict[str, object]) -> None:
    image = build([Table("t", [Piece("zlib", sectors(1, 8)), Piece("zero", 8)])], koly=koly)
    container = opened(image)
    assert container.disk.size == 16 * SECTOR
    assert container.disk.read(0, container.disk.size) == image.disk


def test_sectors_that_no_table_covers_are_zeros() -> None:
    image = build(
        [Table("a", [Piece("zlib", sectors(1, 8))], start=4), Table("b", [Piece("raw", sectors(2, 8))], start=20)],
        koly={"SectorCount": 40},
    )
    container = opened(image)
    assert container.disk.size == 40 * SECTOR
    assert container.disk.read(0, 40 * SECTOR) == image.disk + bytes(12 * SECTOR)
    assert any("24 sectors are in no block table" in warning for warning in container.details["warnings"])


def test_tables_in_any_order() -> None:
    image = build(
        [
            Table("last", [Piece("zlib", sectors(1, 8)), Piece("bzip2", sectors(2, 8))], start=100),
            Table("first", [Piece("zlib", sectors(3, 8))], start=0),
            Table("middle", [Piece("raw", sectors(4, 8))], start=50),
        ]
    )
    assert opened(image).disk.read(0, len(image.disk)) == image.disk


def test_raw_run_longer_or_shorter_than_its_sectors() -> None:
    content = sectors(1, 8)
    longer = opened(build([Table("t", [Piece("raw", content, packed=content + b"more")])]))
    assert longer.disk.read(0, 8 * SECTOR) == content
    shorter = opened(
        build([Table("t", [Piece("raw", content, packed=content[:1000]), Piece("zlib", sectors(2, 8))])])
    )
    assert shorter.disk.read(0, 1000) == content[:1000]
    assert shorter.disk.read(8 * SECTOR, 8 * SECTOR) == sectors(2, 8)
    with pytest.raises(CorruptImage, match=r"block table 0 \('t'\): run 0"):
        shorter.disk.read(999, 2)
    assert len(shorter.details["warnings"]) == 1


def test_a_huge_raw_run_is_streamed(tmp_path: Path) -> None:
    """8 GiB in one run: nothing of its size is ever allocated."""
    image = build(
        [
            Table(
                "t",
                [Piece("raw", sectors(1, 2), run={"sectors": 1 << 24, "length": 1 << 33})],
                mish={"sectors": 1 << 24},
            )
        ]
    )
    path = tmp_path / "huge.dmg"
    cut = image.koly["DataForkLength"]
    with open(path, "wb") as file:
        file.write(image.bytes[:cut])
        file.truncate((1 << 33) + 12345)
        file.seek(0, os.SEEK_END)
        start = file.tell()
        file.write(image.bytes[cut:-512])
        trailer = Koly.parse(image.bytes[-512:])
        trailer.XMLOffset = start
        file.write(Koly.build(trailer))
    container = open_container(path, cache=ChunkCache(1 << 20))
    assert container.disk.size == 1 << 33
    assert container.disk.read(0, 2 * SECTOR) == sectors(1, 2)
    assert container.disk.read((1 << 33) - 10, 10) == bytes(10)
    assert read_without_waiting(container.disk, 1 << 32, 4096) == bytes(4096)
    container.close()


def test_from_a_file_without_waiting(tmp_path: Path) -> None:
    image = build([Table("t", [Piece(codec, sectors(n, 40)) for n, codec in enumerate(CODECS)])])
    path = tmp_path / "image.dmg"
    path.write_bytes(image.bytes)
    container = open_container(path, cache=ChunkCache(1 << 20))
    assert read_without_waiting(container.disk, 0, container.disk.size) == image.disk
    assert container.files == [path]
    container.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        container.disk.read(0, 10)
    container.close()


@given(st.tuples(*(st.integers(0, (1 << bits) - 1) for bits in (32, 32, 64, 64, 64, 64))))
def test_the_fast_twin_of_a_run(values: tuple[int, ...]) -> None:
    packed = RUN.pack(*values)
    parsed = Run.parse(packed)
    names = ("Type", "Comment", "SectorNumber", "SectorCount", "CompressedOffset", "CompressedLength")
    assert tuple(parsed[name] for name in names) == values
    assert RUN.size == Run.sizeof()


def test_sizes_of_structures() -> None:
    assert (Koly.sizeof(), Mish.sizeof()) == (512, 204)


@given(
    image=disks(),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
@settings(max_examples=200, deadline=None)
def test_damage_ends_in_our_errors(image: Image, edits: list[tuple[float, int]], cut: float | None) -> None:
    damaged = bytearray(image.bytes)
    for place, value in edits:
        damaged[int(place * len(damaged))] = value
    if cut is not None:
        del damaged[int(cut * len(damaged)) :]
    survive(bytes(damaged))


@given(image=disks(), edits=st.lists(st.tuples(st.integers(1, 512), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_damaged_trailer_ends_in_our_errors(image: Image, edits: list[tuple[int, int]]) -> None:
    damaged = bytearray(image.bytes)
    for place, value in edits:
        damaged[-place] = value
    survive(bytes(damaged))


def survive(image: bytes) -> None:
    """Opens and reads; anything but one of our errors fails the test."""
    try:
        disk = opened(image).disk
    except DmgError:
        return
    for start in range(0, min(disk.size, 1 << 20), 8 * SECTOR):
        length = min(8 * SECTOR, disk.size - start)
        try:
            data = disk.read(start, length)
        except DmgError:
            continue
        assert len(data) == length
