"""--engine overlayfs: the kernel's overlay over dmgfs is one mount, can be lived in, and goes away as one."""

import errno
import os
import signal
import subprocess
import time
import unicodedata
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.daemon import becomes, has_ended
from exercise.mounted import DMGFS, Ended, dmgfs, is_mounted

from dmgfs.fuse import mountpoint

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount an overlay"),
]

OVERLAY = ("--engine", "overlayfs", "--shadow", "ram:4M")
NOBODY = 65534


def remains() -> set[str]:
    """Scaffolds of any daemon, in sight or not."""
    folders = {name for name in os.listdir("/run") if name.startswith("dmgfs-overlay")}
    return folders | {mount.path for mount in mountpoint.mounts() if "dmgfs-overlay" in mount.path}


@pytest.fixture(autouse=True)
def _nothing_remains() -> object:
    before = remains()
    yield
    assert remains() <= before


def start(image: Path, place: Path, *options: str | Path) -> int:
    """Mounts; the daemon's process number."""
    ended = dmgfs("mount", image, place, *OVERLAY, *options)
    assert (ended.code, ended.out) == (0, ""), ended.err
    return process_below(place)


def process_below(place: Path) -> int:
    there = mountpoint.mounted_at(str(place))
    assert there is not None
    assert mountpoint.is_over_ours(there)
    descriptor = mountpoint.daemon_below(there)
    assert descriptor is not None
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    os.close(descriptor)
    return int(next(line.split()[1] for line in about.splitlines() if line.startswith("Pid:")))


# -- living in it -------------------------------------------------------------------------------------------------------


def test_it_reads_as_the_image_and_takes_changes(sensitive_image, place):
    start(sensitive_image, place)
    assert (place / "ReadMe").read_bytes() == b"read me\n"
    assert (place / "Folder/inner/deep").read_bytes() == b"deep\n"
    assert os.readlink(place / "link") == "ReadMe"
    assert subprocess.check_output([place / "program"]) == b"ran\n"
    (place / "ReadMe").write_bytes(b"changed\n")
    (place / "new").mkdir()
    (place / "new/file").write_bytes(b"x" * 100_000)
    os.rename(place / "Folder", place / "new/Folder")
    (place / "other").unlink()
    os.chmod(place / "program", 0o700)
    assert (place / "ReadMe").read_bytes() == b"changed\n"
    assert (place / "new/Folder/inner/deep").read_bytes() == b"deep\n"
    assert "other" not in os.listdir(place)
    assert not (place / "Folder").exists()
    assert os.stat(place / "program").st_mode & 0o777 == 0o700


def test_the_root_folder_looks_like_the_images(sensitive_image, place):
    assert dmgfs("mount", sensitive_image, place).code == 0
    plain = os.stat(place)
    assert dmgfs("unmount", place).code == 0
    start(sensitive_image, place)
    over = os.stat(place)
    assert (over.st_mode, over.st_uid, over.st_gid) == (plain.st_mode, plain.st_uid, plain.st_gid)
    assert over.st_mtime_ns == plain.st_mtime_ns


def test_files_behind_hard_links_stay_one(sensitive_image, place):
    start(sensitive_image, place)
    with open(place / "first name", "ab") as file:
        file.write(b"more\n")
    assert (place / "Folder/second name").read_bytes() == b"shared\nmore\n"


def test_others_than_root_may_look(sensitive_image, place):
    start(sensitive_image, place)
    read = subprocess.run(
        ["cat", "ReadMe", "other"], cwd=place, user=NOBODY, group=NOBODY, capture_output=True, check=True
    )
    assert read.stdout.startswith(b"read me\nother\n")
    denied = subprocess.run(["touch", "mine"], cwd=place, user=NOBODY, capture_output=True, check=False)
    assert denied.returncode != 0


def test_the_size_of_the_shadow_is_the_limit(sensitive_image, place):
    start(sensitive_image, place)
    with pytest.raises(OSError, match="No space left") as caught:
        (place / "large").write_bytes(bytes(5 << 20))
    assert caught.value.errno == errno.ENOSPC
    os.unlink(place / "large")
    (place / "fits").write_bytes(bytes(3 << 20))


def test_set_user_id_and_devices_count_only_where_asked_for(sensitive_image, place):
    start(sensitive_image, place)
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - overlay " in line and str(sensitive_image) in line
    ]
    assert "nosuid,nodev" in line
    assert dmgfs("unmount", place).code == 0
    start(sensitive_image, place, "-o", "suid,dev,noatime")
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - overlay " in line and str(sensitive_image) in line
    ]
    assert "nosuid" not in line
    assert "nodev" not in line
    assert "noatime" in line


# -- what the image could do to the overlay -----------------------------------------------------------------------------


def test_a_name_is_one_object_whatever_its_spelling(sensitive_image, place):
    start(sensitive_image, place)
    (name,) = [
        name for name in os.listdir(place / "Folder") if name.endswith("e") and len(name) > 8 and "name" not in name
    ]
    other = unicodedata.normalize("NFD", name)
    assert other != name
    assert not (place / "Folder" / other).exists()
    assert (place / "Folder" / name).read_bytes() == b"umlauts\n"
    (place / "Folder" / other).write_bytes(b"another")
    assert (place / "Folder" / name).read_bytes() == b"umlauts\n"


def test_the_image_gives_the_overlay_no_orders(tmp_path, place):
    builder = HfsPlusBuilder(hfsx=True, binary=True)
    orders = {
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/elsewhere",
        "trusted.overlay.whiteout": b"y",
        "trusted.overlay.metacopy": b"",
        "trusted.mine": b"kept",
    }
    folder = builder.folder(ROOT, "folder")
    elsewhere = builder.folder(ROOT, "elsewhere")
    file = builder.file(folder, "file", b"here")
    builder.file(elsewhere, "file", b"there")
    for cnid in (folder, file):
        for name, value in orders.items():
            builder.attribute(cnid, name, value)
    image = tmp_path / "orders.img"
    image.write_bytes(builder.build(spare_blocks=16).data)
    start(image, place)
    assert sorted(os.listdir(place)) == ["elsewhere", "folder"]
    assert (place / "folder/file").read_bytes() == b"here"
    assert os.getxattr(place / "folder", "trusted.mine") == b"kept"
    os.rename(place / "folder", place / "renamed")
    with open(place / "renamed/file", "ab") as out:
        out.write(b" too")
    assert (place / "renamed/file").read_bytes() == b"here too"


# -- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[DMGFS, "unmount"], ["umount"], ["umount", "-l"]])
def test_one_unmount_takes_everything_away(sensitive_image, place, command):
    process = start(sensitive_image, place)
    (place / "ReadMe").write_bytes(b"changed")
    subprocess.run([*command, place], check=True)
    assert not is_mounted(place)
    assert has_ended(process)
    assert os.listdir(place) == []


def test_dmgfs_unmount_waits_for_the_daemon(sensitive_image, place):
    process = start(sensitive_image, place)
    assert dmgfs("unmount", place).code == 0
    assert has_ended(process, 0)


def test_a_daemon_that_died_leaves_a_mount_that_can_be_taken_away(sensitive_image, place):
    process = start(sensitive_image, place)
    (place / "kept").write_bytes(b"in memory")
    os.kill(process, signal.SIGKILL)
    assert has_ended(process)
    assert (place / "kept").read_bytes() == b"in memory"
    ended = dmgfs("unmount", place)
    assert ended.code == 0, ended.err
    assert not is_mounted(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_unmount(sensitive_image, place, number):
    process = start(sensitive_image, place)
    os.kill(process, number)
    assert has_ended(process)
    assert not is_mounted(place)


def test_a_busy_mount_names_its_users_and_goes_with_the_last(sensitive_image, place):
    process = start(sensitive_image, place)
    with open(place / "other", "rb") as file:
        ended = dmgfs("unmount", place)
        assert ended.code == 75
        assert str(os.getpid()) in ended.err
        assert dmgfs("unmount", "--lazy", place).code == 0
        assert not is_mounted(place)
        assert file.read() == b"other\n" * 1000
        assert not has_ended(process, 0.2)
    assert has_ended(process)


def test_it_can_be_mounted_again_and_begins_anew(sensitive_image, place):
    for _ in range(3):
        start(sensitive_image, place)
        assert "new" not in os.listdir(place)
        (place / "new").touch()
        assert dmgfs("unmount", place).code == 0


def test_a_place_is_not_taken_twice(sensitive_image, place):
    start(sensitive_image, place)
    for options in (OVERLAY, ()):
        ended = dmgfs("mount", sensitive_image, place, *options)
        assert ended.code == 74
        assert "mounted there already" in ended.err
    assert dmgfs("unmount", place).code == 0
    assert not is_mounted(place)


def test_a_later_process_of_the_same_number_is_not_waited_for():
    name = mountpoint.scaffold_name(os.getpid())
    there = mountpoint.Mount("0:1", "/m", "overlay", "i.dmg", f"rw,lowerdir=/run/{name}x/lower,upperdir=/u")
    descriptor = mountpoint.daemon_below(there)
    assert descriptor is not None
    os.close(descriptor)
    before = name.rsplit(".", 2)[0] + ".12."
    assert mountpoint.daemon_below(there._replace(options=f"lowerdir=/run/{before}x/lower")) is None
    assert not mountpoint.is_ours(there._replace(options="lowerdir=/a:/b,upperdir=/u"))


def test_a_scaffold_is_never_in_sight(sensitive_image, place):
    start(sensitive_image, place)
    assert not any("dmgfs-overlay" in mount.path for mount in mountpoint.mounts())
    assert not any(
        mount.fstype == mountpoint.FSTYPE and str(sensitive_image) in mount.source for mount in mountpoint.mounts()
    )


# -- refused ------------------------------------------------------------------------------------------------------------


def refused(place: Path, ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.err
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err
    assert not is_mounted(place)


def test_what_is_lost_is_said(sensitive_image, place):
    ended = dmgfs("mount", sensitive_image, place, *OVERLAY)
    assert ended.code == 0
    for word in ("copies all of it", "shadow verbs", "hard links"):
        assert word in ended.err
    assert ended.err.count("\n") == 1


def test_the_verbs_for_changes_say_why_they_cannot(sensitive_image, place):
    start(sensitive_image, place)
    ended = dmgfs("status", place)
    assert ended.code == 66
    assert "--engine overlayfs" in ended.err


def test_case_insensitive_volumes_are_refused_by_name(image, place):
    ended = dmgfs("mount", image, place, *OVERLAY)
    refused(place, ended, 69, "case-insensitive volume", "leave --engine out")


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--engine", "fast"), 64, "--engine fast"),
        (("--engine", "overlayfs", "--shadow", "none"), 64, "--shadow ram"),
        (("--engine", "overlayfs", "--shadow", "/tmp/file"), 64, "--shadow ram"),
        ((*OVERLAY, "--late-shadow"), 64, "--late-shadow"),
        ((*OVERLAY, "-o", "auto_unmount"), 69, "auto_unmount"),
    ],
)
def test_what_does_not_go_together_is_refused(sensitive_image, place, options, code, word):
    refused(place, dmgfs("mount", sensitive_image, place, *options), code, word)


def test_a_damaged_image_leaves_nothing(tmp_path, place):
    (tmp_path / "bad.dmg").write_bytes(os.urandom(100_000))
    refused(place, dmgfs("mount", tmp_path / "bad.dmg", place, *OVERLAY), 66)


def test_the_daemon_does_not_wait_for_its_own_mount(sensitive_image, place):
    """Everything at once, from the first moment."""
    start(sensitive_image, place)
    readers = [
        subprocess.Popen(["find", place, "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.PIPE)
        for _ in range(8)
    ]
    begin = time.monotonic()
    outputs = {reader.communicate(timeout=30)[0] for reader in readers}
    assert len(outputs) == 1
    assert time.monotonic() - begin < 30
    assert becomes(lambda: all(reader.returncode == 0 for reader in readers))
