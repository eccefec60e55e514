"""NetBoot folders: what is said of them, and what is missing in them."""

import os
import plistlib
import shutil
from pathlib import Path

import pytest

from dmgfs.cli import nbi
from dmgfs.cli.nbi import _as_the_folder_says
from dmgfs.container.nbi import read_folder


@pytest.fixture
def folder(tmp_path: Path, rich: Path) -> Path:
    """As System Image Utility makes it for Intel machines."""
    path = tmp_path / "Tiger.nbi"
    (path / "i386" / "x86_64").mkdir(parents=True)
    for name in ("i386/booter", "i386/PlatformSupport.plist", "i386/x86_64/kernelcache"):
        (path / name).write_bytes(b"x")
    shutil.copy(rich, path / "NetBoot.dmg")
    write(path)
    return path


def write(path: Path, **info: object) -> None:
    known = {
        "Name": "Tiger", "Type": "NFS", "RootPath": "NetBoot.dmg", "BootFile": "booter", "Architectures": ["i386"],
        "IsEnabled": True, "SupportsDiskless": True,
    }  # fmt: skip
    (path / "NBImageInfo.plist").write_bytes(plistlib.dumps(known | info))


def test_a_sound_folder(run, folder):
    said = run("nbi", "verify", folder)
    assert (said.code, said.err) == (0, "")
    lines = said.out.decode().splitlines()
    assert lines[:3] == [
        "ok  boot file i386/booter",
        "ok  kernel i386/x86_64/kernelcache",
        "ok  supported machines i386/PlatformSupport.plist",
    ]
    assert lines[-1] == "nothing is wrong"
    said = run("nbi", "info", folder)
    assert said.code == 0
    assert b"Name Tiger" in said.out


def test_a_boot_file_that_is_missing_is_a_fault(run, folder):
    (folder / "i386/booter").unlink()
    said = run("nbi", "verify", folder)
    assert said.code == 65
    assert b"BAD boot file i386/booter: it is missing" in said.out


def test_an_image_that_is_damaged_is_a_fault(run, folder):
    data = bytearray((folder / "NetBoot.dmg").read_bytes())
    data[100] ^= 1
    (folder / "NetBoot.dmg").write_bytes(data)
    assert run("nbi", "verify", folder).code == 65


def test_a_root_path_that_leads_nowhere_or_out(run, folder, tmp_path):
    write(folder, RootPath="missing.dmg")
    assert run("nbi", "verify", folder).code == 65
    (tmp_path / "secret.dmg").write_bytes(b"x")
    os.symlink(tmp_path / "secret.dmg", folder / "link.dmg")
    write(folder, RootPath="link.dmg")
    assert run("nbi", "verify", folder).code == 65
    os.rename(folder / "NetBoot.dmg", folder / "other.dmg")
    os.unlink(folder / "link.dmg")
    os.symlink("other.dmg", folder / "link.dmg")
    assert run("nbi", "verify", folder).code == 0


def test_a_folder_that_is_none(run, tmp_path):
    said = run("nbi", "verify", tmp_path)
    assert said.code == 66
    assert "NBImageInfo.plist" in said.err


@pytest.mark.parametrize(
    ("info", "words", "shadow"),
    [
        ({}, [], "ram"),
        ({}, ["--shadow", "file"], "file"),
        ({}, ["--late-shadow"], None),
        ({"SupportsDiskless": False}, [], None),
        ({"IsEnabled": False}, [], "ram"),
    ],
)
def test_the_shadow_is_what_the_folder_says(folder, capsys, info, words, shadow):
    import argparse

    write(folder, **info)
    parser = argparse.ArgumentParser()
    nbi.configure(parser)
    args = _as_the_folder_says(parser.parse_args(["mount", str(folder), "/mnt", *words]), read_folder(folder))
    assert args.shadow == shadow
    assert ("not enabled" in capsys.readouterr().err) == ("IsEnabled" in info)
