"""From the command to the mount and back: readiness, all ways to unmount, signals, exit codes, nothing left behind."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exercise.daemon import becomes, dmgfs_in_foreground, has_ended, process_of, python_in_foreground
from exercise.mounted import DMGFS, dmgfs, is_mounted, mounted

pytestmark = pytest.mark.kernel


def start(image: Path, place: Path, *options: str | Path) -> int:
    """Mounts in the background; the daemon's process number."""
    ended = dmgfs("mount", image, place, *options)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    return process_of(place)


# -- ready --------------------------------------------------------------------------------------------------------------


def test_the_mount_answers_when_the_command_returns(image, place):
    assert dmgfs("mount", image, place).code == 0
    assert "ReadMe" in os.listdir(place)
    assert (place / "ReadMe").read_bytes() == b"read me\n"


def test_the_command_leaves_nothing_of_the_callers(image, place):
    """Neither its terminal session, nor its directory, nor the pipes that somebody may wait for."""
    process = start(image, place)
    assert os.getsid(process) != os.getsid(0)
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    for descriptor in (0, 1, 2):
        assert os.readlink(f"/proc/{process}/fd/{descriptor}") == "/dev/null"


def test_without_a_verb_it_is_mount(image, place):
    assert dmgfs(image, place, "-o", "shadow=ram,noatime").code == 0
    (place / "new").write_text("written")
    assert (place / "new").read_text() == "written"


def test_relative_paths(image, place):
    ended = subprocess.run(
        [DMGFS, "mount", image.name, os.path.relpath(place, image.parent)], cwd=image.parent, check=False
    )
    assert ended.returncode == 0
    assert is_mounted(place)


def test_closed_standard_streams(image, place):
    ended = subprocess.run(f'"{DMGFS}" mount "{image}" "{place}" <&- >&- 2>&-', shell=True, check=False)
    assert ended.returncode == 0
    assert (place / "ReadMe").read_bytes() == b"read me\n"
    assert process_of(place)


def test_the_table_of_mounts_tells_what_it_is(image, place):
    start(image, place)
    with open("/proc/self/mounts") as mounts:
        (line,) = [line for line in mounts if "fuse.dmgfs" in line and str(place.parent) in line]
    assert line.startswith(f"{image} ")
    assert "ro," in line
    assert "default_permissions" in line


# -- ended --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[DMGFS, "unmount"], ["umount"], ["fusermount3", "-u"], ["umount", "-l"]])
def test_every_way_to_unmount_ends_the_daemon(image, place, command):
    process = start(image, place)
    subprocess.run([*command, place], check=True)
    assert not is_mounted(place)
    assert has_ended(process)
    assert os.listdir(place) == []


def test_unmount_returns_when_the_daemon_has_ended(image, place):
    process = start(image, place)
    assert dmgfs("unmount", place).code == 0
    assert has_ended(process, 0)


def test_unmount_waits_for_a_daemon_that_takes_its_time(image, place, tmp_path):
    """It answers `dmgfs status` still, as one whose disk is slow to sync."""
    program = tmp_path / "slow.py"
    program.write_text(
        "import sys, trio\n"
        "from dmgfs.cli import main\n"
        "from dmgfs.fuse import session\n"
        "serve = session.Session._serve\n"
        "async def late(self):\n"
        "    await serve(self)\n"
        "    await trio.sleep(4.5)\n"
        "session.Session._serve = late\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with python_in_foreground(program, image, place, "--shadow", tmp_path / "shadow") as process:
        assert dmgfs("unmount", place).code == 0
        assert process.poll() is not None or has_ended(process.pid, 0.1)
        assert dmgfs("shadow", "check", tmp_path / "shadow").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_unmount(image, place, number):
    process = start(image, place)
    os.kill(process, number)
    assert has_ended(process)
    assert not is_mounted(place)


def test_foreground_stays_until_interrupted(image, place):
    with dmgfs_in_foreground(image, place) as process:
        assert (place / "ReadMe").read_bytes() == b"read me\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert not is_mounted(place)
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"serving {place}" in said
    assert "Traceback" not in said


def test_a_signal_while_busy_serves_the_last_user(image, place):
    process = start(image, place)
    with open(place / "other", "rb") as file:
        assert file.read(5) == b"other"
        os.kill(process, signal.SIGTERM)
        assert becomes(lambda: not is_mounted(place))
        assert os.listdir(place) == []
        assert file.read() == (b"other\n" * 1000)[5:]
        assert not has_ended(process, 0.2)
    assert has_ended(process)


def test_the_second_signal_ends_it_at_once(image, place):
    process = start(image, place)
    descriptor = os.open(place / "other", os.O_RDONLY)
    try:
        os.kill(process, signal.SIGTERM)
        assert becomes(lambda: not is_mounted(place))
        os.kill(process, signal.SIGTERM)
        assert has_ended(process)
    finally:
        with contextlib.suppress(OSError):  # the other end of the file is gone
            os.close(descriptor)


def test_a_busy_mount_is_not_unmounted_and_its_users_are_named(image, place):
    process = start(image, place)
    with open(place / "other", "rb"):
        ended = dmgfs("unmount", place)
        assert ended.code == 75
        assert "busy" in ended.err
        assert f"{os.getpid()} " in ended.err
        assert is_mounted(place)
        assert dmgfs("unmount", "--lazy", place).code == 0
        assert not is_mounted(place)
    assert has_ended(process)


def test_a_killed_daemon_can_be_cleared_away(image, place):
    process = start(image, place)
    os.kill(process, signal.SIGKILL)
    assert has_ended(process)
    with pytest.raises(OSError, match="not connected") as caught:
        os.listdir(place)
    assert caught.value.errno == errno.ENOTCONN
    again = dmgfs("mount", image, place)
    assert again.code == 74
    assert "unmount" in again.err
    assert dmgfs("unmount", place).code == 0
    assert not is_mounted(place)


def test_a_moved_mount_is_found_by_a_signal(image, place, tmp_path):
    other = tmp_path / "other place"
    other.mkdir()
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    subprocess.run(["mount", "--make-private", tmp_path], check=True)
    try:
        process = start(image, place)
        subprocess.run(["mount", "--move", place, other], check=True)
        os.kill(process, signal.SIGTERM)
        assert has_ended(process)
        assert not is_mounted(other)
    finally:
        subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


def test_statistics_on_request(image, place, tmp_path):
    log = tmp_path / "log"
    process = start(image, place, "--log", log)
    (place / "ReadMe").read_bytes()
    os.kill(process, signal.SIGUSR1)
    assert becomes(lambda: "statistics:" in log.read_text())
    line = next(line for line in log.read_text().splitlines() if "statistics:" in line)
    assert "open files" in line
    assert "shadow read-only" in line
    assert "failures none" in line


# -- refused ------------------------------------------------------------------------------------------------------------


def refused(place: Path, code: int, *arguments: str | Path) -> str:
    """The one line of a mount that failed."""
    ended = dmgfs("mount", *arguments)
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert not is_mounted(place)
    lines = [line for line in ended.err.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, ended.err
    return lines[0]


def test_what_is_no_image(place, tmp_path):
    text = tmp_path / "text.dmg"
    text.write_text("hello\n" * 1000)
    line = refused(place, 66, text, place)
    assert line.startswith(f"dmgfs: {text}: ")


def test_an_image_that_is_not_there(place, tmp_path):
    assert "No such file" in refused(place, 66, tmp_path / "absent.dmg", place)


def test_a_damaged_volume(image, place, tmp_path):
    data = bytearray(image.read_bytes())
    for header in (1024, len(data) - 1024):
        data[header + 272 : header + 352] = bytes(80)  # the catalog's fork
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(data)
    refused(place, 65, damaged, place)


def test_a_mount_point_that_is_not_there(image, place):
    assert "No such file" in refused(place, 66, image, place / "absent")


def test_a_mount_point_that_is_a_file(image, place, tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert "Not a directory" in refused(place, 66, image, file)


def test_a_place_that_is_taken(image, place):
    start(image, place)
    ended = dmgfs("mount", image, place)
    assert ended.code == 74
    assert "already" in ended.err


def test_of_several_at_the_same_moment_one_mounts(image, place):
    attempts = [
        subprocess.Popen([DMGFS, "mount", image, place], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ends = [(*attempt.communicate(timeout=60), attempt.returncode) for attempt in attempts]
    assert sorted(code for _, _, code in ends) == [0, 74, 74, 74]
    for out, err, code in ends:
        assert out == ""
        assert len(err.splitlines()) == (code != 0)
        assert code == 0 or "mounting there at this moment" in err or "mounted there already" in err
    assert dmgfs("unmount", place).code == 0
    assert not is_mounted(place)


def test_writable_without_a_shadow_is_said_to_be_read_only(image, place):
    ended = dmgfs("mount", image, place, "-o", "rw")
    assert ended.code == 0
    assert len(ended.err.splitlines()) == 1
    assert "mounted read-only: no shadow for changes" in ended.err
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    dmgfs("unmount", place)
    for words in ("rw,shadow=none", "rw,shadow=ram", "rw,late-shadow", "ro", "noatime"):
        assert dmgfs("mount", image, place, "-o", words).err == ""
        dmgfs("unmount", place)


def test_the_image_is_not_hidden_by_its_own_mount(image, place, tmp_path):
    assert "would be hidden" in refused(place, 74, image, tmp_path)


def test_the_log_is_not_written_into_the_mount(image, place):
    assert "would be hidden" in refused(place, 74, image, place, "--log", place / "log")


def test_a_directory_that_is_not_empty_is_covered(image, place):
    (place / "below").touch()
    with mounted(image, place):
        assert "below" not in os.listdir(place)
    assert os.listdir(place) == ["below"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-o", "nosuchthing"], "nosuchthing"),
        (["-o", "shadow"], "shadow"),
        (["-o", "ro=1"], "ro=1"),
        (["-o", "allow_othr"], "allow_other"),
        (["--shadow", "ram:"], "ram:"),
        (["--shadow", "ram:0%"], "0%"),
        (["--shadow", "ram:101%"], "101%"),
        (["--shadow", "ram:-5M"], "-5M"),
        (["--shadow", "ram:1K"], "64K"),
        (["--shadow", "ram:disk"], "disk"),
        (["--shadow", "rom"], "./rom"),
        (["--cache", "many"], "many"),
        (["--umask", "9"], "9"),
        (["--uid", "me"], "me"),
        (["--names", "nfkc"], "nfkc"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage(image, place, options, word):
    assert word in refused(place, 64, image, place, *options)


def test_a_mount_that_the_kernel_refuses(image, place):
    line = refused(place, 71, image, place, "-o", "context=nonsense")
    assert str(place) in line


@pytest.mark.parametrize(
    "words", ["defaults,nofail,_netdev,x-systemd.automount,user", "rw,relatime", "noatime,nodev,ro"]
)
def test_words_of_fstab(image, place, words):
    with mounted(image, place, "-o", words):
        assert (place / "ReadMe").read_bytes() == b"read me\n"


def test_dev_and_suid_on_request(image, place):
    with mounted(image, place, "-o", "allow_other,dev,suid"), open("/proc/self/mounts") as mounts:
        (line,) = [line for line in mounts if "fuse.dmgfs" in line and str(place.parent) in line]
        assert "nosuid" not in line
        assert "nodev" not in line
        assert "allow_other" in line


def test_a_source_name_with_odd_characters(place, image, tmp_path):
    odd = tmp_path / "ö, \\ and space.img"
    odd.write_bytes(image.read_bytes())
    with mounted(odd, place):
        assert (place / "ReadMe").read_bytes() == b"read me\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["mount", "--help"], ["unmount", "--help"]])
def test_help_does_not_pay_for_the_engine(arguments):
    program = "import sys; from dmgfs.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    program += "print(sorted({'trio', 'pyfuse3', 'construct', 'lru'} & set(sys.modules)), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert ended.stderr == "[]\n"


def test_nothing_is_imported_after_the_mount_is_ready(image, place, tmp_path):
    """The files that a late import needs may be gone by then, or lie in the mount itself."""
    program = tmp_path / "watching.py"
    program.write_text(
        "import atexit, sys\n"
        "from dmgfs.cli import main\n"
        "from dmgfs.fuse import session\n"
        "announce = session.Session._announce\n"
        "async def watched(self):\n"
        "    await announce(self)\n"
        "    before = set(sys.modules)\n"
        "    atexit.register(lambda: print('late:', sorted(set(sys.modules) - before), file=sys.stderr))\n"
        "session.Session._announce = watched\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with python_in_foreground(program, image, place, "--shadow", "ram") as process:
        time.sleep(0.3)
        for folder, _, files in os.walk(place):
            for file in files:
                if file != "damaged link":
                    Path(folder, file).read_bytes()
        (place / "new").write_bytes(b"x" * 10_000)
        os.setxattr(place / "new", "user.x", b"1")
        os.rename(place / "new", place / "newer")
        with pytest.raises(OSError, match="error"):
            os.readlink(place / "damaged link")
        os.statvfs(place)
        subprocess.run(["umount", place], check=True)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "late: []" in process.stderr.read()
