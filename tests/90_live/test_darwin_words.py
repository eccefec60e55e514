"""Darwin's scripts and commands on real mounts: RAMDisk() of rc.cdrom and the shadow script of the PureDarwin page run as
they are printed, with our shims; hdik, vndevice and nbdst say and refuse what Darwin's do."""

import json
import os
import plistlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise.here import Said, here
from exercise.mounted import DMGFS, dmgfs, is_mounted

pytestmark = pytest.mark.kernel

SAMPLE = Path(__file__).parent.parent / "data" / "sample.dmg"

RAM_DISK = """\
#
# Create a RAM disk with same perms as mountpoint
#
RAMDisk()
{
  mntpt=$1
  rdsize=$2
  echo "Creating RAM Disk for $mntpt"
  dev=`hdik -drivekey system-image=yes -nomount ram://$rdsize`
  if [ $? -eq 0 ] ; then
    newfs_hfs $dev
    # save & restore fs permissions covered by the mount
    eval `/usr/bin/stat -s $mntpt`
    mount -t hfs -o union -o nobrowse $dev $mntpt
    chown $st_uid:$st_gid $mntpt
    chmod $st_mode $mntpt
  fi
}
"""
"""Of rc.cdrom, as it is printed."""

SHADOW_FILES = """\
#!/bin/bash -e -x

mount -uw
touch /shadowfile

/usr/libexec/vndevice attach /dev/vn0 /uncompressed.dmg
/usr/libexec/vndevice shadow /dev/vn0 /shadowfile

mount -t hfs /dev/vn0 /live/
# /usr/libexec/vndevice detach /dev/vn0
"""
"""The page's, under "Shadow files"."""


@pytest.fixture(autouse=True)
def devices(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of devices for this test; what is left in it is taken away."""
    path = tmp_path / "devices"
    monkeypatch.setenv("DMGFS_RUNTIME", str(path))
    yield path
    for place in path.glob("*.d"):
        subprocess.run(["umount", "-lq", place], check=False)


@pytest.fixture
def shims(tmp_path) -> Path:
    assert here("shims", tmp_path / "shims").code == 0
    return tmp_path / "shims"


@pytest.fixture
def covered(tmp_path) -> Iterator[Path]:
    path = tmp_path / "covered"
    path.mkdir()
    (path / "below").touch()
    yield path
    while is_mounted(path):
        subprocess.run(["umount", "-l", path], check=True)


def with_shims(shims: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "BASH_ENV": str(shims / "darwin.bash")},
    )


def test_ram_disk_of_rc_cdrom_runs_as_it_is_printed(shims, covered, devices):
    os.chown(covered, 123, 7)
    covered.chmod(0o1775)
    done = with_shims(shims, f"{RAM_DISK}RAMDisk {covered} 1024\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"Creating RAM Disk for {covered}",
        f"Initialized {devices}/disk1 as a 512 KB HFS Plus volume",
    ]
    assert is_mounted(covered)
    status = covered.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1775, 123, 7)
    (covered / "on top").touch()
    assert sorted(os.listdir(covered)) == ["below", "on top"]
    [known] = json.loads(here("hdik", "-list").out)
    assert (known["image"], known["drivekeys"]) == ("ram://1024", {"system-image": "yes"})
    assert known["mounted"] == [str(covered)]
    busy = here("hdik", "-e", f"{devices}/disk1")
    assert (busy.code, busy.err) == (74, f"dmgfs: disk1: it is mounted on {covered}\n")
    assert here("unmount", covered).code == 0
    assert here("hdik", "-e", f"{devices}/disk1").code == 0
    assert os.listdir(devices) == [".lock"]


def test_ram_disk_goes_on_when_there_is_no_memory_for_it(shims, covered):
    done = with_shims(shims, f"{RAM_DISK}RAMDisk {covered} 1M\necho went on\n")
    assert done.stdout.splitlines() == [f"Creating RAM Disk for {covered}", "went on"]
    assert not is_mounted(covered)


def test_hdik_prints_one_word_or_nothing(devices, tmp_path):
    said = here("hdik", "ram://1024", "-nomount")
    assert (said.code, said.out, said.err) == (0, f"{devices}/disk1\n", "")
    assert (devices / "disk1").stat().st_size == 1024 * 512
    said = here("hdik", SAMPLE, "-shadow", tmp_path / "shadow")
    assert (said.code, said.out, said.err) == (0, f"{devices}/disk2\n", "")
    assert (devices / "disk2s1").stat().st_size == 2097152
    with (devices / "disk2").open("r+b") as disk:
        disk.write(b"written")
    for wrong in (["ram://1M"], ["ram://0"], [tmp_path / "missing"], [], ["-e", "disk9"], ["-e", "/etc/passwd"]):
        said = here("hdik", *wrong)
        assert said.code != 0, wrong
        assert said.out == "", wrong
        assert said.err.startswith("dmgfs: "), wrong
    assert sorted(path.name for path in devices.glob("*.json")) == ["disk1.json", "disk2.json"]
    assert here("hdik", "-e", "/dev/disk2").code == 0
    assert here("hdik", "-e", "disk1").code == 0


def test_devices_that_are_gone_are_forgotten(devices):
    assert here("hdik", "ram://1024").code == 0
    subprocess.run(["umount", devices / "disk1.d"], check=True)  # as when the machine is started anew
    assert here("hdik", "-list").out.split() == ["[]"]
    assert os.listdir(devices) == [".lock"]
    os.chown(devices, 12345, 0)
    assert here("hdik", "ram://1024").code == 77


def test_volume_options_of_newfs_hfs_are_those_of_the_disk(shims, covered, devices):
    done = with_shims(shims, f"d=`hdik ram://1024`; newfs_hfs -M 700 -U 12 -v x $d && mount -t hfs $d {covered}")
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE(covered.stat().st_mode) == 0o700
    assert covered.stat().st_uid == 12
    assert os.listdir(covered) == []
    assert "HFS+" in here("info", devices / "disk1").out


def test_other_uses_of_the_shims_are_this_systems(shims, tmp_path):
    done = with_shims(
        shims, f"stat -c %s {SAMPLE}; touch {tmp_path}/f; chmod 600 {tmp_path}/f; mount | grep -c /; chmod x"
    )
    lines = done.stdout.split()
    assert lines[0] == str(SAMPLE.stat().st_size)
    assert int(lines[1]) > 0
    assert "chmod: " in done.stderr
    facts = dict(word.split("=") for word in with_shims(shims, f"/usr/bin/stat -s {tmp_path}/f").stdout.split())
    assert (facts["st_mode"], facts["st_size"], facts["st_nlink"]) == ("0100600", "0", "1")


ERRORS = [
    (["shadow", "vn0", "{shadow}"], "Invalid argument: nothing is attached there"),
    (["detach", "vn0"], "No such device or address: nothing is attached there"),
    (["attach", "/dev/rvn0", "{image}"], "No such device: attach the block device"),
    (["attach", "vn0", "{image}.not"], "No such file or directory"),
    (["attach", "/dev/vn99", "{image}"], "No such device or address"),
    (["attach", "/dev/vn0", "{image}"], ""),
    (["attach", "vn0", "{image}"], "Device or resource busy: something is attached there"),
    (["shadow", "vn0", "{shadow}.not"], "No such file or directory"),
    (["shadow", "vn0", "/dev/null"], "Invalid argument: /dev/null is no regular file"),
    (["shadow", "vn0", "{image}"], "its first bytes are not those of a shadow file of dmgfs, so it is left alone"),
    (["shadow", "/dev/rvn0", "{shadow}"], ""),
    (["shadow", "vn0", "{shadow}"], "Device or resource busy: it has the shadow {shadow}"),
    (["detach", "/dev/rvn0"], "No such device: detach the block device"),
    (["detach", "/dev/vn0"], ""),
    (["detach", "/dev/vn0"], "No such device or address: nothing is attached there"),
]


def test_vndevice_refuses_what_darwins_does(tmp_path, devices):
    image, shadow = tmp_path / "image.dmg", tmp_path / "shadow"
    shutil.copy(SAMPLE, image)
    shadow.touch()
    for words, wanted in ERRORS:
        said = here("vndevice", *(word.format(image=image, shadow=shadow) for word in words))
        assert (said.code == 0) == (not wanted), words
        assert said.err.rstrip("\n").endswith(wanted.format(shadow=shadow)), (words, said.err)
        assert said.out == ""
        if wanted.startswith("Device or resource busy: it has"):
            with (devices / "vn0").open("r+b") as disk:
                disk.write(b"changed")
                disk.flush()
                busy = here("vndevice", "detach", "vn0")
                assert (busy.code, "it is in use: " in busy.err) == (74, True)
    assert image.read_bytes() == SAMPLE.read_bytes()
    assert here("vndevice", "attach", "vn0", image).code == 0
    assert here("vndevice", "shadow", "vn0", shadow).code == 0
    assert (devices / "vn0").read_bytes()[:7] != b"changed"  # a vn's shadow begins empty
    assert here("vndevice", "detach", "vn0").code == 0


def test_the_pages_shadow_script_runs_as_it_is_printed(shims, tmp_path):
    """In a system of its own: a copy-on-write view of this one's root, because it writes to /."""
    (tmp_path / "script").write_text(SHADOW_FILES)
    (tmp_path / "script").chmod(0o755)
    inside = f"""
set -e
mkdir /live; cp {SAMPLE} /uncompressed.dmg
export PATH={shims}:$PATH BASH_ENV={shims}/darwin.bash DMGFS_RUNTIME=/devices
bash -e -x {tmp_path}/script   # Linux gives bash "-e -x" as one word
test -s /shadowfile
echo changed > /live/'Read Me.txt'; cat /live/'Read Me.txt'; ls /live
cmp {SAMPLE} /uncompressed.dmg
{DMGFS} unmount /live
{shims}/vndevice detach /dev/vn0
"""
    outside = f"""
set -e
mount -t tmpfs tmpfs {tmp_path}/memory
mkdir {tmp_path}/memory/upper {tmp_path}/memory/work {tmp_path}/memory/root
cd {tmp_path}/memory
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root || exit 77
for name in dev proc sys; do mount --rbind /$name root/$name; done
exec chroot root bash -c "$INSIDE"
"""
    (tmp_path / "memory").mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", outside],
        env={**os.environ, "INSIDE": inside},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this kernel makes no overlay of the root")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "changed"
    assert "Read Me.txt" in done.stdout
    assert "+ mount -t hfs /dev/vn0 /live/" in done.stderr


# -- nbdst ----------------------------------------------------------------------------------------------------------------


def nbdst(*words: str | Path) -> Said:
    return here("nbdst", *words)


def test_nbdst_makes_a_live_mount_writable_and_finds_it_again(place, tmp_path):
    shadow = tmp_path / "shadow"
    assert dmgfs("mount", SAMPLE, place).code == 0
    assert nbdst(place, shadow).code == 0
    (place / "new").write_text("kept\n")
    assert nbdst(place, shadow).code != 0  # has one
    assert here("unmount", place).code == 0
    assert dmgfs("mount", SAMPLE, place).code == 0
    assert nbdst(place, shadow).code == 0
    assert (place / "new").read_text() == "kept\n"
    assert here("unmount", place).code == 0
    assert dmgfs("mount", SAMPLE, place).code == 0
    assert nbdst("-recycle", place, shadow).code == 0
    assert not (place / "new").exists()
    assert here("unmount", place).code == 0


def test_nbdst_preallocates_now_and_knows_devices(tmp_path, devices):
    shadow = tmp_path / "shadow"
    word = here("hdik", SAMPLE).out.strip()
    assert nbdst("-preallocate", str(1 << 60), "/dev/disk1", tmp_path / "huge").code != 0
    assert nbdst("-preallocate", "3M", "/dev/disk1", shadow).code == 0
    assert shadow.stat().st_size >= 3 << 20
    with open(word, "r+b") as disk:
        disk.write(b"through the word")
    assert here("hdik", "-e", word).code == 0


def test_a_netboot_folder_is_mounted_writable_as_its_clients_would(place, tmp_path):
    folder = tmp_path / "x.nbi"
    (folder / "i386").mkdir(parents=True)
    (folder / "i386" / "booter").touch()
    shutil.copy(SAMPLE, folder / "NetBoot.dmg")
    known = {"Type": "NFS", "RootPath": "NetBoot.dmg", "Architectures": ["i386"], "SupportsDiskless": True}
    (folder / "NBImageInfo.plist").write_bytes(plistlib.dumps(known))
    assert dmgfs("nbi", "mount", folder, place).code == 0
    (place / "new").touch()
    assert here("unmount", place).code == 0


def test_shims_are_sound_scripts(shims):
    for name in ("stat", "chmod", "mount", "hdik"):
        subprocess.run(["sh", "-n", shims / name], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", *(shims / name for name in ("stat", "chmod", "mount", "hdik"))], check=True)
    assert sys.executable in (shims / "hdik").read_text()
