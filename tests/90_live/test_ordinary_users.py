"""Mounts of users without privileges, by way of fusermount3: in a namespace in which they may open /dev/fuse."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise.daemon import becomes
from exercise.namespace import USERS, Namespace, namespace

pytestmark = pytest.mark.kernel

ONE, OTHER = USERS


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """Where users may go; pytest's own folders are closed."""
    folder = Path(tempfile.mkdtemp(prefix="dmgfs-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def inside(ground: Path) -> Iterator[Namespace]:
    (ground / "namespace").mkdir()
    with namespace(ground / "namespace") as inside:
        inside.let_users_in()
        yield inside


@pytest.fixture
def theirs(inside: Namespace, ground: Path, image: Path) -> Iterator[tuple[Path, Path]]:
    """(image, a directory of user ONE)."""
    place, copy = ground / "live", ground / "image"
    place.mkdir()
    os.chown(place, ONE, ONE)
    shutil.copyfile(image, copy)
    copy.chmod(0o644)
    yield copy, place
    while inside.options(place):
        inside.run("umount", "-i", "-l", place)
    place.rmdir()
    copy.unlink()


def works(done) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def line(done) -> str:
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("unmount", [["dmgfs", "unmount"], ["fusermount3", "-u"], ["umount"]])
def test_mount_write_unmount(inside, theirs, unmount):
    image, place = theirs
    works(inside.as_user(ONE, "dmgfs", "mount", image, place, "--shadow", "ram:1M"))
    assert {"nosuid", "nodev", f"user_id={ONE}"} <= inside.options(place)
    script = 'cd "$0"; echo new >new; cat NEW readme; stat -c %u:%g ReadMe new'
    owners = f"{ONE}:{ONE}\n" * 2
    assert works(inside.as_user(ONE, "sh", "-ec", script, place)) == f"new\nread me\n{owners}"
    assert "shadow ram" in works(inside.as_user(ONE, "dmgfs", "status"))
    works(inside.as_user(ONE, *unmount, place))
    assert becomes(lambda: not inside.options(place))


def test_it_is_nobody_elses(inside, theirs):
    image, place = theirs
    works(inside.as_user(ONE, "dmgfs", "mount", image, place))
    assert "Permission denied" in line(inside.as_user(OTHER, "ls", place))
    assert f"mounted by user {ONE}" in line(inside.as_user(OTHER, "dmgfs", "unmount", place))
    assert inside.options(place)
    works(inside.run("dmgfs", "unmount", place))


def test_for_all_users_only_if_the_system_allows_it(inside, theirs):
    image, place = theirs
    said = line(inside.as_user(ONE, "dmgfs", "mount", image, place, "-o", "allow_other"))
    assert said.startswith(f"dmgfs: {place}: ")
    assert "user_allow_other" in said
    assert "/etc/fuse.conf" in said
    assert not inside.options(place)
    inside.shell('echo user_allow_other >"$T/conf"; mount --bind "$T/conf" /etc/fuse.conf', T=str(inside.folder))
    try:
        works(inside.as_user(ONE, "dmgfs", "mount", image, place, "-o", "allow_other"))
        assert works(inside.as_user(OTHER, "cat", place / "ReadMe")) == "read me\n"
    finally:
        inside.shell("umount /etc/fuse.conf")


def test_where_they_may_not_write_they_may_not_mount(inside, theirs):
    image, _ = theirs
    assert "/mnt" in line(inside.as_user(ONE, "dmgfs", "mount", image, "/mnt"))


def test_privileges_cannot_be_asked_for(inside, theirs):
    image, place = theirs
    inside.as_user(ONE, "dmgfs", "mount", image, place, "-o", "dev,suid")
    assert not inside.options(place) or {"nosuid", "nodev"} <= inside.options(place)
    inside.as_user(ONE, "dmgfs", "unmount", place)
    assert "root" in inside.as_user(ONE, "dmgfs", "mount", image, place, "--engine", "overlayfs").stderr


def test_a_line_of_fstab_for_users(inside, theirs):
    """The real /etc/fstab: mount(8) lets users have no other. It gives up its privileges before it runs mount.dmgfs."""
    image, place = theirs
    (inside.shell(f'echo "{image} {place} dmgfs user,noauto,shadow=ram:1M 0 0" >"$T/fstab"', T=str(inside.folder)))
    inside.shell('mount --bind "$T/fstab" /etc/fstab', T=str(inside.folder))
    try:
        works(inside.as_user(ONE, "mount", place))
        assert {"rw", "noexec", "nosuid", "nodev", f"user_id={ONE}"} <= inside.options(place)
        assert inside.as_user(OTHER, "umount", place).returncode != 0
        works(inside.as_user(ONE, "umount", place))
        assert not inside.options(place)
    finally:
        inside.shell("umount /etc/fstab")


def test_a_device_that_may_not_be_opened(inside, theirs):
    image, place = theirs
    inside.shell("chmod 600 /dev/fuse")
    try:
        assert "/dev/fuse: Permission denied" in line(inside.as_user(ONE, "dmgfs", "mount", image, place))
    finally:
        inside.shell("chmod 666 /dev/fuse")
