"""link: one inode, several names."""

import errno
import os

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import Place


@pytest.mark.parametrize("kind", ["file", "fifo", "symlink", "socket", "chr", "blk"])
def test_one_inode_two_names(place: Place, kind: str, tick) -> None:
    path, other = place.make(kind, "x"), place / "y"
    before, folder = os.lstat(path), os.lstat(place.root)
    tick()
    os.link(path, other, follow_symlinks=False)
    first, second = os.lstat(path), os.lstat(other)
    assert (first.st_ino, first.st_nlink) == (before.st_ino, 2)
    assert (second.st_ino, second.st_nlink, second.st_mode) == (before.st_ino, 2, before.st_mode)
    assert first.st_ctime_ns > before.st_ctime_ns
    assert os.lstat(place.root).st_mtime_ns > folder.st_mtime_ns
    assert os.lstat(place.root).st_ctime_ns > folder.st_ctime_ns
    os.chown(other, 12, 34, follow_symlinks=False)
    assert os.lstat(path).st_uid == 12
    os.unlink(path)
    assert errno_of(os.lstat, path) == errno.ENOENT
    assert os.lstat(other).st_nlink == 1


def test_both_names_have_the_same_bytes(place: Place) -> None:
    path = place.write("x", b"one")
    os.link(path, place / "y")
    with open(place / "y", "ab") as file:
        file.write(b" two")
    with open(path, "rb") as file:
        assert file.read() == b"one two"


def test_many(place: Place) -> None:
    path = place.write("x", b"data")
    for number in range(150):
        os.link(path, place / f"l{number}")
    assert os.stat(path).st_nlink == 151
    for number in range(150):
        os.unlink(place / f"l{number}")
    assert os.stat(path).st_nlink == 1


def test_errors(place: Place) -> None:
    place.make("file", "x")
    place.make("file", "y")
    place.make("dir", "d")
    assert errno_of(os.link, place / "x", place / "y") == errno.EEXIST
    assert errno_of(os.link, place / "x", place / "d") == errno.EEXIST
    assert errno_of(os.link, place / "d", place / "e") == errno.EPERM
    assert errno_of(os.link, place / "none", place / "e") == errno.ENOENT
    assert errno_of(os.link, place / "x", place / "none/e") == errno.ENOENT
    assert errno_of(os.link, place / "x", place / "y/e") == errno.ENOTDIR
    assert errno_of(os.link, place / "x", place / ("n" * 256)) == errno.ENAMETOOLONG
    os.link(place / "x", place / ("n" * 255))
    place.make("dir", "locked", 0o755)
    assert errno_of(as_user, NOBODY, NOBODY, os.link, place / "x", place / "locked/e") in (errno.EACCES, errno.EPERM)


def test_a_removed_file_can_not_be_linked_again(place: Place) -> None:
    path = place.write("x", b"data")
    descriptor = os.open(path, os.O_RDWR)
    os.unlink(path)
    assert os.fstat(descriptor).st_nlink == 0
    assert errno_of(os.link, f"/proc/self/fd/{descriptor}", place / "y", follow_symlinks=True) != 0
    os.close(descriptor)
