"""rename and renameat2: replace, exchange, refuse, and never lose anything."""

import ctypes
import errno
import os
import stat

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import KINDS, Place

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: str, new: str, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize("kind", KINDS)
def test_the_object_is_the_same_under_its_new_name(place: Place, kind: str, tick) -> None:
    path = place.make(kind, "x", 0o640, 7, 8)
    before, folder = os.lstat(path), os.lstat(place.root)
    tick()
    os.rename(path, place / "y")
    after = os.lstat(place / "y")
    assert errno_of(os.lstat, path) == errno.ENOENT
    for field in ("st_ino", "st_mode", "st_uid", "st_gid", "st_nlink", "st_mtime_ns"):
        assert getattr(after, field) == getattr(before, field), field
    assert os.lstat(place.root).st_mtime_ns > folder.st_mtime_ns
    assert sorted(os.listdir(place.root)) == ["y"]


@pytest.mark.parametrize("old", [k for k in KINDS if k != "dir"])
@pytest.mark.parametrize("new", ["file", "symlink", "fifo"])
def test_over_an_existing_name(place: Place, old: str, new: str) -> None:
    path, victim = place.make(old, "x"), place.make(new, "y")
    os.link(victim, place / "z", follow_symlinks=False)
    inode = os.lstat(path).st_ino
    os.rename(path, victim)
    assert os.lstat(victim).st_ino == inode
    assert os.lstat(place / "z").st_nlink == 1
    assert sorted(os.listdir(place.root)) == ["y", "z"]


def test_directories_over_directories(place: Place) -> None:
    place.make("dir", "a")
    place.make("dir", "b")
    place.make("dir", "full")
    place.make("file", "file")
    os.mkdir(place / "full/x")
    os.mkdir(place / "a/child")
    inode = os.stat(place / "a").st_ino
    assert errno_of(os.rename, place / "a", place / "full") in (errno.ENOTEMPTY, errno.EEXIST)
    assert errno_of(os.rename, place / "a", place / "file") == errno.ENOTDIR
    assert errno_of(os.rename, place / "file", place / "a") == errno.EISDIR
    os.rename(place / "a", place / "b")
    assert os.stat(place / "b").st_ino == inode
    assert os.listdir(place / "b") == ["child"]


def test_link_counts_of_parents(place: Place) -> None:
    place.make("dir", "a")
    place.make("dir", "b")
    os.mkdir(place / "a/x")
    counts = [os.stat(place / name).st_nlink for name in "ab"]
    os.rename(place / "a/x", place / "b/x")
    if min(counts) > 1:
        assert [os.stat(place / name).st_nlink for name in "ab"] == [counts[0] - 1, counts[1] + 1]
    assert os.stat(place / "b/x/..").st_ino == os.stat(place / "b").st_ino


def test_a_directory_into_itself(place: Place) -> None:
    place.make("dir", "a")
    os.mkdir(place / "a/b")
    assert errno_of(os.rename, place / "a", place / "a/b/c") == errno.EINVAL
    assert errno_of(os.rename, place / "a/.", place / "c") in (errno.EINVAL, errno.EBUSY)
    assert os.path.isdir(place / "a/b")


def test_two_names_of_one_file(place: Place) -> None:
    path = place.write("x", b"data")
    os.link(path, place / "y")
    os.rename(path, place / "y")
    assert sorted(os.listdir(place.root)) == ["x", "y"]
    assert os.stat(path).st_nlink == 2
    os.rename(path, path)
    assert os.path.exists(path)


def test_errors(place: Place) -> None:
    place.make("file", "x")
    assert errno_of(os.rename, place / "none", place / "y") == errno.ENOENT
    assert errno_of(os.rename, place / "x", place / "none/y") == errno.ENOENT
    assert errno_of(os.rename, place / "x", place / "x/y") == errno.ENOTDIR
    assert errno_of(os.rename, place / "x/y", place / "z") == errno.ENOTDIR
    assert errno_of(os.rename, place / "x", place / ("n" * 256)) == errno.ENAMETOOLONG
    os.rename(place / "x", place / ("n" * 255))
    os.rename(place / ("n" * 255), place / "x")
    assert errno_of(as_user, NOBODY, NOBODY, os.rename, place / "x", place / "y") == errno.EACCES


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_the_sticky_bit(place: Place, kind: str) -> None:
    place.make(kind, "x", 0o777, 1001, 1001)
    place.make("dir", "d", 0o1777)
    os.chmod(place / "d", 0o1777)
    os.rename(place / "x", place / "d/x")
    assert errno_of(as_user, 1000, 1000, os.rename, place / "d/x", place / "d/y") in (errno.EPERM, errno.EACCES)
    assert errno_of(as_user, 1001, 1001, os.rename, place / "d/x", place / "d/y") == 0


def test_no_replace(place: Place) -> None:
    place.write("x", b"x")
    place.write("y", b"y")
    assert errno_of(renameat2, place / "x", place / "y", NOREPLACE) == errno.EEXIST
    renameat2(place / "x", place / "z", NOREPLACE)
    assert sorted(os.listdir(place.root)) == ["y", "z"]


@pytest.mark.parametrize("first", ["file", "dir", "symlink"])
@pytest.mark.parametrize("second", ["file", "dir", "fifo"])
def test_exchange(place: Place, first: str, second: str) -> None:
    place.make("dir", "d1")
    place.make("dir", "d2")
    os.rename(place.make(first, "tmp1"), place / "d1/x")
    os.rename(place.make(second, "tmp2"), place / "d2/y")
    inodes = os.lstat(place / "d1/x").st_ino, os.lstat(place / "d2/y").st_ino
    links = os.stat(place / "d1").st_nlink, os.stat(place / "d2").st_nlink
    renameat2(place / "d1/x", place / "d2/y", EXCHANGE)
    assert (os.lstat(place / "d2/y").st_ino, os.lstat(place / "d1/x").st_ino) == inodes
    change = (second == "dir") - (first == "dir")
    if min(links) > 1:
        assert os.stat(place / "d1").st_nlink == links[0] + change
        assert os.stat(place / "d2").st_nlink == links[1] - change
    assert errno_of(renameat2, place / "d1/x", place / "d2/none", EXCHANGE) == errno.ENOENT
    # deleted is deleted, whatever was exchanged before
    for path in (place / "d1/x", place / "d2/y"):
        os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)
    assert os.listdir(place / "d1") == os.listdir(place / "d2") == []


def test_exchange_into_itself_and_whiteouts_are_refused(place: Place) -> None:
    place.make("dir", "a")
    os.mkdir(place / "a/b")
    assert errno_of(renameat2, place / "a", place / "a/b", EXCHANGE) == errno.EINVAL
    assert errno_of(renameat2, place / "a", place / "c", NOREPLACE | EXCHANGE) == errno.EINVAL


def test_there_and_back_again(place: Place) -> None:
    place.make("dir", "a")
    for number in range(20):
        place.write(f"f{number}", b"%d" % number)
        os.rename(place / f"f{number}", place / f"a/f{number}")
    os.rename(place / "a", place / "b")
    place.make("dir", "a")
    os.rename(place / "b/f3", place / "a/f3")
    os.rename(place / "b", place / "a/b")
    os.rename(place / "a/b", place / "b")
    assert sorted(os.listdir(place / "a")) == ["f3"]
    assert len(os.listdir(place / "b")) == 19
    for number in range(20):
        folder = "a" if number == 3 else "b"
        with open(place / f"{folder}/f{number}", "rb") as file:
            assert file.read() == b"%d" % number
