"""Disks of images as files, on real mounts: loop devices and file systems in them, shadows that stay, late shadows. (The
same random writes are given to them and to others in test_serve_random.)"""

import errno
import os
import random
import subprocess
from pathlib import Path

import pytest
from builders.partitions import Part, apm_disk
from builders.processes import errno_of
from exercise.daemon import becomes
from exercise.here import here
from exercise.mounted import dmgfs, is_mounted

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two partitions of random bytes behind an Apple map, 1 MiB, compressed; and the bytes beside it."""
    folder = tmp_path_factory.mktemp("made")
    source = random.Random(7)
    raw = apm_disk(
        [Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 800), Part("Apple_HFS", 864, 1000)], 1 << 20
    )
    raw[64 * 512 : 1864 * 512] = source.randbytes(900 * 512) + bytes(900 * 512)
    (folder / "raw").write_bytes(raw)
    assert here("convert", folder / "raw", folder / "disk.dmg", "--to", "udzo").code == 0
    return folder


def attach(image: str | Path, place: Path, *options: str | Path) -> None:
    ended = dmgfs("attach", image, place, *options)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def detach(place: Path) -> None:
    ended = here("detach", place)
    assert (ended.code, ended.err) == (0, "")
    assert not is_mounted(place)


def test_the_disk_and_its_partitions_read_only(disk, raw, place):
    attach(disk, place)
    assert (place / "disk").read_bytes() == raw
    assert sorted(os.listdir(place)) == ["disk", "disk0s1", "disk0s2", "disk0s3"]
    assert (place / "disk0s2").read_bytes() == raw[64 * 512 : 864 * 512]
    assert errno_of(lambda: (place / "disk").open("r+b")) == errno.EROFS
    detach(place)


def test_what_is_written_to_a_partition_is_on_the_disk(disk, raw, place):
    attach(disk, place, "--shadow", "ram")
    with (place / "disk").open("r+b", buffering=0) as whole, (place / "disk0s3").open("r+b", buffering=0) as part:
        assert whole.read(len(raw)) == raw
        part.seek(100)
        part.write(b"through the partition")
        whole.seek(864 * 512 + 100)
        assert whole.read(21) == b"through the partition"
        whole.seek(864 * 512 + 108)
        whole.write(b"THE DISK")
        part.seek(100)
        assert part.read(21) == b"through THE DISKition"
        part.seek(-3, os.SEEK_END)
        assert part.write(b"four") == 3
        assert errno_of(lambda: part.write(b"x")) == errno.ENOSPC
    with (place / "disk").open("wb"):
        pass  # O_TRUNC on a device
    assert (place / "disk").stat().st_size == len(raw)
    assert errno_of(lambda: (place / "new").touch()) == errno.EPERM
    detach(place)


def test_a_shadow_file_stays_and_belongs_to_its_disk(disk, raw, place, tmp_path):
    shadow = tmp_path / "shadow"
    attach(disk, place, "--shadow", shadow)
    assert shadow.stat().st_mode & 0o777 == 0o600
    with (place / "disk0s2").open("r+b") as part:
        part.seek(700)
        part.write(b"kept")
    detach(place)
    attach(disk, place, "--shadow", shadow)
    raw[64 * 512 + 700 : 64 * 512 + 704] = b"kept"
    assert (place / "disk").read_bytes() == raw
    assert here("convert", disk, tmp_path / "busy", "--shadow", shadow).code == 75
    detach(place)
    assert here("convert", disk, tmp_path / "new.dmg", "--to", "ulfo", "--shadow", shadow).code == 0
    assert here("convert", tmp_path / "new.dmg", tmp_path / "new").code == 0
    assert (tmp_path / "new").read_bytes() == raw
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    ended = dmgfs("attach", other, place, "--shadow", shadow)
    assert ended.code == 78
    assert "another image" in ended.err
    ended = dmgfs("mount", Path(__file__).parent.parent / "data" / "sample.dmg", place, "--shadow", shadow)
    assert ended.code == 78
    assert "of another kind" in ended.err  # files are no blocks
    attach(disk, place, "--shadow", shadow, "--recycle")
    ended = dmgfs("commit", place, tmp_path / "committed")
    assert (ended.code, len(ended.err.splitlines())) == (64, 1)
    assert "has blocks and no files to commit" in ended.err
    assert (place / "disk").read_bytes() != raw
    detach(place)


def test_a_shadow_that_comes_later(disk, place, tmp_path):
    attach(disk, place, "--late-shadow")
    assert errno_of(lambda: (place / "disk").open("r+b")) == errno.EROFS
    assert here("shadow", "attach", place, tmp_path / "late").code == 0
    with (place / "disk").open("r+b") as whole:
        whole.write(b"late")
    assert (place / "disk").read_bytes()[:4] == b"late"
    assert here("shadow", "attach", place, tmp_path / "later").code == 74
    detach(place)


def test_a_file_system_in_a_loop_device(place, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    attach("ram://32768", place)
    assert (place / "disk").stat().st_size == 32768 * 512
    subprocess.run(["mkfs.ext4", "-q", place / "disk"], check=True)
    loop = subprocess.run(
        ["losetup", "-f", "--show", place / "disk"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        subprocess.run(["mount", loop, inner], check=True)
        (inner / "file").write_bytes(random.Random(3).randbytes(3_000_000))
        subprocess.run(["umount", inner], check=True)
        subprocess.run(["mount", loop, inner], check=True)
        assert (inner / "file").read_bytes() == random.Random(3).randbytes(3_000_000)
        subprocess.run(["umount", inner], check=True)
        ended = here("detach", place)
        assert ended.code == 75
        assert loop in ended.err
    finally:
        subprocess.run(["umount", "-q", inner], check=False)
        subprocess.run(["losetup", "-d", loop], check=True)
    assert becomes(lambda: not Path(f"/sys/block/{Path(loop).name}/loop").exists())
    subprocess.run(["fsck.ext4", "-fn", place / "disk"], check=True, capture_output=True)
    detach(place)


@pytest.mark.parametrize("wrong", ["ram://", "ram://1M", "ram://0"])
def test_wrong_sizes_are_refused(wrong, place):
    assert here("attach", wrong, place).code == 64


def test_damage_in_a_shadow_is_eio_of_what_is_read_there_and_a_line(disk, raw, place, tmp_path):
    shadow, log = tmp_path / "shadow", tmp_path / "log"
    written = random.Random(3).randbytes(64 << 10)
    attach(disk, place, "--shadow", shadow)
    with (place / "disk").open("r+b") as file:
        file.write(written)
    detach(place)
    at = shadow.read_bytes().index(written[8 * 4096 : 9 * 4096])
    with shadow.open("r+b") as file:
        file.seek(at)
        file.write(bytes(4096))
    ended = here("convert", disk, tmp_path / "out", "--shadow", shadow)
    assert (ended.code, ended.err.count("\n")) == (74, 1)
    assert f"{shadow}: the page at {at:#x} does not match its checksum" in ended.err
    assert not (tmp_path / "out").exists()
    attach(disk, place, "--shadow", shadow, "--log", log)
    file = os.open(place / "disk", os.O_RDONLY)
    try:
        assert errno_of(os.pread, file, 4096, 8 * 4096) == errno.EIO
        assert os.pread(file, 4096, 0) == written[:4096]
        assert os.pread(file, 4096, 9 * 4096) == written[9 * 4096 : 10 * 4096]
    finally:
        os.close(file)
    detach(place)
    assert f"the page at {at:#x} does not match its checksum" in log.read_text()
