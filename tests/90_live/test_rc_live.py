"""rc.live on real mounts, under a POSIX shell: start, stop, and what it says when a step fails; a shadow chosen as
rc.netboot does, in a mount and for one that lives."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.processes import errno_of
from exercise.here import here
from exercise.mounted import DMGFS, dmgfs, is_mounted

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "data" / "sample.dmg"


@pytest.fixture
def live(place) -> Iterator[Path]:
    yield place
    subprocess.run(["umount", "-lq", place / "bin"], check=False)


def rc(verb: str, config: Path) -> subprocess.CompletedProcess[str]:
    shell = shutil.which("dash") or "sh"
    words = [shell, ROOT / "scripts" / "rc.live", verb, config]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "DMGFS": str(DMGFS)})


def test_start_and_stop(live, tmp_path):
    config, plan, program = tmp_path / "conf", tmp_path / "plan", tmp_path / "program"
    plan.write_text("/bin 1024\n")
    program.write_text(f"#!/bin/sh\necho installed > '{live}/marker'\n")
    program.chmod(0o755)
    config.write_text(f"IMAGE={SAMPLE}\nMOUNTPOINT='{live}'\nPLAN={plan}\nPROGRAM={program}\n")
    done = rc("start", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "rc.live: done"
    assert (live / "marker").read_text() == "installed\n"
    assert is_mounted(live / "bin")
    assert (live / "bin" / "hello.sh").exists()  # it shows through
    assert f"{live}/bin" in rc("status", config).stdout
    stopped = rc("stop", config)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert not is_mounted(live)


def test_the_first_step_that_fails_ends_it_with_its_code(live, tmp_path):
    config = tmp_path / "conf"
    config.write_text(f"IMAGE={tmp_path}/missing.dmg\nMOUNTPOINT='{live}'\nPROGRAM=/bin/true\n")
    done = rc("start", config)
    assert done.returncode == 66
    assert done.stdout.splitlines()[-1] == f"rc.live: Failed: mount of {tmp_path}/missing.dmg"
    config.write_text("PROGRAM=/bin/false\n")
    assert rc("start", config).returncode == 1
    assert rc("start", tmp_path / "no conf").returncode == 66
    assert rc("nonsense", config).returncode == 64


def test_two_phases_read_only_then_a_shadow_of_those_that_can_be_had(live, tmp_path):
    """As rc.netboot: the root is read-only until a shadow is found, and not even a remount makes it writable before."""
    assert dmgfs("mount", SAMPLE, live).code == 0
    subprocess.run(["mount", "-o", "remount,rw", live], check=False, capture_output=True)
    assert errno_of(lambda: (live / "x").touch()) == errno_of(lambda: os.mkdir(live / "y")) != 0
    (tmp_path / "junk").write_text("no shadow")
    config = tmp_path / "conf"
    shadows = f"{tmp_path}/no/such/shadow,{tmp_path}/junk,{tmp_path}/folder/shadow,ram"
    config.write_text(f"MOUNTPOINT='{live}'\nLATE_SHADOW=-LOCAL-,{shadows}\nLATE_WAIT=0\n")
    done = rc("start", config)
    assert done.returncode == 0
    assert f"changes go to {tmp_path}/folder/shadow" in done.stdout
    assert done.stderr.count("it is passed over") == 2
    (live / "x").touch()
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "folder" / "shadow").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "junk").read_text() == "no shadow"


def test_a_mount_takes_the_first_shadow_that_can_be_had(live, tmp_path):
    (tmp_path / "junk").write_text("no shadow")
    said = dmgfs("mount", SAMPLE, live, "--shadow", f"auto:{tmp_path}/junk,{tmp_path}/a/shadow,ram")
    assert said.code == 0
    assert said.err.count("it is passed over") == 1
    (live / "kept").touch()
    assert here("unmount", live).code == 0
    assert dmgfs("mount", SAMPLE, live, "-o", f"shadow=auto:{tmp_path}/a/shadow\\,ram").code == 0
    assert (live / "kept").exists()
    other = tmp_path / "other"
    other.mkdir()
    said = dmgfs("mount", SAMPLE, other, "--shadow", f"auto:{tmp_path}/a/shadow,{tmp_path}/junk")
    assert said.code == 73
    assert said.err.startswith(f"dmgfs: {tmp_path}/a/shadow: ")
    assert not is_mounted(other)
