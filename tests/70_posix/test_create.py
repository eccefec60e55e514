"""mkdir, mkfifo, mknod, symlink and open(O_CREAT): what a new object looks like, and when there is none."""

import errno
import os
import stat
from collections.abc import Callable

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import Place


def create_file(path: str, mode: int) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


MAKERS: dict[str, tuple[Callable[[str, int], None], int]] = {
    "open": (create_file, stat.S_IFREG),
    "mkdir": (os.mkdir, stat.S_IFDIR),
    "mkfifo": (os.mkfifo, stat.S_IFIFO),
    "mknod file": (lambda path, mode: os.mknod(path, stat.S_IFREG | mode), stat.S_IFREG),
    "mknod chr": (lambda path, mode: os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 2)), stat.S_IFCHR),
    "mknod blk": (lambda path, mode: os.mknod(path, stat.S_IFBLK | mode, os.makedev(254, 300)), stat.S_IFBLK),
    "mknod sock": (lambda path, mode: os.mknod(path, stat.S_IFSOCK | mode), stat.S_IFSOCK),
    "symlink": (lambda path, mode: os.symlink("somewhere", path), stat.S_IFLNK),
}
WITH_MODE = [name for name in MAKERS if name != "symlink"]
FOR_USERS = ["open", "mkdir", "mkfifo", "mknod sock", "symlink"]


@pytest.mark.parametrize("maker", WITH_MODE)
@pytest.mark.parametrize(
    ("mode", "umask", "expected"), [(0o755, 0o022, 0o755), (0o777, 0o077, 0o700), (0o151, 0, 0o151)]
)
def test_mode_and_umask(place: Place, maker: str, mode: int, umask: int, expected: int) -> None:
    make, kind = MAKERS[maker]
    old = os.umask(umask)
    try:
        make(place / "x", mode)
    finally:
        os.umask(old)
    status = os.lstat(place / "x")
    assert stat.S_IMODE(status.st_mode) == expected
    assert stat.S_IFMT(status.st_mode) == kind
    assert status.st_nlink == (2 if kind == stat.S_IFDIR else 1)


@pytest.mark.parametrize("maker", FOR_USERS)
def test_owner_is_the_caller(place: Place, maker: str) -> None:
    os.chmod(place.root, 0o777)
    as_user(1000, 2000, MAKERS[maker][0], place / "x", 0o700)
    assert (os.lstat(place / "x").st_uid, os.lstat(place / "x").st_gid) == (1000, 2000)


@pytest.mark.parametrize("maker", FOR_USERS)
def test_a_setgid_directory_hands_down_its_group(place: Place, maker: str) -> None:
    place.make("dir", "d", 0o2777, 0, 3000)
    os.chmod(place / "d", 0o2777)
    as_user(1000, 2000, MAKERS[maker][0], place / "d/x", 0o755)
    status = os.lstat(place / "d/x")
    assert (status.st_uid, status.st_gid) == (1000, 3000)
    assert bool(status.st_mode & stat.S_ISGID) == (maker == "mkdir")


@pytest.mark.parametrize("maker", list(MAKERS))
def test_times_and_counts_of_the_parent(place: Place, maker: str, tick) -> None:
    parent = place.make("dir", "d", 0o755)
    before = os.lstat(parent)
    tick()
    MAKERS[maker][0](place / "d/x", 0o755)
    after, child = os.lstat(parent), os.lstat(place / "d/x")
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    assert child.st_ctime_ns > before.st_ctime_ns
    assert child.st_mtime_ns > before.st_mtime_ns
    assert child.st_atime_ns > before.st_atime_ns
    if before.st_nlink > 1:
        assert after.st_nlink == before.st_nlink + (maker == "mkdir")


@pytest.mark.parametrize("maker", list(MAKERS))
def test_errors(place: Place, maker: str) -> None:
    make = MAKERS[maker][0]
    for kind in ["file", "dir", "fifo", "symlink"]:
        place.make(kind, f"old-{kind}")
        assert errno_of(make, place / f"old-{kind}", 0o755) == errno.EEXIST
    assert errno_of(make, place / "none/x", 0o755) == errno.ENOENT
    assert errno_of(make, place / "old-file/x", 0o755) == errno.ENOTDIR
    assert errno_of(make, place / ("n" * 256), 0o755) == errno.ENAMETOOLONG
    make(place / ("n" * 255), 0o755)
    assert errno_of(os.lstat, place / ("n" * 255)) == 0
    assert errno_of(make, place / ("a/" * 2048 + "x"), 0o755) == errno.ENAMETOOLONG
    place.make("dir", "locked", 0o755)
    assert errno_of(as_user, NOBODY, NOBODY, make, place / "locked/x", 0o755) in (errno.EACCES, errno.EPERM)
    os.symlink("loop2", place / "loop1")
    os.symlink("loop1", place / "loop2")
    assert errno_of(make, place / "loop1/x", 0o755) == errno.ELOOP


def test_device_numbers(place: Place) -> None:
    for major, minor in [(0, 0), (1, 3), (8, 17), (254, 65535), (511, 1048575)]:
        path = place / f"dev-{major}-{minor}"
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
        status = os.lstat(path)
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (major, minor)


def test_users_make_no_devices(place: Place) -> None:
    os.chmod(place.root, 0o777)
    make = MAKERS["mknod chr"][0]
    assert errno_of(as_user, NOBODY, NOBODY, make, place / "x", 0o600) == errno.EPERM


@pytest.mark.parametrize("length", [1, 60, 255, 1023, 4095])
def test_symlink_targets_come_back(place: Place, length: int) -> None:
    os.symlink("t" * length, place / "link")
    assert os.readlink(place / "link") == "t" * length
    assert os.lstat(place / "link").st_size == length
    assert errno_of(os.symlink, "", place / "empty") == errno.ENOENT
    assert errno_of(os.symlink, "t" * 4096, place / "long") == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    "name", ["späße", "日本語", "\U0001f600", "new\nline", " ", "...", "a:b", "*?[]", "\x7f\x01"]
)
def test_names_come_back(place: Place, name: str) -> None:
    create_file(place / name, 0o644)
    assert name in os.listdir(place.root)
    os.mkdir(place / "d")
    os.rename(place / name, place / f"d/{name}")
    assert os.listdir(place / "d") == [name]


def test_names_that_are_not_utf8(place: Place) -> None:
    name = os.fsencode(place.root) + b"/\xff\xfe\x80"
    os.close(os.open(name, os.O_CREAT, 0o644))
    assert os.listdir(os.fsencode(place.root)) == [b"\xff\xfe\x80"]
    os.unlink(name)
