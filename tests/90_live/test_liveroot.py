"""-o liveroot: the daemon of a root directory outlives what ends others."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exercise.daemon import becomes, dmgfs_in_foreground, has_ended, process_of, python_in_foreground
from exercise.mounted import DMGFS, dmgfs, is_mounted

pytestmark = pytest.mark.kernel

WATCHING = """\
import atexit, sys
from dmgfs.cli import main
from dmgfs.fuse.liveroot import LiveRoot
harden = LiveRoot.harden
def watched(self):
    harden(self)
    before = set(sys.modules)
    atexit.register(lambda: print('late:', sorted(set(sys.modules) - before), self.guard.refused, file=sys.stderr))
LiveRoot.harden = watched
sys.exit(main(sys.argv[1:]))
"""


def live(place: Path) -> None:
    """Every kind of request."""
    for folder, _, files in os.walk(place):
        for file in files:
            with contextlib.suppress(OSError):
                Path(folder, file).read_bytes()
                os.listxattr(Path(folder, file))
    (place / "new").write_bytes(b"x" * 100_000)
    os.truncate(place / "new", 5000)
    os.chmod(place / "new", 0o600)
    os.chown(place / "new", 1, 2)
    os.utime(place / "new", (1, 2))
    os.setxattr(place / "new", "user.x", b"1")
    assert os.getxattr(place / "new", "user.x") == b"1"
    os.removexattr(place / "new", "user.x")
    os.link(place / "new", place / "linked")
    os.symlink("new", place / "symbolic")
    assert os.readlink(place / "symbolic") == "new"
    os.mkfifo(place / "pipe")
    os.mkdir(place / "made")
    os.rename(place / "new", place / "made/newer")
    with open(place / "made/newer", "r+b") as file:
        file.write(b"again")
        file.flush()
        os.fsync(file.fileno())
        os.unlink(place / "made/newer")
        file.seek(0)
        assert file.read(5) == b"again"
    os.rmdir(place / "made")
    os.statvfs(place)
    with pytest.raises(OSError, match="error"):
        os.readlink(place / "damaged link")
    with pytest.raises(FileNotFoundError):
        os.stat(place / "absent \u00e9")


def ask(place: Path, folder: Path) -> None:
    """Every verb for a live mount."""
    for words in (
        ("status", place),
        ("status", place, "--json"),
        ("shadow", "attach", place, folder / "shadow"),
        ("shadow", "diff", place),
        ("shadow", "export", place, "--tar", folder / "layer.tar"),
        ("shadow", "save", place, folder / "saved"),
        ("shadow", "resize", place, "20M"),
        ("shadow", "reset", place, "/ReadMe"),
        ("shadow", "reset", place),
    ):
        ended = dmgfs(*words)
        assert ended.code == (74 if "attach" in words else 0), (words, ended)
    os.kill(process_of(place), signal.SIGUSR1)


@pytest.mark.parametrize("kind", ["ram", "file", "late"])
def test_nothing_is_imported_once_it_is_ready(image, place, tmp_path, kind):
    if kind == "late":
        words: tuple[str | Path, ...] = ("--late-shadow",)
    else:
        words = ("--shadow", "ram" if kind == "ram" else tmp_path / "shadow")
    program = tmp_path / "watching.py"
    program.write_text(WATCHING)
    log = tmp_path / "log"
    with python_in_foreground(program, image, place, "--liveroot", *words, "--acl", "--log", log) as process:
        assert becomes(lambda: "serving" in log.read_text())
        if kind == "late":
            assert dmgfs("shadow", "attach", place, tmp_path / "shadow").code == 0
        elif kind == "ram":
            for action in ("create", "rollback", "list", "delete"):
                assert dmgfs("shadow", "snapshot", action, place, *([] if action == "list" else ["one"])).code == 0
        (place / "ReadMe").write_bytes(b"changed")
        live(place)
        ask(place, tmp_path)
        assert becomes(lambda: "late imports refused 0" in log.read_text())
        os.kill(process.pid, signal.SIGTERM)
        assert becomes(lambda: "SIGTERM: changes are made safe" in log.read_text())
        subprocess.run(["umount", place], check=True)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "late: [] []" in process.stderr.read()


def test_an_import_that_comes_late_is_refused_and_said(image, place, tmp_path):
    program = tmp_path / "late.py"
    program.write_text(
        "import sys\n"
        "from dmgfs.cli import main\n"
        "from dmgfs.fuse.operations import DmgOperations\n"
        "statfs = DmgOperations.statfs\n"
        "async def late(self, ctx):\n"
        "    import wave\n"
        "    return await statfs(self, ctx)\n"
        "DmgOperations.statfs = late\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    log = tmp_path / "log"
    with python_in_foreground(program, image, place, "--liveroot", "--log", log):
        assert becomes(lambda: "serving" in log.read_text())
        with pytest.raises(OSError, match="error"):
            os.statvfs(place)
        assert "late import of wave refused" in log.read_text()
        assert (place / "ReadMe").read_bytes() == b"read me\n"


def test_it_is_mounted_as_a_root_must_be(image, place, tmp_path):
    def options(*words: str) -> list[str]:
        assert dmgfs("mount", image, place, "--log", "none", "-o", ",".join(words)).code == 0
        with open("/proc/self/mounts") as mounts:
            (line,) = [line for line in mounts if "fuse.dmgfs" in line and str(place.parent) in line]
        assert dmgfs("unmount", place).code == 0
        return line.split()[3].split(",")

    found = options("liveroot", "shadow=ram")
    assert {"allow_other", "default_permissions"} <= set(found)
    assert not {"nosuid", "nodev"} & set(found)
    assert "nodev" in options("liveroot", "nodev")


def test_signals_for_everybody_do_not_end_it(image, place, tmp_path):
    shadow = tmp_path / "shadow"
    assert dmgfs("mount", image, place, "--liveroot", "--shadow", shadow, "--log", "none").code == 0
    process = process_of(place)
    (place / "new").write_text("kept")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(process, number)
    assert not has_ended(process, 0.5)
    assert (place / "new").read_text() == "kept"
    ended = dmgfs("unmount", place)
    assert (ended.code, is_mounted(place)) == (0, False)
    assert has_ended(process)
    assert dmgfs("mount", image, place, "--shadow", shadow).code == 0
    assert (place / "new").read_text() == "kept"


def test_stopped_it_continues_by_itself(image, place):
    assert dmgfs("mount", image, place, "--liveroot", "--log", "none").code == 0
    process = process_of(place)
    for _ in range(3):
        os.kill(process, signal.SIGSTOP)
        started = time.monotonic()
        assert b"other\n" in (place / "other").read_bytes()
        os.statvfs(place)
        assert time.monotonic() - started < 5


def test_memory_is_locked_and_counted(image, place):
    from dmgfs.fuse import hardening

    if not hardening.may_lock_memory().holds:
        pytest.skip("this user may not lock memory")
    assert dmgfs("mount", image, place, "--liveroot", "--log", "none").code == 0
    status = dict(line.split(":\t") for line in Path(f"/proc/{process_of(place)}/status").read_text().splitlines())
    locked, resident = (int(status[name].split()[0]) for name in ("VmLck", "VmRSS"))
    assert locked > 10_000
    assert resident < 150_000
    assert status["VmSwap"].split()[0] == "0"


@pytest.mark.parametrize(("initrd", "mark"), [("1", b"@"), ("", b"")])
def test_the_mark_on_the_command_line(image, place, initrd, mark, monkeypatch):
    if os.path.exists("/etc/initrd-release"):
        pytest.skip("this is an initrd")
    if os.geteuid() != 0:
        pytest.skip("only root's mark counts")
    monkeypatch.setenv("DMGFS_INITRD", initrd)
    assert dmgfs("mount", image, place, "--liveroot", "--log", "none").code == 0
    process = process_of(place)
    line = Path(f"/proc/{process}/cmdline").read_bytes()
    omitted = Path(f"/run/sendsigs.omit.d/dmgfs.{process}")
    assert omitted.exists() == bool(mark)
    omitted.unlink(missing_ok=True)
    assert line.startswith(b"@") == bool(mark)
    assert b"dmgfs" in line


def test_it_goes_on_without_proc_and_dev(image, place, tmp_path):
    """As after switch_root, which moves them away."""
    if os.geteuid() != 0:
        pytest.skip("only root has a mount namespace of its own")
    program = tmp_path / "without.py"
    program.write_text(
        "import ctypes, os, subprocess, sys, time\n"
        "dmgfs, image, place, log = sys.argv[1:]\n"
        "subprocess.run([dmgfs, 'mount', image, place, '--liveroot', '--shadow', 'ram', '--log', log], check=True)\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for folder in (b'/proc', b'/dev', b'/sys'):\n"
        "    assert libc.mount(b'none', folder, b'tmpfs', 0, None) == 0\n"
        "assert os.listdir('/proc') == os.listdir('/dev') == []\n"
        "process = int(os.getxattr(place, 'user.dmgfs.pid'))\n"
        "os.kill(process, 15)\n"
        "os.kill(process, 10)\n"
        "os.kill(process, 19)\n"
        "with open(place + '/new', 'wb') as file:\n"
        "    file.write(b'x' * 1000000)\n"
        "    os.fsync(file.fileno())\n"
        "assert len(open(place + '/new', 'rb').read()) == 1000000\n"
        "assert open(place + '/Folder/inner/deep').read() == 'deep\\n'\n"
        "os.unlink(place + '/new')\n"
        "time.sleep(0.5)\n"
        "assert libc.umount2(os.fsencode(place), 0) == 0, ctypes.get_errno()\n"
    )
    log = tmp_path / "log"
    done = subprocess.run(
        ["unshare", "-m", sys.executable, program, DMGFS, image, place, log],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert becomes(lambda: "is unmounted" in log.read_text())
    assert "late imports refused 0" in log.read_text()
    assert " ERROR " not in log.read_text()


def test_the_log_names_what_holds(image, place, tmp_path):
    log = tmp_path / "log"
    with dmgfs_in_foreground(image, place, "--liveroot", "--log", log):
        assert becomes(lambda: "serving" in log.read_text())
    for what in (
        "modules are imported",
        "spares",
        "continuing",
        "memory runs out",
        "without waiting",
        "memory locked",
    ):
        assert what in log.read_text()
