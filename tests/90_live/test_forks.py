"""Resource forks through a real mount: `FOLDER/..namedfork/FILE/rsrc`, because the kernel does not let anybody answer for
`FILE/..namedfork/rsrc`."""

import errno
import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.daemon import dmgfs_in_foreground
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel

LARGE = bytes(range(256)) * 800
SMALL = b"small fork"


def attempt(act) -> int:
    """The errno of an act that must fail."""
    with pytest.raises(OSError, match=r".") as caught:
        act()
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = HfsPlusBuilder(block_size=4096)
    builder.file(ROOT, "large", b"data", resource=LARGE)
    builder.file(ROOT, "plain", b"data")
    folder = builder.folder(ROOT, "Folder")
    builder.file(folder, "small", b"data", resource=SMALL, mode=0o100640, uid=12, gid=34)
    stored = b"fpmc\x03\0\0\0\x04" + bytes(7) + b"\xffdata"
    builder.file(folder, "packed", flags=0x20, attributes={"com.apple.decmpfs": stored}, resource=b"compressed data")
    builder.symlink(folder, "link", b"small")
    builder.inode(77, b"shared", 2, resource=b"of both")
    builder.file_link(ROOT, "one", 77)
    builder.file_link(folder, "two", 77)
    odd = builder.folder(ROOT, "odd")
    builder.file(odd, "..namedfork", b"a real file")
    path = tmp_path_factory.mktemp("forks") / "forks.img"
    path.write_bytes(bytes(builder.build(spare_blocks=64).data))
    return path


def test_linux_does_not_ask_for_a_path_through_a_file(image, place):
    with mounted(image, place):
        assert attempt(lambda: os.stat(place / "large" / "..namedfork" / "rsrc")) == errno.ENOTDIR


def test_a_fork_of_any_size(image, place):
    with mounted(image, place):
        fork = place / "..namedfork" / "large" / "rsrc"
        assert fork.read_bytes() == LARGE
        assert fork.stat().st_size == len(LARGE)
        with open(fork, "rb") as file:
            assert os.pread(file.fileno(), 100, 70_000) == LARGE[70_000:70_100]
            assert os.pread(file.fileno(), 100, len(LARGE)) == b""
        assert (place / "Folder/..namedfork/small/rsrc").read_bytes() == SMALL
        assert os.getxattr(place / "Folder/small", "user.com.apple.ResourceFork") == SMALL
        assert attempt(lambda: os.getxattr(place / "large", "user.com.apple.ResourceFork")) == errno.E2BIG
        assert (place / "..namedfork/one/rsrc").read_bytes() == b"of both"
        assert (place / "Folder/..namedfork/two/rsrc").read_bytes() == b"of both"


def test_a_file_without_one_has_an_empty_one(image, place):
    with mounted(image, place):
        assert (place / "..namedfork/plain/rsrc").read_bytes() == b""
        assert (place / "Folder/..namedfork/packed/rsrc").read_bytes() == b"", "it only carries the compressed data"


@pytest.mark.parametrize(
    "path",
    [
        *("..namedfork/nothing", "..namedfork/Folder", "Folder/..namedfork/link", "..namedfork/large/data"),
        *("..namedfork/..namedfork", "..namedfork/large/..namedfork"),
    ],
)
def test_what_has_none(image, place, path):
    with mounted(image, place):
        assert attempt(lambda: os.lstat(place / path)) == errno.ENOENT


def test_they_are_unlisted_and_list_what_there_is(image, place):
    with mounted(image, place):
        assert (place / "..namedfork").is_dir()
        assert "..namedfork" not in os.listdir(place)
        found = subprocess.run(["find", place], capture_output=True, text=True, check=True).stdout
        assert "..namedfork\n" in found, "the real one"
        assert "rsrc" not in found
        assert sorted(os.listdir(place / "..namedfork")) == ["large", "one"]
        assert sorted(os.listdir(place / "Folder/..namedfork")) == ["small", "two"]
        assert os.listdir(place / "..namedfork/large") == ["rsrc"]
        assert os.listdir(place / "..namedfork/plain") == ["rsrc"]
        walked = subprocess.run(["ls", "-lR", place / "..namedfork"], capture_output=True, text=True, check=True)
        assert walked.stderr == ""


def test_a_real_object_of_that_name_comes_first(image, place):
    with mounted(image, place):
        assert (place / "odd/..namedfork").read_bytes() == b"a real file"


def test_who_may_read_the_file_may_read_the_fork(image, place):
    with mounted(image, place):
        folder, fork = (os.stat(place / "Folder/..namedfork/small" / name) for name in ("", "rsrc"))
        assert (fork.st_mode, fork.st_uid, fork.st_gid) == (stat.S_IFREG | 0o440, 12, 34)
        assert (folder.st_mode, folder.st_uid) == (stat.S_IFDIR | 0o550, 12)
        assert fork.st_mtime_ns == os.stat(place / "Folder/small").st_mtime_ns
        numbers = {os.stat(place / path).st_ino for path in ("large", "..namedfork/large", "..namedfork/large/rsrc")}
        assert len(numbers) == 3


CHANGES = {
    "write": lambda folder: (folder / "small/rsrc").write_bytes(b"x"),
    "append": lambda folder: open(folder / "small/rsrc", "ab").close(),
    "truncate": lambda folder: os.truncate(folder / "small/rsrc", 0),
    "chmod": lambda folder: os.chmod(folder / "small/rsrc", 0o600),
    "utime": lambda folder: os.utime(folder),
    "create": lambda folder: (folder / "new").touch(),
    "mkdir": lambda folder: (folder / "small/new").mkdir(),
    "symlink": lambda folder: os.symlink("x", folder / "new"),
    "mknod": lambda folder: os.mkfifo(folder / "new"),
    "link": lambda folder: os.link(folder.parent / "small", folder / "new"),
    "link of a fork": lambda folder: os.link(folder / "small/rsrc", folder.parent / "new"),
    "unlink": lambda folder: os.unlink(folder / "small/rsrc"),
    "rmdir": lambda folder: os.rmdir(folder / "small"),
    "rename": lambda folder: os.rename(folder / "small/rsrc", folder.parent / "new"),
    "rename into": lambda folder: os.rename(folder.parent / "small", folder / "new"),
    "setxattr": lambda folder: os.setxattr(folder / "small/rsrc", "user.x", b"1"),
    "removexattr": lambda folder: os.removexattr(folder / "small/rsrc", "user.x"),
}


def test_with_a_shadow_they_cannot_be_changed_and_follow_their_file(image, place):
    before = hashlib.sha256(image.read_bytes()).digest()
    with mounted(image, place, "--shadow", "ram:8M"):
        folder = place / "Folder/..namedfork"
        assert (folder / "small/rsrc").read_bytes() == SMALL
        for name, act in CHANGES.items():
            assert attempt(lambda act=act: act(folder)) == errno.EROFS, name
        assert os.listxattr(folder / "small/rsrc") == []
        os.rename(place / "Folder/small", place / "Folder/other")
        assert (folder / "other/rsrc").read_bytes() == SMALL
        assert not (folder / "small").exists()
        os.chmod(place / "Folder/other", 0o600)
        assert stat.S_IMODE(os.stat(folder / "other/rsrc").st_mode) == 0o400
        (place / "Folder/new").write_bytes(b"new")
        assert not (folder / "new").exists(), "a new file has no fork"
        for name in os.listdir(place / "Folder"):
            os.unlink(place / "Folder" / name)
        os.rmdir(place / "Folder")
        assert not folder.exists()
    assert hashlib.sha256(image.read_bytes()).digest() == before


def test_an_open_fork_outlives_its_name_and_the_daemon_ends_in_order(image, place):
    with dmgfs_in_foreground(image, place, "--shadow", "ram:8M") as process:
        with open(place / "..namedfork/large/rsrc", "rb") as file:
            os.unlink(place / "large")
            subprocess.run(["sync", "-f", place], check=True)
            assert file.read() == LARGE
            os.fsync(file.fileno())
        for _ in range(3):
            os.listdir(place / "Folder/..namedfork")
            (place / "Folder/..namedfork/small/rsrc").read_bytes()
        subprocess.run(["umount", place], check=True)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "WARNING" not in (log := process.stderr.read()), log
