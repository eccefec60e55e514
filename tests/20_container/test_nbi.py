"""NetBoot folders: the root image that NBImageInfo.plist names is opened, and nothing outside the folder ever is."""

import hashlib
import plistlib
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.sparse import write_bundle

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, nbi, open_container
from dmgfs.errors import CorruptImage, Unsupported

DISK = hashlib.shake_128(b"netboot").digest(8192)


def folder_at(path: Path, image: bytes | None = DISK, **info: object) -> Path:
    """A folder as System Image Utility makes it for Intel machines."""
    path.mkdir()
    known: dict[str, object] = {
        "Name": "Diagnostics",
        "Index": 4096,
        "IsInstall": False,
        "IsEnabled": True,
        "Type": "HTTP",
        "RootPath": "NetBoot.dmg",
        "BootFile": "booter",
        "Architectures": ["i386"],
        "osVersion": "10.13",
    }
    known.update(info)
    known = {key: value for key, value in known.items() if value is not None}
    (path / "NBImageInfo.plist").write_bytes(plistlib.dumps(known))
    (path / "i386" / "x86_64").mkdir(parents=True)
    (path / "i386" / "booter").write_bytes(b"EFI")
    (path / "i386" / "PlatformSupport.plist").write_bytes(b"list")
    (path / "i386" / "x86_64" / "kernelcache").write_bytes(b"kernel")
    if image is not None:
        (path / "NetBoot.dmg").write_bytes(image)
    return path


def opened(folder: Path) -> Container:
    return open_container(folder, passphrase=lambda: PASSPHRASE, cache=ChunkCache(1 << 20))


def test_root_image_and_report(tmp_path: Path) -> None:
    container = opened(folder_at(tmp_path / "a.nbi"))
    try:
        assert container.kind == "raw"
        assert container.disk.read(0, len(DISK)) == DISK
        netboot = container.details["netboot"]
        assert netboot["Name"] == "Diagnostics"
        assert netboot["Index"] == 4096
        assert netboot["IsEnabled"] is True
        assert netboot["Architectures"] == ["i386"]
        assert netboot["files"] == [
            {"role": "boot file", "path": "i386/booter", "size": 3},
            {"role": "kernel", "path": "i386/x86_64/kernelcache", "size": 6},
            {"role": "supported machines", "path": "i386/PlatformSupport.plist", "size": 4},
        ]
        assert container.details["warnings"] == []
    finally:
        container.close()


def test_root_image_in_a_folder_below_and_encrypted(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "a.nbi", None, RootPath="images/System.dmg")
    (folder / "images").mkdir()
    (folder / "images" / "System.dmg").write_bytes(encrypt_v2(DISK))
    container = opened(folder)
    try:
        assert container.details["encryption"]["cipher"] == "AES-128"
        assert container.disk.read(0, len(DISK)) == DISK
    finally:
        container.close()


def test_root_image_that_is_a_sparse_bundle(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "a.nbi", None, RootPath="System.sparsebundle")
    write_bundle(folder / "System.sparsebundle", DISK)
    container = opened(folder)
    try:
        assert container.kind == "sparse bundle"
        assert container.disk.read(0, len(DISK)) == DISK
    finally:
        container.close()


def test_classic_folder_takes_the_shared_image(tmp_path: Path) -> None:
    folder = folder_at(
        tmp_path / "a.nbi",
        Type="Classic",
        RootPath=None,
        SharedImage="NetBoot.dmg",
        PrivateImage="Application HD.img",
        BootFile="Mac OS ROM",
        Architectures=None,
    )
    container = opened(folder)
    try:
        assert container.disk.read(0, len(DISK)) == DISK
        assert container.details["warnings"] == [
            "NetBoot folder: the boot file 'Mac OS ROM' is missing",
            "NetBoot folder: the private image 'Application HD.img' is missing",
        ]
    finally:
        container.close()


def test_missing_boot_file_is_a_warning(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "a.nbi", Architectures=["ppc", "i386", "vax", 7])
    container = opened(folder)
    try:
        assert container.details["warnings"] == ["NetBoot folder: the boot file 'ppc/booter' is missing"]
        assert container.details["netboot"]["Architectures"] == ["ppc", "i386"]
    finally:
        container.close()


@pytest.mark.parametrize(
    "root",
    [
        "../outside.dmg",
        "/etc/passwd",
        "link.dmg",
        "linked/outside.dmg",
        ".",
        "",
        "..",
        "missing.dmg",
        "a\0b",
        "i386",
        "loop",
    ],
)
def test_nothing_outside_the_folder_is_opened(tmp_path: Path, root: str) -> None:
    (tmp_path / "outside.dmg").write_bytes(DISK)
    folder = folder_at(tmp_path / "a.nbi", RootPath="PLACEHOLDER")
    (folder / "link.dmg").symlink_to(tmp_path / "outside.dmg")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    info = plistlib.loads((folder / "NBImageInfo.plist").read_bytes())
    if "\0" in root:  # not possible in XML, so asked for directly
        assert nbi._inside(folder, root) is None
        return
    info["RootPath"] = root
    (folder / "NBImageInfo.plist").write_bytes(plistlib.dumps(info))
    with pytest.raises(CorruptImage, match="RootPath"):
        opened(folder)


def test_folder_that_names_itself_or_another_netboot_folder(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "a.nbi", RootPath="inner.nbi")
    folder_at(folder / "inner.nbi", RootPath="..")
    with pytest.raises(CorruptImage, match="RootPath"):
        opened(folder)


@pytest.mark.parametrize("root", ["nfs:10.0.0.1:/Library/NetBoot:NetBoot.dmg", "http://10.0.0.1/NetBoot.dmg"])
def test_image_on_a_server_is_named(tmp_path: Path, root: str) -> None:
    with pytest.raises(Unsupported, match="on a server"):
        opened(folder_at(tmp_path / "a.nbi", RootPath=root))


def test_folder_without_an_image(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="BootFileOnly"):
        opened(folder_at(tmp_path / "a.nbi", Type="BootFileOnly"))
    with pytest.raises(CorruptImage, match="RootPath is missing"):
        opened(folder_at(tmp_path / "b.nbi", RootPath=None))
    with pytest.raises(CorruptImage, match="RootPath is missing"):
        opened(folder_at(tmp_path / "c.nbi", RootPath=7))


@pytest.mark.parametrize(
    "content", [b"", b"noise", b"<plist><array/></plist>", b"<plist><dict/></plist>" + b" " * (1 << 20)]
)
def test_damaged_lists(tmp_path: Path, content: bytes) -> None:
    folder = folder_at(tmp_path / "a.nbi")
    (folder / "NBImageInfo.plist").write_bytes(content)
    with pytest.raises(CorruptImage, match=r"NBImageInfo\.plist"):
        opened(folder)


def test_values_of_odd_types_are_left_out(tmp_path: Path) -> None:
    container = opened(
        folder_at(tmp_path / "a.nbi", Name=[1], Index=1 << 60, Kind=True, IsInstall="yes", Architectures="i386")
    )
    try:
        netboot = container.details["netboot"]
        assert not {"Name", "Index", "Kind", "IsInstall", "Architectures"} & set(netboot)
    finally:
        container.close()
