"""unlink and rmdir: what may go, who may do it, and what the rest looks like afterwards."""

import errno
import os

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import KINDS, Place


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "dir"])
def test_a_name_goes(place: Place, kind: str, tick) -> None:
    place.make("dir", "d")
    path = place.make(kind, "x")
    os.rename(path, place / "d/x")
    os.link(place / "d/x", place / "other", follow_symlinks=False)
    parent, other = os.lstat(place / "d"), os.lstat(place / "other")
    tick()
    os.unlink(place / "d/x")
    assert errno_of(os.lstat, place / "d/x") == errno.ENOENT
    assert os.listdir(place / "d") == []
    assert os.lstat(place / "d").st_mtime_ns > parent.st_mtime_ns
    assert os.lstat(place / "d").st_ctime_ns > parent.st_ctime_ns
    assert os.lstat(place / "other").st_nlink == other.st_nlink - 1
    assert os.lstat(place / "other").st_ctime_ns > other.st_ctime_ns


def test_unlink_errors(place: Place) -> None:
    place.make("file", "x")
    place.make("dir", "d")
    assert errno_of(os.unlink, place / "none") == errno.ENOENT
    assert errno_of(os.unlink, place / "x/y") == errno.ENOTDIR
    assert errno_of(os.unlink, place / "d") in (errno.EISDIR, errno.EPERM)
    assert errno_of(os.unlink, place / ("n" * 256)) == errno.ENAMETOOLONG
    assert errno_of(as_user, NOBODY, NOBODY, os.unlink, place / "x") == errno.EACCES
    assert os.path.exists(place / "x")


def test_rmdir(place: Place, tick) -> None:
    place.make("dir", "d")
    os.mkdir(place / "d/e")
    parent = os.lstat(place / "d")
    assert errno_of(os.rmdir, place / "d") == errno.ENOTEMPTY
    tick()
    os.rmdir(place / "d/e")
    after = os.lstat(place / "d")
    assert after.st_mtime_ns > parent.st_mtime_ns
    if parent.st_nlink > 1:
        assert after.st_nlink == parent.st_nlink - 1
    os.rmdir(place / "d")
    assert errno_of(os.lstat, place / "d") == errno.ENOENT


def test_rmdir_errors(place: Place) -> None:
    place.make("file", "x")
    place.make("symlink", "link")
    place.make("dir", "target")
    place.make("dir", "d")
    assert errno_of(os.rmdir, place / "none") == errno.ENOENT
    assert errno_of(os.rmdir, place / "x") == errno.ENOTDIR
    assert errno_of(os.rmdir, place / "link") == errno.ENOTDIR
    assert errno_of(os.rmdir, place / "d/.") == errno.EINVAL
    assert errno_of(os.rmdir, place / "d/..") in (errno.ENOTEMPTY, errno.EINVAL, errno.EEXIST)
    assert errno_of(as_user, NOBODY, NOBODY, os.rmdir, place / "d") == errno.EACCES


def test_a_directory_in_use_can_go(place: Place) -> None:
    place.make("dir", "d")
    descriptor = os.open(place / "d", os.O_RDONLY)
    os.rmdir(place / "d")
    assert os.fstat(descriptor).st_nlink == 0
    assert os.listdir(descriptor) == []
    assert errno_of(os.open, "x", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=descriptor) == errno.ENOENT
    assert errno_of(os.mkdir, "x", 0o755, dir_fd=descriptor) == errno.ENOENT
    os.close(descriptor)


@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "fifo"])
@pytest.mark.parametrize(
    ("folder_owner", "object_owner", "allowed"),
    [(1000, 1001, True), (1001, 1000, True), (1001, 1001, False), (0, 0, False)],
)
def test_the_sticky_bit(place: Place, kind: str, folder_owner: int, object_owner: int, allowed: bool) -> None:
    place.make(kind, "x", 0o777, object_owner, object_owner)
    place.make("dir", "d", 0o1777, folder_owner, folder_owner)
    os.chmod(place / "d", 0o1777)
    os.rename(place / "x", place / "d/x")
    remove = os.rmdir if kind == "dir" else os.unlink
    outcome = errno_of(as_user, 1000, 1000, remove, place / "d/x")
    assert outcome == 0 if allowed else outcome in (errno.EACCES, errno.EPERM)


def test_deleted_names_stay_deleted(place: Place) -> None:
    place.make("dir", "d")
    for _ in range(3):
        place.make("file", "x")
        os.rename(place / "x", place / "d/x")
        os.rename(place / "d/x", place / "d/y")
        assert sorted(os.listdir(place / "d")) == ["y"]
        os.unlink(place / "d/y")
        assert os.listdir(place / "d") == []
        assert errno_of(os.stat, place / "d/x") == errno.ENOENT
    os.rmdir(place / "d")
    place.make("dir", "d")
    assert os.listdir(place / "d") == []
