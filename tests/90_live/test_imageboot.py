"""dmgfs imageboot with disks: image and shadow on file systems of their own, an image in an image. In a mount namespace,
where /run is another one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.mounted import DMGFS

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks"),
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed"),
]


@pytest.fixture
def loop():
    """Makes block devices of files."""
    devices = []

    def attach(file: Path, *options: str) -> str:
        done = subprocess.run(
            ["losetup", "-f", "--show", *options, file], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        devices.append(done.stdout.strip())
        return devices[-1]

    yield attach
    for device in devices:
        subprocess.run(["losetup", "-d", device], check=True)


def ext4(file: Path, *content: Path) -> Path:
    folder = file.with_suffix(".content")
    folder.mkdir()
    for part in content:
        shutil.copy(part, folder)
    with file.open("wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", folder, file], check=True)
    return file


def boot(place: Path, cmdline: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """imageboot, then the commands in the mount, then its end."""
    script = (
        'mount -t tmpfs none /run && "$0" imageboot "$1" --cmdline "$2" || exit $?\n'
        'cd "$1"\n' + "\n".join(commands) + "\ncd /\n"
        'umount "$1" || exit 99\n'
        # The shadow's disk is busy until the daemon has made all of it safe.
        "for i in $(seq 100); do umount /run/dmgfs/* 2> /dev/null\n"
        "grep -q ' /run/dmgfs' /proc/mounts || break; sleep 0.1; done\n"
    )
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, DMGFS, place, cmdline],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_image_and_shadow_on_disks_of_their_own(image, place, tmp_path, loop):
    image_disk = loop(ext4(tmp_path / "image.disk", image))
    changes = loop(ext4(tmp_path / "changes.disk"))
    before = (tmp_path / "image.disk").read_bytes()
    cmdline = f"quiet dmgfs.image={image_disk}:/{image.name} dmgfs.shadow={changes}:/deep/er/shadow"
    done = boot(place, cmdline, "cat ReadMe", "echo kept > new", "mount | grep -c /run/dmgfs/.*nosuid")
    assert (done.returncode, done.stdout, done.stderr) == (0, "read me\n2\n", "")
    assert (tmp_path / "image.disk").read_bytes() == before
    done = boot(place, cmdline, "cat new")
    assert (done.returncode, done.stdout, done.stderr) == (0, "kept\n", "")


def test_image_and_shadow_on_one_disk(image, place, tmp_path, loop):
    disk = loop(ext4(tmp_path / "disk", image))
    done = boot(place, f"root={disk} dmgfs.image=/{image.name} dmgfs.shadow=/shadow", "echo kept > new")
    assert (done.returncode, done.stderr) == (0, "")
    done = boot(place, f"root={disk} rp=file:///{image.name} dmgfs.shadow=/shadow", "cat new")
    assert (done.stdout, done.stderr) == ("kept\n", "")


def test_the_disk_is_itself_the_image(image, place, loop):
    done = boot(place, f"dmgfs.image={loop(image)}", "cat ReadMe", "echo lost > new; cat new")
    assert (done.returncode, done.stdout, done.stderr) == (0, "read me\nlost\n", "")


@pytest.mark.parametrize(
    "form", ["dmgfs.image={disk}:/o.img//folder/i.img", "root={disk} rp0=file:///o.img rp1=/folder/i.img"]
)
def test_an_image_in_an_image(image, place, tmp_path, loop, form):
    builder = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096)
    builder.file(builder.folder(ROOT, "folder"), "i.img", image.read_bytes())
    outer = tmp_path / "o.img"
    outer.write_bytes(bytes(builder.build(spare_blocks=64).data))
    disk = loop(ext4(tmp_path / "disk", outer))
    done = boot(place, form.format(disk=disk), "cat ReadMe")
    assert (done.returncode, done.stdout, done.stderr) == (0, "read me\n", "")


def test_no_file_system_on_the_disk(place, tmp_path, loop):
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    done = boot(place, f"dmgfs.image={loop(empty)}:/a.dmg")
    assert done.returncode == 74
    assert "no file system on it" in done.stderr


def test_the_policy_of_the_command_line(image, place, tmp_path, loop):
    disk = loop(ext4(tmp_path / "disk", image))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no shadow" * 1000)
    changes = loop(ext4(tmp_path / "changes.disk", damaged))
    cmdline = f"dmgfs.image={disk}:/{image.name} dmgfs.shadow={changes}:/damaged"
    done = boot(place, cmdline)
    assert done.returncode == 73
    done = boot(place, f"{cmdline} dmgfs.on-error=ram", "echo works > new; cat new")
    assert (done.returncode, done.stdout) == (0, "works\n")
    cmdline = f"dmgfs.image={disk}:/{image.name} dmgfs.shadow=LABEL=ABSENT:/changes dmgfs.wait=0.2"
    assert boot(place, cmdline).returncode == 66
    done = boot(place, f"{cmdline} dmgfs.on-error=ro", "touch new || cat ReadMe")
    assert (done.returncode, done.stdout) == (0, "read me\n")


def test_the_disk_of_both_cannot_be_written_to(image, place, tmp_path, loop):
    disk = loop(ext4(tmp_path / "disk", image), "-r")
    cmdline = f"root={disk} dmgfs.image=/{image.name} dmgfs.shadow=/shadow"
    assert boot(place, cmdline).returncode in (74, 77)
    done = boot(place, f"{cmdline} dmgfs.on-error=ram", "echo works > new; cat new")
    assert (done.returncode, done.stdout) == (0, "works\n")
