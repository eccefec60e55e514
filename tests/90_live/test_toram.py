"""--toram: the image's own disk can be taken out while the mount goes on."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build
from exercise.daemon import becomes, process_of
from exercise.mounted import dmgfs, is_mounted

pytestmark = pytest.mark.kernel

FILES = {f"file {number}": os.urandom(50_000) + bytes(50_000) for number in range(60)}


def write_image(folder: Path, segments: int) -> Path:
    builder = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096)
    for name, data in FILES.items():
        builder.file(ROOT, name, data)
    disk = bytes(builder.build(spare_blocks=64).data)
    chunks = [disk[at : at + (256 << 10)] for at in range(0, len(disk), 256 << 10)]
    for name, data in build(
        [Table("t", [Piece("zlib", chunk) for chunk in chunks])], segments=segments
    ).files.items():
        (folder / name).write_bytes(data)
    return folder / "image.dmg"


def sums(place: Path) -> dict[str, str]:
    return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in sorted(os.listdir(place))}


EXPECTED = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(FILES.items())}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk to take it out again")
@pytest.mark.parametrize("segments", [1, 3])
def test_the_disk_of_the_image_can_be_unmounted(tmp_path, place, segments):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
    try:
        image = write_image(disk, segments)
        log = tmp_path / "log"
        ended = dmgfs("mount", image, place, "--toram", "--cache", "1M", "--log", log)
        assert (ended.code, ended.err) == (0, "")
        assert becomes(lambda: "its file system may be unmounted" in log.read_text())
        subprocess.run(["umount", disk], check=True)
        assert os.listdir(disk) == []
        assert sums(place) == EXPECTED
        assert sums(place) == EXPECTED
        links = {
            os.readlink(f"/proc/{process_of(place)}/fd/{fd}") for fd in os.listdir(f"/proc/{process_of(place)}/fd")
        }
        assert not any(str(disk) in link for link in links)
    finally:
        while is_mounted(disk):
            subprocess.run(["umount", "-l", disk], check=True)
    assert dmgfs("unmount", place).code == 0


def test_it_serves_from_the_first_moment(tmp_path, place):
    image = write_image(tmp_path, 1)
    log = tmp_path / "log"
    assert dmgfs("mount", image, place, "--toram", "--shadow", "ram", "--log", log).code == 0
    assert sums(place) == EXPECTED
    (place / "file 1").write_bytes(b"changed")
    assert becomes(lambda: "its file is closed" in log.read_text())
    os.kill(process_of(place), 10)
    assert becomes(lambda: "the file is closed; " in log.read_text() or "the file is closed\n" in log.read_text())
    size = image.stat().st_size
    assert f"in memory {size} of {size} bytes of the image" in log.read_text()
    image.unlink()
    assert sums(place) == {**EXPECTED, "file 1": hashlib.sha256(b"changed").hexdigest()}


def test_an_image_that_does_not_fit_is_refused(tmp_path, place):
    image = write_image(tmp_path, 1)
    ended = dmgfs("mount", image, place, "--toram", "--cache", "900T")
    assert ended.code == 71
    assert "--toram needs" in ended.err
    assert "without --toram" in ended.err
    assert not is_mounted(place)


def test_a_bundle_is_refused_by_its_name(tmp_path, place):
    bundle = tmp_path / "image.sparsebundle"
    disk = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096).build(spare_blocks=64).data
    (bundle / "bands").mkdir(parents=True)
    (bundle / "bands/0").write_bytes(disk)
    (bundle / "token").write_bytes(b"")
    (bundle / "Info.plist").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict>'
        "<key>diskimage-bundle-type</key><string>com.apple.diskimage.sparsebundle</string>"
        "<key>bundle-backingstore-version</key><integer>1</integer>"
        f"<key>band-size</key><integer>8388608</integer><key>size</key><integer>{len(disk)}</integer></dict></plist>"
    )
    assert dmgfs("mount", bundle, place).code == 0
    assert dmgfs("unmount", place).code == 0
    ended = dmgfs("mount", bundle, place, "--toram")
    assert ended.code == 69
    assert "--toram for a sparse bundle" in ended.err
    assert not is_mounted(place)
