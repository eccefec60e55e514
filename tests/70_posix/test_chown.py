"""chown: who may give what to whom, and what it costs the set-id bits."""

import errno
import os
import stat

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import KINDS, Place


@pytest.mark.parametrize("kind", KINDS)
def test_root_gives_everything_away(place: Place, kind: str, tick) -> None:
    path = place.make(kind, "x")
    before = os.lstat(path)
    tick()
    os.chown(path, 123, 456, follow_symlinks=False)
    after = os.lstat(path)
    assert (after.st_uid, after.st_gid) == (123, 456)
    assert after.st_ctime_ns > before.st_ctime_ns
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    os.chown(path, -1, 7, follow_symlinks=False)
    assert (os.lstat(path).st_uid, os.lstat(path).st_gid) == (123, 7)
    os.chown(path, 8, -1, follow_symlinks=False)
    assert (os.lstat(path).st_uid, os.lstat(path).st_gid) == (8, 7)
    os.chown(path, 2**32 - 2, 2**32 - 3, follow_symlinks=False)
    assert (os.lstat(path).st_uid, os.lstat(path).st_gid) == (2**32 - 2, 2**32 - 3)


def test_it_follows_symlinks_and_lchown_does_not(place: Place) -> None:
    target = place.make("file", "target")
    link = place.make("symlink", "link")
    os.chown(link, 10, 20)
    assert (os.lstat(target).st_uid, os.lstat(link).st_uid) == (10, 0)
    os.lchown(link, 30, 40)
    assert (os.lstat(target).st_uid, os.lstat(link).st_uid) == (10, 30)


def test_an_owner_may_only_choose_among_his_groups(place: Place) -> None:
    path = place.make("file", "x", 0o644, 1000, 1000)
    assert errno_of(as_user, 1000, 1000, os.chown, path, -1, 2000, groups=[2000]) == 0
    assert os.stat(path).st_gid == 2000
    assert errno_of(as_user, 1000, 1000, os.chown, path, -1, 3000, groups=[2000]) == errno.EPERM
    assert errno_of(as_user, 1000, 1000, os.chown, path, 1001, -1) == errno.EPERM
    assert errno_of(as_user, 1001, 1000, os.chown, path, -1, 1000) == errno.EPERM
    assert errno_of(as_user, 1000, 1000, os.chown, path, 1000, 1000) == 0


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
@pytest.mark.parametrize("root", [True, False])
def test_set_id_bits_of_a_program_go(place: Place, mode: int, root: bool) -> None:
    path = place.make("file", "x", mode, 1000, 1000)
    os.chmod(path, mode)
    if root:
        os.chown(path, 1000, 2000)
    else:
        as_user(1000, 1000, os.chown, path, -1, 2000, groups=[2000])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755


def test_sgid_without_group_execute_stays(place: Place) -> None:
    path = place.make("file", "x", 0o2644, 1000, 1000)
    os.chmod(path, 0o2644)
    os.chown(path, 1000, 2000)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o2644


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o7777])
def test_directories_keep_their_bits(place: Place, mode: int) -> None:
    path = place.make("dir", "d", mode)
    os.chmod(path, mode)
    os.chown(path, 5, 6)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_a_refused_chown_changes_nothing(place: Place, tick) -> None:
    path = place.make("file", "x", 0o4755, 1000, 1000)
    os.chmod(path, 0o4755)
    before = os.stat(path)
    tick()
    assert errno_of(as_user, NOBODY, NOBODY, os.chown, path, NOBODY, NOBODY) == errno.EPERM
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)


def test_errors_of_the_path(place: Place) -> None:
    place.make("file", "file")
    assert errno_of(os.chown, place / "none", 0, 0) == errno.ENOENT
    assert errno_of(os.chown, place / "file/x", 0, 0) == errno.ENOTDIR
    assert errno_of(os.chown, place / ("n" * 256), 0, 0) == errno.ENAMETOOLONG
