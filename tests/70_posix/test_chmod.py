"""chmod: permission bits, who may set them, and which of them the kernel takes away again."""

import errno
import os
import stat

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import KINDS, Place


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "symlink"])
@pytest.mark.parametrize("mode", [0o000, 0o111, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o7777])
def test_every_mode_on_every_kind(place: Place, kind: str, mode: int) -> None:
    path = place.make(kind, "x")
    before = os.lstat(path)
    os.chmod(path, mode)
    after = os.lstat(path)
    assert stat.S_IMODE(after.st_mode) == mode
    assert stat.S_IFMT(after.st_mode) == stat.S_IFMT(before.st_mode)
    assert after.st_ino == before.st_ino


def test_it_follows_symlinks(place: Place) -> None:
    target = place.make("file", "target", 0o644)
    link = place.make("symlink", "link")
    before = os.lstat(link).st_mode
    os.chmod(link, 0o600)
    assert mode_of(target) == 0o600
    assert os.lstat(link).st_mode == before


@pytest.mark.parametrize("kind", ["file", "dir", "fifo"])
def test_ctime_moves_on_success_and_only_then(place: Place, kind: str, tick) -> None:
    path = place.make(kind, "x", 0o644)
    before = os.lstat(path)
    tick()
    os.chmod(path, 0o640)
    middle = os.lstat(path)
    assert middle.st_ctime_ns > before.st_ctime_ns
    assert middle.st_mtime_ns == before.st_mtime_ns
    tick()
    assert errno_of(as_user, NOBODY, NOBODY, os.chmod, path, 0o777) == errno.EPERM
    assert os.lstat(path).st_ctime_ns == middle.st_ctime_ns
    assert mode_of(path) == 0o640


def test_only_owner_and_root_may(place: Place) -> None:
    path = place.make("file", "x", 0o644, 1000, 1000)
    assert errno_of(as_user, 1000, 1000, os.chmod, path, 0o600) == 0
    assert errno_of(as_user, 1001, 1000, os.chmod, path, 0o666) == errno.EPERM
    assert mode_of(path) == 0o600


def test_sgid_is_dropped_for_an_owner_outside_the_group(place: Place) -> None:
    path = place.make("file", "x", 0o755, 1000, 2000)
    as_user(1000, 1000, os.chmod, path, 0o2755)
    assert mode_of(path) == 0o755
    as_user(1000, 2000, os.chmod, path, 0o2755)
    assert mode_of(path) == 0o2755
    os.chmod(path, 0o755)
    as_user(1000, 1000, os.chmod, path, 0o2755, groups=[2000])
    assert mode_of(path) == 0o2755


@pytest.mark.parametrize("bits", [0o4777, 0o2777, 0o6777])
def test_set_id_bits_go_when_another_user_writes(place: Place, bits: int) -> None:
    path = place.make("file", "x", bits, 1000, 1000)
    # chown by root above may have cleared them
    os.chmod(path, bits)

    def write() -> None:
        descriptor = os.open(path, os.O_WRONLY)
        os.write(descriptor, b"x")
        os.close(descriptor)

    as_user(NOBODY, NOBODY, write)
    assert mode_of(path) == 0o777


@pytest.mark.parametrize("bits", [0o4777, 0o6777])
def test_set_id_bits_go_when_another_user_truncates(place: Place, bits: int) -> None:
    path = place.write("x", b"some bytes", bits, 1000, 1000)
    os.chmod(path, bits)
    as_user(NOBODY, NOBODY, os.truncate, path, 3)
    assert mode_of(path) == 0o777


def test_root_keeps_set_id_bits_when_it_writes(place: Place) -> None:
    path = place.make("file", "x", 0o4755)
    with open(path, "wb") as file:
        file.write(b"x")
    assert mode_of(path) == 0o4755


def test_errors_of_the_path(place: Place) -> None:
    place.make("file", "file")
    assert errno_of(os.chmod, place / "none", 0o644) == errno.ENOENT
    assert errno_of(os.chmod, place / "file/x", 0o644) == errno.ENOTDIR
    assert errno_of(os.chmod, place / ("n" * 256), 0o644) == errno.ENAMETOOLONG
    os.symlink("loop2", place / "loop1")
    os.symlink("loop1", place / "loop2")
    assert errno_of(os.chmod, place / "loop1", 0o644) == errno.ELOOP
    place.make("dir", "locked", 0o700)
    os.close(os.open(place / "locked/x", os.O_CREAT, 0o666))
    assert errno_of(as_user, NOBODY, NOBODY, os.chmod, place / "locked/x", 0o644) == errno.EACCES
