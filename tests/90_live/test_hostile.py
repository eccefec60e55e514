"""What a hostile volume may try on whoever mounts it: folders without an end, programs that become root, devices, names
that hide others, passphrases that get out. What single parsers do about damage is tested where they are."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.daemon import process_of
from exercise.mounted import dmgfs, mounted

pytestmark = pytest.mark.kernel

SECONDS = 20


def attempt(act) -> int:
    """The errno of an act that must fail."""
    with pytest.raises(OSError, match=r".") as caught:
        act()
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.fixture
def image(tmp_path: Path) -> Path:
    builder = HfsPlusBuilder(block_size=4096)
    builder.file(ROOT, "sound", b"sound")
    for name, number in (("itself", 900), ("root", 901)):
        builder.folder(ROOT, name, cnid=number)
    builder.folder(900, "again", cnid=900, thread=False)
    outer = builder.folder(ROOT, "outer", cnid=910)
    builder.folder(builder.folder(outer, "inner", cnid=911), "outer again", cnid=910, thread=False)
    builder.file(ROOT, "one", b"1", cnid=950)
    builder.file(ROOT, "two", b"22", cnid=950, thread=False)
    builder.folder(ROOT, "folder as file", mode=0o100755)
    builder.file(ROOT, "file as folder", b"x", mode=0o040755)
    builder.file(ROOT, "becomes root", b"#!/bin/sh\nid -u\n", mode=0o106755, uid=0, gid=0)
    builder.file(ROOT, "null", mode=0o020666, special=1 << 24 | 3)
    builder.symlink(ROOT, "away", b"../../../../../../../../etc/passwd")
    builder.file(ROOT, "huge", data_fork=(1 << 62).to_bytes(8) + bytes(4) + (1).to_bytes(4) + bytes(64))
    builder.file(ROOT, "escape\x1b[2J", mode=0o120777, data_fork=bytes(80))
    path = tmp_path / "hostile.img"
    path.write_bytes(builder.build(spare_blocks=16).data)
    return path


@pytest.mark.parametrize("command", [["find"], ["du"], ["ls", "-lR"], ["tar", "--exclude=huge", "-cf", "/dev/null"]])
def test_folders_without_an_end_have_one(image, place, command):
    with mounted(image, place):
        done = subprocess.run([*command, place], capture_output=True, timeout=SECONDS, check=False)
        assert len(done.stdout.splitlines()) < 200
        assert (place / "sound").read_bytes() == b"sound"
        assert attempt(lambda: os.listdir(place / "itself/again")) in (errno.ELOOP, errno.EIO)
        assert attempt(lambda: os.listdir(place / "outer/inner/outer again")) in (errno.ELOOP, errno.EIO)


def test_types_are_those_of_the_records(image, place):
    with mounted(image, place):
        assert (place / "folder as file").is_dir()
        assert (place / "file as folder").read_bytes() == b"x"


def test_two_names_with_one_number_are_both_there_and_end_nothing(image, place):
    with mounted(image, place):
        assert {"one", "two"} <= set(os.listdir(place))
        for name in ("one", "two"):
            assert set((place / name).read_bytes()) <= set(b"12"), "the number decides whose bytes they are"
        assert (place / "sound").read_bytes() == b"sound"


def test_nothing_becomes_root_and_no_device_opens(image, place):
    with mounted(image, place):
        flags = os.statvfs(place).f_flag
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert flags & os.ST_RDONLY
        assert stat.S_ISCHR(os.lstat(place / "null").st_mode)
        assert attempt(lambda: os.open(place / "null", os.O_RDONLY)) == errno.EACCES


def test_sizes_are_shown_and_cost_nothing(image, place):
    with mounted(image, place):
        assert os.stat(place / "huge").st_size == 1 << 62
        with open(place / "huge", "rb", buffering=0) as file:
            for offset in (0, 4096, 1 << 61):
                assert attempt(lambda offset=offset: os.pread(file.fileno(), 4096, offset)) == errno.EIO


def test_links_lead_where_they_say_and_nobody_follows_for_the_user(image, place):
    with mounted(image, place):
        assert os.readlink(place / "away") == "../../../../../../../../etc/passwd"
    assert dmgfs("cat", image, "away").code == 66, "inside the volume there is no such file"


def test_what_is_logged_cannot_write_to_a_terminal(image, place, tmp_path):
    log = tmp_path / "log"
    with mounted(image, place, "--log", log):
        [name] = [name for name in os.listdir(place) if name.startswith("escape")]
        assert attempt(lambda: os.readlink(place / name)) == errno.EIO
    assert "\x1b" not in log.read_text()
    assert "link target" in log.read_text()


def test_a_passphrase_is_nowhere_to_be_seen(place, tmp_path):
    builder = HfsPlusBuilder()
    builder.file(ROOT, "file", b"data")
    image, secret, log = tmp_path / "encrypted.dmg", tmp_path / "secret", tmp_path / "log"
    image.write_bytes(encrypt_v2(bytes(builder.build().data)))
    secret.write_bytes(PASSPHRASE + b"\n")
    with mounted(image, place, "--passphrase-file", secret, "--log", log):
        assert (place / "file").read_bytes() == b"data"
        process = Path(f"/proc/{process_of(place)}")
        for name in ("cmdline", "environ"):
            assert PASSPHRASE not in (process / name).read_bytes()
    assert PASSPHRASE not in log.read_bytes()
    for option in ("--passphrase", "--password", "-p"):
        assert dmgfs("info", image, option, PASSPHRASE.decode()).code == 64
