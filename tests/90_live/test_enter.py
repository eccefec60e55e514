"""Living in a mounted image: its root, the machine's /proc, /sys and /dev, and nothing left behind when it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise.daemon import becomes, has_ended
from exercise.mounted import DMGFS, dmgfs, mounted

pytestmark = pytest.mark.kernel

PROGRAMS = ("sh", "sleep")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A shell and a program, and all libraries that they need."""
    found = [Path(shutil.which(name) or name).resolve() for name in PROGRAMS]
    libraries = set()
    for program in found:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", said))
    return [*found, *map(Path, sorted(libraries))]


@pytest.fixture
def live(sensitive_image: Path, place: Path, programs: list[Path]) -> Iterator[Path]:
    """A mount with a shell in it."""
    with mounted(sensitive_image, place, "--shadow", "ram:64M"):
        for name in ("proc", "sys", "dev", "run", "bin", "tmp"):
            (place / name).mkdir()
        for name, program in zip(PROGRAMS, programs, strict=False):
            shutil.copy(program, place / "bin" / name)
        for library in programs[len(PROGRAMS) :]:
            target = place / str(library).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        yield place


def table(live: Path) -> list[str]:
    """What is mounted on it and below; the rest of the machine is none of this test's business."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [" ".join(line.split()[3:]) for line in lines if str(live).replace(" ", "\\040") in line]


def enter(place: Path, *command: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DMGFS, "enter", place, *command], capture_output=True, text=True, check=False, **more)


def test_a_shell_finds_what_it_expects(live):
    script = (
        "read name </proc/$$/comm; echo $name; test -d /sys/kernel; test -c /dev/null; echo x >/dev/null; cd /; echo *\n"
        "echo >/run/mine; test -f /run/mine; read line <ReadMe; echo $line; echo inside >/tmp/new"
    )
    before = table(live)
    done = enter(live, "sh", "-ec", script)
    assert (done.returncode, done.stderr) == (0, "")
    name, root, line = done.stdout.splitlines()
    assert name == "sh"
    assert {"ReadMe", "Folder", "proc"} <= set(root.split())
    assert line == "read me"
    assert (live / "tmp" / "new").read_text() == "inside\n"
    assert [os.listdir(live / name) for name in ("proc", "sys", "dev", "run")] == [[], [], [], []]
    assert table(live) == before


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)])
def test_the_exit_code_is_the_commands(live, script, code):
    assert enter(live, "--", "sh", "-c", script).returncode == code


def test_without_a_command_it_is_a_shell(live):
    for shell in ("/bin/sh", "/no/such/shell", ""):
        done = enter(live, input="echo $0; exit 3\n", env={"SHELL": shell})
        assert (done.returncode, done.stdout, done.stderr) == (3, "/bin/sh\n", "")


def test_its_mounts_are_seen_by_nobody_else(live):
    """While it runs."""
    before = table(live)
    with subprocess.Popen(
        [DMGFS, "enter", live, "sh", "-c", "echo; echo $$; read line"], stdin=-1, stdout=-1
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert table(live) == before
        assert os.listdir(live / "proc") == []
        inside = running.stdout.readline().decode().strip()
        seen = Path(f"/proc/{inside}/mounts").read_text()
        for path, kind in (("/proc", "proc"), ("/sys", "sysfs"), ("/run", "tmpfs")):
            assert re.search(rf"^\S+ {path} {kind} ", seen, re.MULTILINE), seen
        running.communicate(b"\n", timeout=20)
    assert table(live) == before
    assert dmgfs("unmount", live).code == 0, "nobody holds it any more"
    dmgfs("mount", live.parent / "sensitive.img", live)


def test_what_the_command_leaves_running_ends_with_it(live):
    script = "sleep 1000 & echo $!; (trap '' TERM; sleep 1000 & echo $!; wait) & exit 0"
    began = time.monotonic()
    done = enter(live, "sh", "-c", script)
    assert done.returncode == 0
    left = [int(word) for word in done.stdout.split()]
    assert left
    for process in left:
        assert has_ended(process, 0)
    assert time.monotonic() - began < 20


def test_a_signal_to_it_reaches_the_command(live):
    with subprocess.Popen([DMGFS, "enter", live, "sh", "-c", "echo; sleep 1000"], stdout=-1) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 143


def test_killed_it_leaves_nothing(live):
    before = table(live)
    with subprocess.Popen([DMGFS, "enter", live, "sh", "-c", "echo $$; exec sleep 1000"], stdout=-1) as running:
        assert running.stdout is not None
        inside = int(running.stdout.readline())
        running.kill()
    assert has_ended(inside)
    assert becomes(lambda: table(live) == before)


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        (["nosuch"], 127, "nosuch: not found in the image"),
        (["/bin/nosuch"], 127, "/bin/nosuch: not found in the image"),
        (["/ReadMe"], 126, "/ReadMe: Permission denied"),
        (["/script"], 126, "/script: the interpreter or loader that it asks for is not in the image"),
        (["/darwin"], 126, "/darwin: no program for Linux"),
    ],
)
def test_what_cannot_be_run(live, command, code, why):
    (live / "script").write_text("#!/usr/bin/perl\n")
    (live / "darwin").write_bytes(bytes.fromhex("feedface") + bytes(4096))
    for name in ("script", "darwin"):
        (live / name).chmod(0o755)
    done = enter(live, *command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"dmgfs: {live}: {why}\n")


def test_an_image_without_a_shell_and_directories(image, place):
    with mounted(image, place):
        done = enter(place)
        assert done.returncode == 127
        *missing, last = done.stderr.splitlines()
        assert [line.split("/")[-1] for line in missing] == [
            "proc is missing",
            "sys is missing",
            "dev is missing",
            "run is missing",
        ]
        assert last == f"dmgfs: {place}: there is no shell in it, neither $SHELL nor /bin/sh; say what to run"


def test_a_link_does_not_lead_out_of_the_image(live):
    """A hostile image whose /run is a link: nothing is mounted where it leads."""
    (live / "run").rmdir()
    (live / "run").symlink_to("/tmp")
    done = enter(live, "sh", "-c", "while read a b c; do echo $b $c; done </proc/self/mounts")
    assert "/run is no directory in it and left alone" in done.stderr
    assert not re.search(r"^/tmp tmpfs rw,nosuid,nodev,relatime,mode=755", done.stdout, re.MULTILINE)


def test_what_is_no_mount(tmp_path):
    done = enter(tmp_path)
    assert (done.returncode, done.stderr) == (66, f"dmgfs: {tmp_path}: nothing is mounted there\n")
    done = enter(Path("/proc"))
    assert (done.returncode, done.stderr) == (66, "dmgfs: /proc: a proc is mounted there, no image\n")


def test_only_root_can_enter(image, place):
    program = (
        "import os, sys; from dmgfs.cli import enter, main; from dmgfs.fuse import mountpoint\n"
        "os.seteuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    with mounted(image, place, "-o", "allow_other"):
        done = subprocess.run(
            [sys.executable, "-c", program, "enter", place], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (
        77,
        f"dmgfs: {place}: only root can enter a mount; without root there is no chroot\n",
    )
