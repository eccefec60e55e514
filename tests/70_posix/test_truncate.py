"""truncate and ftruncate: sizes both ways, zeros in between, times, and what cannot be truncated."""

import errno
import os

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import Place


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@pytest.fixture(params=["truncate", "ftruncate"])
def truncate(request: pytest.FixtureRequest):
    """Either call, with the same signature."""

    def by_descriptor(path: str, size: int) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    return os.truncate if request.param == "truncate" else by_descriptor


DATA = bytes(range(1, 251)) * 50


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 12499, 12500, 12501, 16384, 100_000])
def test_cut_and_grow(place: Place, truncate, size: int) -> None:
    path = place.write("x", DATA)
    inode = os.stat(path).st_ino
    truncate(path, size)
    assert os.stat(path).st_size == size
    assert content(path) == (DATA + bytes(100_000))[:size]
    assert os.stat(path).st_ino == inode


@pytest.mark.parametrize("cut", [0, 1, 4095, 4096, 8000])
def test_what_was_cut_does_not_come_back(place: Place, truncate, cut: int) -> None:
    path = place.write("x", DATA)
    truncate(path, cut)
    truncate(path, len(DATA))
    assert content(path) == DATA[:cut] + bytes(len(DATA) - cut)


def test_times(place: Place, truncate, tick) -> None:
    path = place.write("x", DATA)
    before = os.stat(path)
    tick()
    truncate(path, 100)
    after = os.stat(path)
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


def test_who_may(place: Place) -> None:
    path = place.write("x", DATA, 0o644, 1000, 1000)
    assert errno_of(as_user, 1000, 1000, os.truncate, path, 10) == 0
    assert errno_of(as_user, NOBODY, NOBODY, os.truncate, path, 0) == errno.EACCES
    assert os.stat(path).st_size == 10


def test_errors(place: Place) -> None:
    path = place.write("x", DATA)
    place.make("dir", "d")
    assert errno_of(os.truncate, place / "none", 0) == errno.ENOENT
    assert errno_of(os.truncate, place / "x/y", 0) == errno.ENOTDIR
    assert errno_of(os.truncate, place / "d", 0) == errno.EISDIR
    assert errno_of(os.truncate, place / ("n" * 256), 0) == errno.ENAMETOOLONG
    assert errno_of(os.truncate, path, -1) == errno.EINVAL
    descriptor = os.open(path, os.O_RDONLY)
    assert errno_of(os.ftruncate, descriptor, 0) in (errno.EINVAL, errno.EBADF)
    os.close(descriptor)
    assert content(path) == DATA


def test_an_absurd_size_is_refused_and_a_plausible_one_is_sparse(place: Place) -> None:
    path = place.write("x", b"abc")
    # tmpfs and ext4 differ in where absurd begins; both refuse or both stay usable, and the data stays.
    outcome = errno_of(os.truncate, path, 999_999_999_999_999)
    assert outcome in (0, errno.EFBIG, errno.EINVAL)
    os.truncate(path, 1 << 32)
    assert os.stat(path).st_size == 1 << 32
    assert os.stat(path).st_blocks * 512 < 1 << 20
    with open(path, "rb") as file:
        assert file.read(5) == b"abc\0\0"
        file.seek((1 << 32) - 3)
        assert file.read() == b"\0\0\0"
