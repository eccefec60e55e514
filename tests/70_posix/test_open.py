"""open: flags, permissions, and files that live on after their name is gone."""

import errno
import os

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import Place


def try_open(path: str, flags: int) -> None:
    os.close(os.open(path, flags | os.O_NONBLOCK))


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [(0o400, {os.O_RDONLY}), (0o200, {os.O_WRONLY}), (0o600, {os.O_RDONLY, os.O_WRONLY, os.O_RDWR}), (0o100, set())],
)
@pytest.mark.parametrize("who", ["owner", "group", "other"])
def test_permission_bits(place: Place, mode: int, allowed: set[int], who: str) -> None:
    shift = {"owner": 0, "group": 3, "other": 6}[who]
    path = place.make("file", "x", mode >> shift, 1000, 2000)
    user = {"owner": (1000, 1), "group": (1001, 2000), "other": (1002, 1)}[who]
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        expected = 0 if flags in allowed else errno.EACCES
        assert errno_of(as_user, *user, try_open, path, flags) == expected
    assert errno_of(as_user, *user, try_open, path, os.O_RDONLY | os.O_TRUNC) in (
        (0,) if allowed == {os.O_RDONLY, os.O_WRONLY, os.O_RDWR} else (0, errno.EACCES)
    )


def test_errors(place: Place) -> None:
    place.make("file", "x")
    place.make("dir", "d")
    place.make("symlink", "link")
    assert errno_of(try_open, place / "none", os.O_RDONLY) == errno.ENOENT
    assert errno_of(try_open, place / "x/y", os.O_RDONLY) == errno.ENOTDIR
    assert errno_of(try_open, place / "x", os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    assert errno_of(try_open, place / "d", os.O_WRONLY) == errno.EISDIR
    assert errno_of(try_open, place / "d", os.O_RDWR) == errno.EISDIR
    assert errno_of(try_open, place / "d", os.O_RDONLY | os.O_CREAT) == errno.EISDIR
    assert errno_of(try_open, place / "x", os.O_CREAT | os.O_EXCL) == errno.EEXIST
    assert errno_of(try_open, place / "link", os.O_CREAT | os.O_EXCL) == errno.EEXIST
    assert errno_of(try_open, place / "link", os.O_RDONLY) == errno.ENOENT
    assert errno_of(try_open, place / "link", os.O_RDONLY | os.O_NOFOLLOW) == errno.ELOOP
    assert errno_of(try_open, place / ("n" * 256), os.O_RDONLY) == errno.ENAMETOOLONG
    os.symlink("loop", place / "loop")
    assert errno_of(try_open, place / "loop", os.O_RDONLY) == errno.ELOOP
    place.make("fifo", "fifo")
    assert errno_of(try_open, place / "fifo", os.O_WRONLY) == errno.ENXIO
    place.make("socket", "socket")
    assert errno_of(try_open, place / "socket", os.O_RDONLY) == errno.ENXIO


def test_creating_through_a_dangling_symlink(place: Place) -> None:
    place.make("symlink", "link")
    os.close(os.open(place / "link", os.O_CREAT | os.O_WRONLY, 0o644))
    assert os.path.exists(place / "target")


def test_truncation_on_open(place: Place, tick) -> None:
    path = place.write("x", b"data")
    before = os.stat(path)
    tick()
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    after = os.stat(path)
    assert after.st_size == 0
    assert after.st_mtime_ns > before.st_mtime_ns


def test_append_from_two_descriptors(place: Place) -> None:
    path = place.write("x", b"start ")
    first, second = (os.open(path, os.O_WRONLY | os.O_APPEND) for _ in range(2))
    for number in range(50):
        os.write(first, b"a%d " % number)
        os.write(second, b"b%d " % number)
    os.close(first)
    os.close(second)
    with open(path, "rb") as file:
        assert file.read() == b"start " + b"".join(b"a%d b%d " % (n, n) for n in range(50))


def test_a_file_lives_while_it_is_open(place: Place) -> None:
    path = place.write("x", b"before")
    descriptor = os.open(path, os.O_RDWR)
    inode = os.fstat(descriptor).st_ino
    os.unlink(path)
    assert os.fstat(descriptor).st_nlink == 0
    os.pwrite(descriptor, b"after!", 3)
    assert os.pread(descriptor, 100, 0) == b"befafter!"
    os.ftruncate(descriptor, 4)
    os.fchmod(descriptor, 0o600)
    assert os.fstat(descriptor).st_size == 4
    place.make("file", "x")
    assert os.stat(path).st_ino != inode
    assert os.pread(descriptor, 100, 0) == b"befa"
    os.close(descriptor)


def test_what_one_descriptor_writes_the_other_reads(place: Place) -> None:
    path = place.write("x", b"a" * 10_000)
    reader = os.open(path, os.O_RDONLY)
    assert os.pread(reader, 10, 5000) == b"a" * 10
    writer = os.open(path, os.O_WRONLY)
    os.pwrite(writer, b"bcd", 5000)
    assert os.pread(reader, 5, 4999) == b"abcda"
    os.truncate(path, 5001)
    assert os.pread(reader, 5, 4999) == b"ab"
    os.close(reader)
    os.close(writer)


def test_search_permission_on_the_way(place: Place) -> None:
    place.make("dir", "d", 0o755)
    os.close(os.open(place / "d/x", os.O_CREAT, 0o666))
    os.chmod(place / "d", 0o644)
    assert errno_of(as_user, NOBODY, NOBODY, try_open, place / "d/x", os.O_RDONLY) == errno.EACCES
    os.chmod(place / "d", 0o711)
    assert errno_of(as_user, NOBODY, NOBODY, try_open, place / "d/x", os.O_RDONLY) == 0
    assert errno_of(as_user, NOBODY, NOBODY, os.listdir, place / "d") == errno.EACCES
