"""RAM disks over directories, on real mounts: what they keep of the directory, lists that come whole or not at all, sockets
that stay reachable. What a union shows is in test_union."""

import errno
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.processes import errno_of
from exercise.here import here
from exercise.mounted import dmgfs, is_mounted

pytestmark = pytest.mark.kernel


@pytest.fixture
def directory(tmp_path) -> Iterator[Path]:
    path = tmp_path / "covered dir"
    path.mkdir()
    (path / "file").write_bytes(b"below\n")
    yield path
    while is_mounted(path):
        subprocess.run(["umount", "-l", path], check=True)


def cover(directory: Path, size: str, *options: str) -> None:
    ended = (dmgfs if {"--fuse", "--union", "--union=overlay"} & set(options) else here)(
        "ramdisk", directory, size, *options
    )
    assert (ended.code, ended.err) == (0, "")


def uncover(directory: Path) -> None:
    ended = here("unmount", directory)
    assert (ended.code, ended.err) == (0, "")
    assert not is_mounted(directory)


OWNERS = [([], 0o1777, 0, 0), ([], 0o2755, 123, 7), (["--union"], 0o500, 65534, 12345)]


@pytest.mark.parametrize(("kind", "mode", "uid", "gid"), OWNERS)
def test_owner_and_mode_are_the_directorys(directory, kind, mode, uid, gid):
    os.chown(directory, uid, gid)
    directory.chmod(mode)
    os.utime(directory, ns=(10**18, 10**18 + 7))
    cover(directory, "1024", *kind)
    status = directory.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, uid, gid)
    assert status.st_mtime_ns == 10**18 + 7
    uncover(directory)


@pytest.mark.parametrize("kind", [[], ["--fuse"], ["--union=overlay"]])
def test_access_lists_and_attributes_are_the_directorys(directory, kind):
    os.setxattr(directory, "user.colour", b"blue")
    subprocess.run(["setfacl", "-m", "u:33:rwx,d:g:44:rx", directory], check=True)
    before = subprocess.run(["getfacl", "-p", directory], capture_output=True, check=True).stdout
    assert b"user:33:rwx" in before.replace(b"www-data", b"33")
    cover(directory, "1024", *kind)
    assert subprocess.run(["getfacl", "-p", directory], capture_output=True, check=True).stdout == before
    assert os.getxattr(directory, "user.colour") == b"blue"
    uncover(directory)


def test_flags_are_the_directorys(directory):
    if subprocess.run(["chattr", "+d", directory], capture_output=True, check=False).returncode:
        pytest.skip("the file system has no flags")
    cover(directory, "1024")
    shown = subprocess.run(["lsattr", "-d", directory], capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("this kernel's tmpfs has no flags")
    assert "d" in shown.stdout.split()[0]
    uncover(directory)


@pytest.mark.parametrize("kind", [[], ["--fuse"]])
def test_the_size_is_in_sectors_and_a_limit(directory, kind):
    said = dmgfs("ramdisk", directory, "1024", *kind).out
    assert said == f"{directory}: 1024 sectors, 512.0 KiB of memory\n"
    room = os.statvfs(directory)
    assert room.f_blocks * room.f_frsize == 1024 * 512
    assert errno_of(lambda: (directory / "big").write_bytes(b"x" * (1024 * 512 + 1))) == errno.ENOSPC
    assert os.listdir(directory) == ["big"]
    uncover(directory)
    assert os.listdir(directory) == ["file"]


# -- lists ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path) -> Iterator[list[Path]]:
    paths = [tmp_path / name for name in ("one", "two", "three")]
    for path in paths:
        path.mkdir()
    yield paths
    for path in paths:
        subprocess.run(["umount", "-lq", path], check=False)


def test_a_list_is_made_whole(three, tmp_path):
    plan = tmp_path / "plan"
    plan.write_text(f"{three[0]} 1024\nmkdir 1777 {three[0]}/made\n{three[1]} 2M\n{three[2]} 1024 \n")
    assert here("ramdisk", "--plan", plan).code == 0
    assert all(is_mounted(path) for path in three)
    assert stat.S_IMODE((three[0] / "made").stat().st_mode) == 0o1777


def test_when_the_third_fails_the_first_two_are_taken_away(three, tmp_path):
    (three[2] / "sub").mkdir()
    plan = tmp_path / "plan"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(three[2] / "sub" / "s"))
        plan.write_text("".join(f"{path} 1024\n" for path in three))
        ended = dmgfs("ramdisk", "--plan", plan, "--union")
    assert ended.code == 74
    assert ended.out == ""
    assert ended.err == (
        f"dmgfs: {three[2]}: sockets in use would be out of reach: sub/s; --sockets keep binds them over, "
        "--force covers\n"
    )
    assert not any(is_mounted(path) for path in three)


def test_nothing_is_begun_when_a_directory_is_missing(three, tmp_path):
    plan = tmp_path / "plan"
    plan.write_text(f"{three[0]} 1024\n{tmp_path}/missing 1024\n")
    ended = here("ramdisk", "--plan", plan)
    assert ended.code == 66
    assert "missing" in ended.err
    assert not is_mounted(three[0])


def test_the_preset_under_a_root(tmp_path):
    root = tmp_path / "live"
    names = ["Volumes", "var/tmp", "var/run", "var/db", "Library/Preferences", "Library/ColorSync/Profiles/Displays"]
    for name in names:
        (root / name).mkdir(parents=True)
    try:
        ended = here("ramdisk", "--preset", "rc.cdrom", "--under", root)
        assert (ended.code, ended.err) == (0, "")
        assert all(is_mounted(root / name) for name in names)
        assert stat.S_IMODE((root / "var/db/mds").stat().st_mode) == 0o1777
    finally:
        for name in names:
            subprocess.run(["umount", "-lq", root / name], check=False)


# -- sockets --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(directory) -> Iterator[Path]:
    """A socket two levels down that says hello."""
    path = directory / "sub" / "ctl"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.send(b"hello")
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def greeting(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return connection.recv(10)


@pytest.mark.parametrize("kind", [[], ["--union"]])
def test_sockets_stay_reachable(directory, server, kind):
    cover(directory, "1024", "--sockets", "keep", *kind)
    assert greeting(server) == b"hello"
    (directory / "sub" / "mine").write_text("x") if "--union" not in kind else None
    uncover(directory)
    assert greeting(server) == b"hello"


def test_sockets_in_use_are_named_and_the_directory_is_left_alone(directory, server):
    ended = here("ramdisk", directory, "1024", "--union")
    assert ended.code == 74
    assert "sub/ctl" in ended.err
    assert not is_mounted(directory)
    cover(directory, "1024", "--union", "--force")
    assert errno_of(lambda: greeting(server)) == errno.ECONNREFUSED  # what is shown below is another object
    uncover(directory)


def test_a_socket_that_nobody_has_open_is_no_reason(directory):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(directory / "dead socket"))
    cover(directory, "1024")
    uncover(directory)
