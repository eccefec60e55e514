"""The control channel on real mounts: status, a late shadow, another size; and that the kernel shows nothing stale."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.processes import errno_of
from exercise.daemon import clear_away, has_ended, process_of
from exercise.mounted import dmgfs

pytestmark = pytest.mark.kernel


def start(image: Path, place: Path, *options: str | Path) -> None:
    ended = dmgfs("mount", image, place, *options)
    assert (ended.code, ended.err) == (0, "")


def figures(place: Path) -> dict[str, object]:
    ended = dmgfs("status", place, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def attach(place: Path, shadow: str | Path, *options: str) -> None:
    ended = dmgfs("shadow", "attach", place, shadow, *options)
    assert (ended.code, ended.err) == (0, "")


# -- status -------------------------------------------------------------------------------------------------------------


def test_status_of_a_mount(image, place):
    start(image, place, "--shadow", "ram:8M")
    (place / "big").write_bytes(b"x" * 100_000)
    now = figures(place)
    assert now["mountpoint"] == str(place)
    assert now["image"] == str(image)
    assert now["pid"] == process_of(place)
    shadow = now["shadow"]
    assert (shadow["kind"], shadow["budget"], shadow["pages"], shadow["objects"]) == ("ram", 8 << 20, 25, 2)
    assert 100_000 < shadow["used"] < 120_000
    assert now["requests"] > 3
    said = dmgfs("status", place).out
    assert "8.0 MiB" in said
    assert str(image) in said


def test_every_figure_of_a_status_is_right(place, tmp_path):
    """Of a compressed image, of which nothing is in memory at first; while things are done, one after the other."""
    pieces = [os.urandom(3_000_000) for _ in range(4)]
    builder = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096)
    for number, data in enumerate(pieces):
        builder.file(ROOT, f"file {number}", data)
    builder.symlink(ROOT, "damaged link", b"a\0b")
    image = tmp_path / "image.dmg"
    (tmp_path / "raw.img").write_bytes(bytes(builder.build(spare_blocks=64).data))
    assert dmgfs("convert", tmp_path / "raw.img", image, "--to", "udzo").code == 0
    start(image, place, "--shadow", "ram:8M", "--cache", "16M")
    first = figures(place)
    assert (first["shadow"]["budget"], first["shadow"]["used"], first["shadow"]["pages"]) == (8 << 20, 0, 0)
    assert (first["shadow"]["objects"], first["shadow"]["snapshots"], first["errors"]) == (0, 0, {})
    assert first["cache"]["budget"] == 16 << 20
    for number, data in enumerate(pieces):
        assert (place / f"file {number}").read_bytes() == data
    read = figures(place)
    assert read["requests"] >= first["requests"] + 3 * 4
    assert read["lower"]["asked"] > first["lower"]["asked"]
    assert first["cache"]["chunks"] < read["cache"]["chunks"] <= 16
    assert first["cache"]["used"] < read["cache"]["used"] <= 16 << 20
    decoded = [
        figure["cache"]["misses"] + figure["loads"]["ahead"] + figure["loads"]["wanted"] for figure in (first, read)
    ]
    assert decoded[1] > decoded[0]
    hits = read["cache"]["hits"]
    for _ in range(3):
        subprocess.run(
            ["dd", f"if={place}/file 3", "of=/dev/null", "iflag=direct", "bs=64k"], check=True, capture_output=True
        )
    assert figures(place)["cache"]["hits"] > hits
    for _ in range(2):
        assert errno_of(os.readlink, place / "damaged link") == errno.EIO
    assert figures(place)["errors"] == {"readlink:CorruptImage": 2}
    (place / "new").write_bytes(os.urandom(40_960))
    assert dmgfs("shadow", "snapshot", "create", place, "one").code == 0
    (place / "new").write_bytes(os.urandom(40_960))
    with open(place / "new", "rb"):
        last = figures(place)
    assert last["open files"] == 1
    assert (last["shadow"]["objects"], last["shadow"]["pages"], last["shadow"]["pages of snapshots"]) == (2, 10, 10)
    assert 20 * 4096 < last["shadow"]["used"] < 20 * 4096 + 8192
    said = dmgfs("status", place).out
    for text in ("2 objects, 10 pages", "readlink:CorruptImage 2", "1, with 10 pages of their own", "8.0 MiB"):
        assert text in said
    (listed,) = [one for one in json.loads(dmgfs("status", "--json").out) if one["mountpoint"] == str(place)]
    assert listed["shadow"] == last["shadow"]


def test_status_lists_live_and_dead_mounts(image, place, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    start(image, place)
    try:
        start(image, other)
        process = process_of(other)
        os.kill(process, signal.SIGKILL)
        assert has_ended(process)
        said = dmgfs("status").out.splitlines()
        assert any(line.startswith(f"{place}: ") and "read-only" in line for line in said)
        assert any(line.startswith(f"{other}: ") and "dead" in line for line in said)
        found = {one["mountpoint"]: one for one in json.loads(dmgfs("status", "--json").out)}
        assert "dead" in found[str(other)]["problem"]
    finally:
        clear_away(other)


def test_a_daemon_that_hangs_is_said_to(image, place):
    start(image, place)
    process = process_of(place)
    os.kill(process, signal.SIGSTOP)
    try:
        ended = dmgfs("status", place)
        assert ended.code != 0
        assert "does not answer" in ended.err
        assert ended.seconds < 15
    finally:
        os.kill(process, signal.SIGCONT)


def test_what_is_no_mount(tmp_path):
    ended = dmgfs("status", tmp_path)
    assert ended.code == 66
    assert "nothing is mounted there" in ended.err


# -- a late shadow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--late-shadow",)])
def test_a_read_only_mount_becomes_writable(image, place, options):
    start(image, place, *options)
    assert errno_of((place / "new").write_bytes, b"") == errno.EROFS
    assert errno_of(os.chmod, place / "ReadMe", 0o600) == errno.EROFS
    with open(place / "other", "rb") as opened:
        first = opened.read(6)
        attach(place, "ram:8M")
        (place / "new").write_bytes(b"written")
        os.chmod(place / "ReadMe", 0o600)
        assert first + opened.read() == b"other\n" * 1000
    assert (place / "new").read_bytes() == b"written"
    assert (place / "ReadMe").stat().st_mode & 0o7777 == 0o600
    ended = dmgfs("shadow", "attach", place, "ram")
    assert ended.code != 0
    assert "it has a shadow already" in ended.err


def test_the_mount_keeps_its_other_options(image, place):
    start(image, place, "-o", "noexec,nosuid,noatime")
    attach(place, "ram:8M")
    lines = Path("/proc/self/mounts").read_text().splitlines()
    (line,) = [line for line in lines if "fuse.dmgfs" in line and str(place.parent) in line]
    options = line.split()[3].split(",")
    assert {"rw", "noexec", "nosuid", "noatime"} <= set(options)
    assert errno_of(os.execv, place / "program", ["program"]) == errno.EACCES


def test_the_kernel_shows_nothing_stale_afterwards(image, place):
    """What it was told for ever before is taken back: other spellings, names that were not there, open files."""
    start(image, place)
    for name in ("ReadMe", "readme", "README", "Folder", "FOLDER", "folder/INNER/deep"):
        os.stat(place / name)
    for name in ("nothing", "NoThing"):
        assert not (place / name).exists()
    with (
        open(place / "OTHER", "rb") as unlisted,
        open(place / "other", "rb") as listed,
        open(place / "program", "rb"),
    ):
        attach(place, "ram:8M")
        os.unlink(place / "rEADmE")
        os.unlink(place / "oTHer")
        os.rename(place / "PROGRAM", place / "renamed")
        (place / "NOTHING").write_bytes(b"there")
        for name in ("ReadMe", "readme", "README", "other", "OTHER", "oTHer", "program", "Program"):
            assert not (place / name).exists(), name
        for name in ("nothing", "NoThing", "NOTHING"):
            assert (place / name).read_bytes() == b"there"
        assert listed.read() == unlisted.read() == b"other\n" * 1000
    os.rename(place / "folder", place / "moved")
    for name in ("Folder", "FOLDER", "folder"):
        assert not (place / name).exists(), name
    assert (place / "MOVED" / "inner" / "DEEP").read_bytes() == b"deep\n"


def test_a_late_shadow_in_a_file_is_found_again(image, place, tmp_path):
    file = tmp_path / "late.shadow"
    start(image, place)
    attach(place, file)
    (place / "kept").write_bytes(b"x" * 10_000)
    os.unlink(place / "ReadMe")
    os.sync()
    assert figures(place)["shadow"]["kind"] == str(file)
    assert dmgfs("unmount", place).code == 0
    start(image, place)
    assert (place / "ReadMe").exists()
    attach(place, file)
    assert (place / "kept").read_bytes() == b"x" * 10_000
    assert not (place / "README").exists()
    assert dmgfs("unmount", place).code == 0
    start(image, place, "--shadow", file)
    assert (place / "kept").read_bytes() == b"x" * 10_000
    assert not (place / "ReadMe").exists()


def test_what_cannot_be_attached_leaves_the_mount_as_it_was(image, sensitive_image, place, tmp_path):
    start(sensitive_image, place, "--shadow", tmp_path / "other.shadow")
    assert dmgfs("unmount", place).code == 0
    start(image, place)
    (tmp_path / "text").write_text("something else")
    for file, why in ((tmp_path / "other.shadow", "another image"), (tmp_path / "text", "left alone")):
        ended = dmgfs("shadow", "attach", place, file)
        assert ended.code != 0
        assert why in ended.err
    assert errno_of((place / "new").write_bytes, b"") == errno.EROFS
    assert (tmp_path / "text").read_text() == "something else"
    attach(place, tmp_path / "other.shadow", "--force-base")
    (place / "new").write_bytes(b"")


def test_attaching_a_file_of_the_mount_itself(image, place):
    start(image, place, "--late-shadow")
    ended = dmgfs("shadow", "attach", place, place / "ReadMe")
    assert ended.code != 0
    assert figures(place)["shadow"] is None


# -- a shadow in a file at once ------------------------------------------------------------------------------------------


def test_a_shadow_file_and_its_options(image, sensitive_image, place, tmp_path):
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file, "--preallocate", "8M")
    assert file.stat().st_size >= 8 << 20
    assert file.stat().st_mode & 0o777 == 0o600
    (place / "new").write_bytes(b"new")
    ended = dmgfs("mount", image, tmp_path, "--shadow", file)
    assert ended.code == 16 or "another process is using it" in ended.err or "lies in it" in ended.err
    assert dmgfs("unmount", place).code == 0
    ended = dmgfs("mount", sensitive_image, place, "--shadow", file)
    assert ended.code == 78
    assert "another image" in ended.err
    start(image, place, "--shadow", file, "--recycle")
    assert not (place / "new").exists()


def test_the_image_is_never_its_own_shadow(image, place):
    ended = dmgfs("mount", image, place, "--shadow", image)
    assert ended.code == 64
    assert "the image itself" in ended.err


# -- size ---------------------------------------------------------------------------------------------------------------


def test_another_size(image, place):
    start(image, place, "--shadow", "ram:1M")
    assert errno_of((place / "big").write_bytes, os.urandom(2 << 20)) == errno.ENOSPC
    assert dmgfs("shadow", "resize", place, "8M").code == 0
    (place / "big").write_bytes(os.urandom(2 << 20))
    assert os.statvfs(place).f_bavail * 4096 < 6 << 20
    ended = dmgfs("shadow", "resize", place, "1M")
    assert ended.code != 0
    assert "in use" in ended.err
    os.unlink(place / "big")
    assert dmgfs("shadow", "resize", place, "1M").code == 0


def test_a_read_only_mount_has_no_size(image, place):
    start(image, place)
    ended = dmgfs("shadow", "resize", place, "8M")
    assert ended.code != 0
    assert "read-only" in ended.err


def test_another_root_directory_does_not_matter(image, place):
    """As after chroot: no path of the daemon's means anything to the client."""
    start(image, place)
    code = (
        "import os, sys, dmgfs.cli.control as c, dmgfs.fuse.mountpoint, json, socket, struct, encodings.idna\n"
        f"os.chroot({str(place)!r}); os.chdir('/')\n"
        "print(c.ask('/', 'status')['pid'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(process_of(place)), done.stderr
