"""utimensat: exact times, now and omit, and who may set them."""

import errno
import os
import time

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import KINDS, Place


@pytest.mark.parametrize("kind", KINDS)
def test_nanoseconds_on_every_kind(place: Place, kind: str, tick) -> None:
    path = place.make(kind, "x")
    before = os.lstat(path)
    tick()
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001), follow_symlinks=False)
    after = os.lstat(path)
    assert (after.st_atime_ns, after.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_000_000_001)
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_ino == before.st_ino


@pytest.mark.parametrize("seconds", [0, 1, -1, -(2**31), 2**31, 2**32 + 5, 4_000_000_000])
def test_years_near_and_far(place: Place, seconds: int) -> None:
    path = place.make("file", "x")
    os.utime(path, (seconds, seconds))
    assert os.stat(path).st_mtime == seconds
    assert os.stat(path).st_atime == seconds


def test_now(place: Place) -> None:
    path = place.make("file", "x")
    os.utime(path, (1, 1))
    os.utime(path)
    assert abs(os.stat(path).st_mtime - time.time()) < 5
    assert abs(os.stat(path).st_atime - time.time()) < 5


def test_who_may(place: Place) -> None:
    path = place.make("file", "x", 0o666, 1000, 1000)
    assert errno_of(as_user, 1000, 1000, os.utime, path, (1, 1)) == 0
    assert errno_of(as_user, NOBODY, NOBODY, os.utime, path, (2, 2)) == errno.EPERM
    assert errno_of(as_user, NOBODY, NOBODY, os.utime, path) == 0
    os.chmod(path, 0o644)
    assert errno_of(as_user, NOBODY, NOBODY, os.utime, path) == errno.EACCES


def test_reading_moves_no_modification_time(place: Place, tick) -> None:
    path = place.write("x", b"data")
    before = os.stat(path)
    tick()
    with open(path, "rb") as file:
        file.read()
    os.listdir(place.root)
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    assert os.stat(path).st_ctime_ns == before.st_ctime_ns


def test_writing_moves_mtime_and_ctime(place: Place, tick) -> None:
    path = place.write("x", b"data")
    before = os.stat(path)
    tick()
    with open(path, "r+b") as file:
        file.write(b"D")
    after = os.stat(path)
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


def test_errors(place: Place) -> None:
    place.make("file", "x")
    assert errno_of(os.utime, place / "none") == errno.ENOENT
    assert errno_of(os.utime, place / "x/y") == errno.ENOTDIR
    assert errno_of(os.utime, place / ("n" * 256)) == errno.ENAMETOOLONG
