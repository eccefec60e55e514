"""What a file is taken for: the order of detection, raw disks, and the names of what is no disk image at all."""

import os
from pathlib import Path

import pytest
from builders.udif import Piece, Table, build

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container, open_source
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.source import MemorySource

RAW_DISKS = {
    "APM": b"ER\x02\x00".ljust(4096, b"\0"),
    "GPT": bytes(512) + b"EFI PART".ljust(4096, b"\0"),
    "HFS+": bytes(1024) + b"H+".ljust(4096, b"\0"),
    "HFSX": bytes(1024) + b"HX".ljust(4096, b"\0"),
    "HFS": bytes(1024) + b"BD".ljust(4096, b"\0"),
    "zeros": bytes(4096),
    "one sector": b"\xeb".ljust(512, b"\0"),
}


def opened(data: bytes) -> Container:
    return open_source(MemorySource(data), cache=ChunkCache(1 << 20))


@pytest.mark.parametrize("name", RAW_DISKS)
def test_raw_disks_are_the_file_itself(name: str, tmp_path: Path) -> None:
    data = RAW_DISKS[name]
    path = tmp_path / "disk.img"
    path.write_bytes(data)
    container = open_container(path, cache=ChunkCache(1 << 20))
    assert (container.kind, container.files, container.verify) == ("raw", [path], None)
    assert container.disk.read(0, container.disk.size) == data
    container.close()


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"xar!\0\x1c", "XAR"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"0\x84\x01\0\0\0\x16\x04IM4P", "IM4P"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_what_is_no_image_is_named(head: bytes, named: str) -> None:
    with pytest.raises(NotAnImage, match=named):
        opened(head.ljust(8192, b"\0"))


@pytest.mark.parametrize("codec", ["zlib", "bzip2", "lzfse", "xz"])
def test_of_a_udif_without_its_end_it_is_said_that_the_end_is_missing(codec: str, tmp_path: Path) -> None:
    pieces = [Piece(codec, os.urandom(64) * 64) for _ in range(4)]
    whole = build([Table("whole disk", pieces)]).bytes
    path = tmp_path / "download.dmg"
    path.write_bytes(whole)
    open_container(path, cache=ChunkCache(1 << 20)).close()
    path.write_bytes(whole[:600])
    with pytest.raises(CorruptImage, match="the image is truncated"):
        open_container(path, cache=ChunkCache(1 << 20))


@pytest.mark.parametrize("head", [b"\x78\x9c", b"bvx2"])
def test_a_disk_may_begin_with_any_bytes(head: bytes) -> None:
    volume = bytearray(head.ljust(4096, b"\0"))
    volume[1024:1026] = b"H+"
    assert opened(bytes(volume)).kind == "raw"
    boot = bytearray(head.ljust(4096, b"\0"))
    boot[510:512] = b"\x55\xaa"
    assert opened(bytes(boot)).kind == "raw"


def test_asif_is_named() -> None:
    with pytest.raises(Unsupported, match="ASIF"):
        opened(b"shdw".ljust(4096, b"\0"))


def test_too_small() -> None:
    for data in (b"", b"x", b"koly", bytes(511)):
        with pytest.raises(NotAnImage):
            opened(data)


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_container(tmp_path / "absent.dmg", cache=ChunkCache(1 << 20))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null")):
        with pytest.raises(NotAnImage, match="regular file"):
            open_container(path, cache=ChunkCache(1 << 20))


def test_a_udif_wins_over_what_it_starts_with() -> None:
    """Polyglots exist: the trailer decides."""
    for head in (b"xar!", b"ER\x02\x00", bytes(1024) + b"H+"):
        image = build([Table("t", [Piece("raw", head.ljust(2048, b"\0"))])])
        container = opened(image.bytes)
        assert container.kind == "UDIF"
        assert container.disk.read(0, 2048) == head.ljust(2048, b"\0")


def test_a_file_is_not_left_open_when_it_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "bad.dmg"
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(NotAnImage):
            open_container(path, cache=ChunkCache(1 << 20))
    assert len(os.listdir("/proc/self/fd")) == before
