"""NDIF and what carries its resource fork (MacBinary, AppleSingle, AppleDouble, named forks), and DiskCopy 4.2."""

import hashlib
import os
import struct
from pathlib import Path

import pytest
from builders.macforks import adc_literals, apple_double, diskcopy42, macbinary, ndif_table, resource_fork
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, diskcopy, macforks, ndif, open_container, open_source
from dmgfs.errors import CorruptImage, DmgError, Unsupported
from dmgfs.source import MemorySource

SECTOR = 512
DISK = (
    hashlib.shake_128(b"classic").digest(4 * SECTOR)
    + bytes(2 * SECTOR)
    + hashlib.shake_128(b"end").digest(3 * SECTOR)
)
HEAD = b"Disk Copy's own head"


def parts() -> tuple[bytes, bytes]:
    """Data fork and resource fork of DISK: an ADC chunk, zeros, a raw chunk, behind some bytes that are none of these."""
    packed = adc_literals(DISK[: 4 * SECTOR])
    data = HEAD + packed + DISK[6 * SECTOR :]
    chunks = [(0, 0x83, 0, len(packed)), (4, 0x00, 0, 0), (6, 0x02, len(packed), 3 * SECTOR)]
    table = ndif_table(chunks, len(DISK) // SECTOR, data_offset=len(HEAD))
    return data, resource_fork({("bcem", 128): table, ("vers", 1): b"6.3.3"})


def opened(data: bytes, path: Path | None = None) -> Container:
    return open_source(MemorySource(data), path=path, cache=ChunkCache(1 << 20))


def read_all(container: Container) -> bytes:
    return bytes(container.disk.read(0, container.disk.size))


@pytest.mark.parametrize("version", [1, 2])
def test_macbinary(version: int) -> None:
    container = opened(macbinary(*parts(), version=version))
    assert container.kind == "NDIF"
    assert container.details["name"] == "Disk"
    assert container.details["resource_fork"] == "MacBinary"
    assert read_all(container) == DISK
    assert container.disk.read(3 * SECTOR + 100, 4 * SECTOR) == DISK[3 * SECTOR + 100 : 7 * SECTOR + 100]


def test_macbinary_whose_last_fork_is_not_filled_up() -> None:
    image = macbinary(*parts())
    assert read_all(opened(image[: len(image) - 20])) == DISK


def test_applesingle() -> None:
    data, fork = parts()
    container = opened(apple_double(fork, data=data))
    assert container.details["resource_fork"] == "AppleSingle"
    assert read_all(container) == DISK


@pytest.mark.parametrize("place", ["._Disk.img", ".AppleDouble/Disk.img"])
def test_appledouble_beside_the_image(tmp_path: Path, place: str) -> None:
    data, fork = parts()
    image = tmp_path / "Disk.img"
    image.write_bytes(data)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(apple_double(fork))
    container = open_container(image, cache=ChunkCache(1 << 20))
    try:
        assert read_all(container) == DISK
        assert container.files == [image, tmp_path / place]
    finally:
        container.close()


def test_fork_in_an_extended_attribute(tmp_path: Path) -> None:
    data, fork = parts()
    image = tmp_path / "Disk.img"
    image.write_bytes(data)
    try:
        os.setxattr(image, "user.com.apple.ResourceFork", fork)
    except OSError:
        pytest.skip("this file system keeps no user attributes")
    container = open_container(image, cache=ChunkCache(1 << 20))
    try:
        assert container.details["resource_fork"] == "extended attribute"
        assert read_all(container) == DISK
    finally:
        container.close()


def test_named_fork_of_a_mounted_volume(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Only a file system that offers `FILE/..namedfork/rsrc` has such a path, so the lookup is sent to a plain file.
    data, fork = parts()
    stand_in = tmp_path / "rsrc"
    stand_in.write_bytes(fork)
    asked: list[Path] = []
    original = macforks._opened

    def redirected(path: Path):
        asked.append(path)
        return original(stand_in if path.name == "rsrc" else path)

    monkeypatch.setattr(macforks, "_opened", redirected)
    container = opened(data, tmp_path / "Disk.img")
    assert asked[-1] == tmp_path / "Disk.img" / "..namedfork" / "rsrc"
    assert container.details["resource_fork"] == "named fork"
    assert read_all(container) == DISK


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_lies_beside_must_be_a_file(tmp_path: Path, kind: str) -> None:
    data, fork = parts()
    image = tmp_path / "Disk.img"
    image.write_bytes(data.ljust(4096, b"\0"))
    double = tmp_path / "._Disk.img"
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(apple_double(fork))
        double.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(double)
    else:
        double.mkdir()
    container = open_container(image, cache=ChunkCache(1 << 20))
    try:
        assert container.kind == "raw"
    finally:
        container.close()


@pytest.mark.parametrize(
    ("kind", "name"), [(0x80, "KenCode"), (0x81, "RLE"), (0x82, "LZH"), (0xF0, "StuffIt"), (0x55, "0x55")]
)
def test_obsolete_codings_are_refused_by_name(kind: int, name: str) -> None:
    fork = resource_fork({("bcem", 128): ndif_table([(0, kind, 0, 100)], 9)})
    with pytest.raises(Unsupported, match=name):
        opened(macbinary(bytes(4096), fork))


@pytest.mark.parametrize(("field", "name"), [("segmented", "segmented"), ("encrypted", "ShrinkWrap")])
def test_segmented_and_encrypted_are_refused_by_name(field: str, name: str) -> None:
    fork = resource_fork({("bcem", 128): ndif_table([(0, 2, 0, 512)], 1, **{field: 1})})
    with pytest.raises(Unsupported, match=name):
        opened(macbinary(bytes(4096), fork))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"short", "5 bytes long"),
        (ndif_table([(0, 2, 0, 512)], 1, count=0xFFFFFFFF), "there is room for"),
        (ndif_table([(0, 2, 0, 512)], 1, data_offset=0xFFFFFFF0), "past the data fork"),
        (ndif_table([(5, 2, 0, 512), (2, 2, 0, 512)], 9), "chunk 0.*covers sectors 5 to 2"),
        (ndif_table([(0, 2, 0, 512), (10, 2, 0, 512)], 9), "chunk 0.*covers sectors 0 to 10"),
    ],
)
def test_tables_that_lie(table: bytes, message: str) -> None:
    with pytest.raises(CorruptImage, match=message):
        opened(macbinary(bytes(4096), resource_fork({("bcem", 128): table})))


def test_a_chunk_outside_the_fork_hurts_only_its_range() -> None:
    table = ndif_table([(0, 2, 0, 512), (1, 0x83, 9999, 100), (2, 2, 512, 512)], 3)
    container = opened(macbinary(DISK[:1024], resource_fork({("bcem", 128): table})))
    assert container.details["warnings"]
    assert container.disk.read(0, 512) == DISK[:512]
    assert container.disk.read(1024, 512) == DISK[512:1024]
    with pytest.raises(CorruptImage):
        container.disk.read(512, 1)


def test_table_twins_agree() -> None:
    """construct's Chunk and the struct for the many read the same fields."""
    packed = struct.pack(">III", 0x12345683, 77, 99)
    chunk = ndif.Chunk.parse(packed)
    word, offset, length = ndif.CHUNK.unpack(packed)
    assert (word >> 8, word & 0xFF, offset, length) == (chunk.sector, chunk.type, chunk.offset, chunk.length)


@given(st.binary(min_size=12, max_size=12))
def test_chunk_twins_agree_on_any_bytes(packed: bytes) -> None:
    chunk = ndif.Chunk.parse(packed)
    word, offset, length = ndif.CHUNK.unpack(packed)
    assert (word >> 8, word & 0xFF, offset, length) == (chunk.sector, chunk.type, chunk.offset, chunk.length)


@given(st.integers(0, 6000), st.binary(min_size=1, max_size=40), st.integers(0, 6000), st.booleans())
@settings(max_examples=150, deadline=None)
def test_noise_and_cuts_end_in_our_errors(place: int, noise: bytes, cut: int, single: bool) -> None:
    data, fork = parts()
    image = bytearray(apple_double(fork, data=data) if single else macbinary(data, fork))
    image[place : place + len(noise)] = noise
    for damaged in (bytes(image), bytes(image[:cut])):
        try:
            container = opened(damaged)
            container.disk.read(0, min(container.disk.size, 1 << 16))
        except DmgError:
            pass


def test_diskcopy42() -> None:
    floppy = hashlib.shake_128(b"floppy").digest(800 * SECTOR)
    container = opened(diskcopy42(floppy, tags=bytes(12 * 800)))
    assert container.kind == "DiskCopy 4.2"
    assert container.details["name"] == "Floppy"
    assert container.details["tag_bytes"] == 9600
    assert read_all(container) == floppy
    assert read_all(opened(diskcopy42(floppy))) == floppy


@pytest.mark.parametrize(
    "image",
    [
        diskcopy42(bytes(1024))[:-1],
        diskcopy42(bytes(1000)),
        diskcopy42(bytes(1024), tags=b"x"),
        diskcopy42(bytes(1024), name=b""),
        diskcopy42(bytes(1024)) + bytes(4096),
        diskcopy42(b""),
        b"",
    ],
)
def test_what_only_resembles_diskcopy42(image: bytes) -> None:
    assert not diskcopy.recognise(MemorySource(image))


def test_macbinary_needs_more_than_zeros() -> None:
    assert macforks.find_forks(MemorySource(bytes(4096)), None) is None
    image = bytearray(macbinary(*parts()))
    image[65] ^= 1  # the CRC no longer fits
    assert macforks.find_forks(MemorySource(image), None) is None
