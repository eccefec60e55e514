"""Ground for tests with the kernel: a place to mount on, and volumes to mount, built here."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.daemon import clear_away


def _fuse_is_missing() -> str | None:
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse may not be opened"
    return None


@pytest.fixture(autouse=True, scope="session")
def _fuse() -> None:
    reason = _fuse_is_missing()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to mount on; unmounted afterwards whatever happens."""
    place = tmp_path / "mount point"
    place.mkdir()
    yield place
    clear_away(place)


def volume(*, case_sensitive: bool = False) -> bytes:
    """A small volume: files, folders, links."""
    builder = HfsPlusBuilder(hfsx=case_sensitive, binary=case_sensitive, block_size=4096)
    builder.file(ROOT, "ReadMe", b"read me\n")
    builder.file(ROOT, "other", b"other\n" * 1000)
    builder.file(ROOT, "program", b"#!/bin/sh\necho ran\n", mode=0o100755)
    builder.symlink(ROOT, "link", b"ReadMe")
    builder.symlink(ROOT, "damaged link", b"a\0b")
    folder = builder.folder(ROOT, "Folder")
    builder.file(folder, "Übergröße", b"umlauts\n")
    inner = builder.folder(folder, "inner")
    builder.file(inner, "deep", b"deep\n")
    builder.inode(77, b"shared\n", 2)
    builder.file_link(ROOT, "first name", 77)
    builder.file_link(folder, "second name", 77)
    builder.file(ROOT, "tagged", b"", attributes={"com.apple.quarantine": b"0081"})
    return bytes(builder.build(spare_blocks=64).data)


@pytest.fixture(scope="session")
def insensitive_volume() -> bytes:
    """What is in `image`."""
    return volume()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A case-insensitive volume in a raw image. It must be the same afterwards."""
    yield from _kept(tmp_path / "insensitive.img", volume())


@pytest.fixture
def sensitive_image(tmp_path: Path) -> Iterator[Path]:
    yield from _kept(tmp_path / "sensitive.img", volume(case_sensitive=True))


def _kept(path: Path, data: bytes) -> Iterator[Path]:
    path.write_bytes(data)
    yield path
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest(), "the image was changed"
