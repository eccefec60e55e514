"""dmgfs imageboot: from the kernel's command line to the arguments of mount. (Disks are found in tests/90_live.)"""

import json
from pathlib import Path

import pytest

from dmgfs.bootargs.cmdline import parse
from dmgfs.cli.imageboot import mount_words
from dmgfs.fuse.disks import await_path, device_path


def words(cmdline: str) -> list[str]:
    plan = parse(cmdline)
    assert plan is not None
    return mount_words(plan, "/root", "/run/dmgfs/image/a.dmg", "ram:1G")


def test_everything_becomes_an_option_of_mount():
    assert words("dmgfs.image=/a.dmg") == [
        *("/run/dmgfs/image/a.dmg", "/root", "--liveroot", "--shadow", "ram:1G", "--wait", "30")
    ]
    assert words(
        "dmgfs.image=/a.dmg dmgfs.toram dmgfs.verify=full dmgfs.playlist=auto dmgfs.partition=2 dmgfs.on-error=ram "
        "dmgfs.wait=5 dmgfs.options=noatime,acl"
    )[5:] == [
        *("--wait", "5", "--partition", "2", "--playlist", "auto", "--verify", "full", "--on-error", "ram"),
        *("--toram", "-o", "noatime,acl"),
    ]


def test_show_says_what_would_be_done(run):
    said = run("imageboot", "--show", "--cmdline", "root=LABEL=LIVE rp0=file:///o.dmg rp1=file:///i.dmg")
    plan = json.loads(said.out)
    assert plan["image"] == {"disk": "LABEL=LIVE", "path": "/o.dmg"}
    assert plan["inner"] == ["/i.dmg"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--cmdline", "quiet ro"], 64, "names no image"),
        (["--cmdline", "dmgfs.image=/a dmgfs.shadwo=ram"], 64, "dmgfs.shadow"),
        (["--cmdline", "dmgfs.image=/a"], 64, "MOUNTPOINT"),
        (["/", "--cmdline", "dmgfs.image=/no/such.dmg dmgfs.wait=0"], 66, "/no/such.dmg"),
        (["/", "--cmdline", "dmgfs.image=LABEL=NOSUCH:/a dmgfs.wait=0.2"], 66, "waited 0.2 s"),
    ],
)
def test_refused_in_one_line(run, arguments, code, word):
    said = run("imageboot", *arguments)
    assert said.code == code
    assert word in said.err
    assert said.err.count("\n") == 1


def test_names_of_disks():
    assert device_path("/dev/vda1") == "/dev/vda1"
    assert device_path("LABEL=LIVE") == "/dev/disk/by-label/LIVE"
    assert device_path("LABEL=My Disk/é") == "/dev/disk/by-label/My\\x20Disk\\x2fé"
    assert device_path("PARTUUID=0a-1") == "/dev/disk/by-partuuid/0a-1"


def test_waiting_for_a_path(tmp_path: Path):
    await_path(str(tmp_path), 0)
    with pytest.raises(FileNotFoundError, match=r"waited 0\.2 s"):
        await_path(str(tmp_path / "absent"), 0.2)
