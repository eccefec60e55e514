"""dmgfs under those who start mounts by themselves: a service manager, systemd's unit files, fstab's generator, autofs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise.daemon import becomes
from exercise.mounted import DMGFS, is_mounted
from exercise.namespace import namespace

pytestmark = pytest.mark.kernel

UNITS = Path(__file__).resolve().parents[2] / "share" / "systemd"
GENERATOR = Path("/usr/lib/systemd/system-generators/systemd-fstab-generator")


def need(program: str | Path) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


@contextlib.contextmanager
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        yield listening


def test_a_service_manager_is_told(image, place, tmp_path):
    """READY=1 not before the mount answers, WATCHDOG=1 again and again, STOPPING=1."""
    with manager(tmp_path) as listening:
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        environment.pop("WATCHDOG_PID", None)
        process = subprocess.Popen(
            [DMGFS, "mount", "-f", "--shadow", "ram:1M", image, place], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            heard: list[str] = []
            while not heard or not heard[-1].startswith("READY=1"):
                heard.append(listening.recv(4096).decode())
            assert is_mounted(place)
            assert (place / "ReadMe").read_bytes() == b"read me\n"
            assert heard[-1] == f"READY=1\nSTATUS={image} on {place}, changes in ram"
            began = time.monotonic()
            assert [listening.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert 0.2 < time.monotonic() - began < 5
            process.send_signal(signal.SIGTERM)
            while not (last := listening.recv(4096)).startswith(b"STOPPING=1"):
                assert last == b"WATCHDOG=1"
            assert process.wait(20) == 0
            assert not is_mounted(place)
        finally:
            process.kill()
            process.wait()


def test_a_mount_in_the_background_tells_a_manager_nothing(image, place, tmp_path):
    """It is not the process that the manager watches."""
    with manager(tmp_path) as listening:
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        subprocess.run([DMGFS, "mount", image, place], env=environment, check=True)
        subprocess.run([DMGFS, "unmount", place], check=True)
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.recv(4096)


def test_systemd_takes_the_units(tmp_path):
    verify = [need("systemd-analyze"), "verify", "--man=no"]
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/dmgfs", str(DMGFS)))
    names = ["dmgfs@x.service", "live.mount", "live.automount"]
    done = subprocess.run(
        [*verify, *(tmp_path / name for name in names)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "live.mount").write_text((tmp_path / "live.mount").read_text().replace("Where=/live", "Where=/other"))
    done = subprocess.run([*verify, tmp_path / "live.mount"], capture_output=True, text=True, check=False)
    assert "Where= setting doesn't match" in done.stderr, "it does look at them"


def test_systemd_takes_the_line_of_fstab_that_stands_in_the_unit(tmp_path):
    if not GENERATOR.exists():
        pytest.skip("there is no systemd-fstab-generator")
    line = next(line for line in (UNITS / "live.mount").read_text().splitlines() if "x-systemd" in line)
    (tmp_path / "fstab").write_text(line.removeprefix("#") + "\n")
    made = tmp_path / "made"
    made.mkdir()
    environment = {**os.environ, "SYSTEMD_FSTAB": str(tmp_path / "fstab")}
    done = subprocess.run([GENERATOR, made, made, made], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mount, automount = (made / "live.mount").read_text(), (made / "live.automount").read_text()
    for wanted in ("What=/srv/image.dmg", "Where=/live", "Type=dmgfs", "Options=shadow=ram:50%%,allow_other,nofail"):
        assert f"\n{wanted}" in mount
    assert "TimeoutIdleSec=10min" in automount
    verify = [need("systemd-analyze"), "verify", "--man=no", made / "live.mount", made / "live.automount"]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_autofs_mounts_and_unmounts(image, tmp_path):
    """Direct from the map, by mount.dmgfs and by mount.fuse; gone again when nobody looked for a while."""
    need("automount")
    if not os.path.exists("/dev/autofs"):
        pytest.skip("the kernel has no autofs")
    for name in ("namespace", "auto"):
        (tmp_path / name).mkdir()
    auto = tmp_path / "auto"
    (tmp_path / "master").write_text(f"{auto} {tmp_path}/images --timeout=1\n")
    (tmp_path / "images").write_text(
        f"live -fstype=dmgfs,shadow=ram:1M,allow_other :{image}\nother -fstype=fuse.dmgfs,ro :{image}\n"
    )
    words = ["automount", "-f", "-n", "1", "-p", tmp_path / "pid", tmp_path / "master"]
    with namespace(tmp_path / "namespace") as inside:
        daemon = subprocess.Popen(
            ["nsenter", f"--mount=/proc/{inside.process}/ns/mnt", *words],
            start_new_session=True,  # autofs takes its own process group for itself
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert becomes(lambda: any(kind == "autofs" and path == str(auto) for path, kind, _ in inside.mounts()))
            for name, expected in (("live", {"rw", "allow_other", "nosuid", "nodev"}), ("other", {"ro"})):
                look = (
                    'cat "$PLACE/ReadMe"; sed -n "s,^[^ ]* $PLACE fuse.dmgfs \\([^ ]*\\).*,\\1,p" /proc/self/mounts'
                )
                read, options = inside.shell(look, PLACE=str(auto / name)).splitlines()
                assert read == "read me"
                assert expected <= set(options.split(","))
            assert becomes(lambda: not any(kind == "fuse.dmgfs" for _, kind, _ in inside.mounts()), 30)
        finally:
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
