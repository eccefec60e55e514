"""Whatever goes wrong inside, the mount goes on: every request is answered, and the next one works."""

import errno
import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build
from exercise.daemon import becomes, python_in_foreground
from exercise.mounted import is_mounted, mounted

pytestmark = pytest.mark.kernel

FAULTY = Path(__file__).with_name("faulty.py")

EXPECTED = {
    "CorruptImage": errno.EIO,
    "Unsupported": errno.ENOTSUP,
    "MemoryError": errno.ENOMEM,
    "KeyError": errno.EIO,
    "RecursionError": errno.EIO,
    "deep": errno.EIO,
    "StopIteration": errno.EIO,
    "GeneratorExit": errno.EIO,
    "SystemExit": errno.EIO,
    "KeyboardInterrupt": errno.EIO,
    "group": errno.EIO,
    "BlockingIOError": errno.EIO,
    "Cold": errno.EIO,
}


def attempt(act) -> int:
    """The errno of an act that must fail."""
    with pytest.raises(OSError, match=r".") as caught:
        act()
    assert caught.value.errno is not None
    return caught.value.errno


BOTH = pytest.mark.parametrize("requests", ["direct", "pyfuse3"])


@BOTH
def test_any_exception_is_an_errno_and_the_mount_lives(image, place, requests):
    with python_in_foreground(FAULTY, image, place, "--requests", requests) as process:
        for name, number in EXPECTED.items():
            assert attempt(lambda name=name: os.stat(place / f"raise {name}")) == number, name
            assert (place / "ReadMe").read_bytes() == b"read me\n", f"after {name}"
        for name in EXPECTED:
            with pytest.raises(FileNotFoundError):
                os.stat(place / f"from now on {name}")
            attempt(lambda: os.listdir(place / "Folder" / "inner"))
            attempt(lambda: (place / "program").read_bytes())
            with pytest.raises(FileNotFoundError):
                os.stat(place / f"from now on :{name}")
            if requests == "pyfuse3":  # else the kernel keeps what it is told once
                assert len(os.listdir(place / "Folder" / "inner")) == 1, f"after {name}"
            assert process.poll() is None
        assert len(os.listdir(place / "Folder" / "inner")) == 1
        assert (place / "program").read_bytes()
        subprocess.run(["umount", place], check=True)
        assert process.wait(10) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "KeyError" in log
    assert "faulty.py" in log


@BOTH
def test_an_answer_of_the_wrong_type_is_an_error_of_that_request(image, place, requests):
    with python_in_foreground(FAULTY, image, place, "--requests", requests):
        with pytest.raises(FileNotFoundError):
            os.stat(place / "from now on wrong type")
        assert attempt(lambda: os.readlink(place / "link")) == errno.EIO
        with pytest.raises(FileNotFoundError):
            os.stat(place / "from now on :")
        assert os.readlink(place / "link") == "ReadMe"


@BOTH
def test_a_request_loop_that_ends_is_begun_again(image, place, requests):
    with python_in_foreground(FAULTY, image, place, "--requests", requests) as process:
        with pytest.raises(FileNotFoundError):
            os.stat(place / "from now on loop")
        lost = subprocess.Popen(["stat", "-f", place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                lost.wait(0.5)  # its request went down with the loop
            assert process.poll() is None
            assert (place / "program").stat().st_size > 0
            assert "ReadMe" in os.listdir(place)
            process.send_signal(signal.SIGTERM)
            assert becomes(lambda: not is_mounted(place))
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            lost.wait(10)
        assert process.stderr is not None
        assert "begun again" in process.stderr.read()


def test_a_damaged_object_is_listed_and_hides_nothing(image, place):
    with mounted(image, place):
        assert "damaged link" in os.listdir(place)
        assert attempt(lambda: os.readlink(place / "damaged link")) == errno.EIO
        assert os.readlink(place / "link") == "ReadMe"


def test_a_damaged_chunk_is_an_error_of_its_bytes_only(place, tmp_path):
    """The volume's first half in sound chunks, then a file of which one chunk is garbage."""
    builder = HfsPlusBuilder(block_size=4096)
    contents = bytes(range(256)) * 4096
    builder.file(ROOT, "large", contents)
    builder.file(ROOT, "small", b"small\n")
    disk = bytes(builder.build(spare_blocks=300).data)
    disk += bytes(-len(disk) % 4096)
    chunk = 64 << 10
    start = disk.index(contents[:4096])
    pieces = [Piece("zlib", disk[at : at + chunk]) for at in range(0, len(disk), chunk)]
    bad = (start + len(contents) // 2) // chunk
    pieces[bad].packed = b"garbage" * 50
    image = tmp_path / "damaged.dmg"
    image.write_bytes(build([Table("disk", pieces)]).bytes)
    log = tmp_path / "log"
    with mounted(image, place, "--log", log):
        assert (place / "small").read_bytes() == b"small\n"
        first = bad * chunk - start
        with open(place / "large", "rb", buffering=0) as file:
            assert file.read(4096) == contents[:4096]
            assert attempt(lambda: os.pread(file.fileno(), 4096, first + 8192)) == errno.EIO
            assert os.pread(file.fileno(), 4096, first + chunk) == contents[first + chunk : first + chunk + 4096]
        assert attempt(lambda: (place / "large").read_bytes()) == errno.EIO
        assert (place / "small").read_bytes() == b"small\n"
    assert "UDIF" in log.read_text()


def test_an_image_that_becomes_shorter_is_an_error_and_no_end(place, tmp_path):
    builder = HfsPlusBuilder(block_size=4096)
    builder.file(ROOT, "file", os.urandom(8 << 20))
    image = tmp_path / "shrinking.img"
    image.write_bytes(bytes(builder.build().data))
    with mounted(image, place, "--cache", "1M"):
        os.listdir(place)
        os.truncate(image, 64 << 10)
        assert attempt(lambda: (place / "file").read_bytes()) == errno.EIO
        os.statvfs(place)


READ_ONLY = {
    "create": lambda place: (place / "new").touch(),
    "write": lambda place: (place / "ReadMe").write_text("x"),
    "append": lambda place: open(place / "ReadMe", "a").close(),
    "truncate": lambda place: os.truncate(place / "ReadMe", 0),
    "mkdir": lambda place: (place / "new").mkdir(),
    "mknod": lambda place: os.mkfifo(place / "new"),
    "symlink": lambda place: os.symlink("x", place / "new"),
    "link": lambda place: os.link(place / "ReadMe", place / "new"),
    "unlink": lambda place: os.unlink(place / "ReadMe"),
    "rmdir": lambda place: os.rmdir(place / "Folder"),
    "rename": lambda place: os.rename(place / "ReadMe", place / "new"),
    "chmod": lambda place: os.chmod(place / "ReadMe", 0o600),
    "chown": lambda place: os.chown(place / "ReadMe", 1, 1),
    "utime": lambda place: os.utime(place / "ReadMe"),
    "setxattr": lambda place: os.setxattr(place / "ReadMe", "user.x", b"1"),
    "removexattr": lambda place: os.removexattr(place / "tagged", "user.com.apple.quarantine"),
}


def test_without_a_shadow_every_change_is_erofs(image, place):
    with mounted(image, place):
        for name, act in READ_ONLY.items():
            assert attempt(lambda act=act: act(place)) == errno.EROFS, name
        assert os.access(place / "ReadMe", os.R_OK)
        assert not os.access(place / "ReadMe", os.W_OK)


def test_with_a_shadow_every_change_works_and_the_image_stays(image, place):
    before = hashlib.sha256(image.read_bytes()).digest()
    for name, act in READ_ONLY.items():
        if name == "rmdir":
            continue  # the folder is not empty
        with mounted(image, place, "--shadow", "ram:8M"):
            act(place)
            os.listdir(place)
    assert hashlib.sha256(image.read_bytes()).digest() == before


def test_a_full_shadow_is_enospc_and_can_be_emptied(image, place):
    with mounted(image, place, "--shadow", "ram:4M"):
        room = os.statvfs(place)
        assert room.f_bavail * room.f_frsize <= 4 << 20
        assert attempt(lambda: (place / "big").write_bytes(bytes(range(256)) * (32 << 10))) == errno.ENOSPC
        assert (place / "ReadMe").read_bytes() == b"read me\n"
        (place / "big").unlink()
        (place / "small").write_bytes(b"fits")
        assert (place / "small").read_bytes() == b"fits"


def test_no_acls_are_stored_that_would_not_be_obeyed(image, place):
    with mounted(image, place, "--shadow", "ram"):
        acl = b"\2\0\0\0" + b"\1\0\6\0\xff\xff\xff\xff" + b"\4\0\4\0\xff\xff\xff\xff" + b"\x20\0\4\0\xff\xff\xff\xff"
        number = attempt(lambda: os.setxattr(place / "ReadMe", "system.posix_acl_access", acl))
        assert number == errno.ENOTSUP
