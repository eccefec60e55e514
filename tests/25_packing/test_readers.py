"""Readers that we did not write get the same disk out of what we write, as far as they know the format."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.partitions import HFS_GUID, Part, apm_disk, gpt_disk

from dmgfs.packing import FORMATS

SECTOR = 512
UDIF = [name for name in FORMATS if name.startswith("u")]

QEMU = ("udro", "udzo")  # its bzip2 and LZFSE are extra packages, the rest it does not know
DMG2IMG = ("udro", "udzo", "udbz", "udco")
LIBMODI = ("udro", "udzo", "ulfo", "udco", "sparseimage")  # its bzip2 fails on Apple's images too; it has no xz


def content() -> bytes:
    """Text, zeros and noise: enough for several chunks of a megabyte."""
    noise = random.Random(1)
    text = b" ".join(noise.choices([b"band", b"fork", b"extent", b"catalog", b"\0\1\2"], k=300_000))
    return text + bytes(3 << 20) + noise.randbytes(1 << 20) + text[:5000] + bytes(100_000)


def disk_of(scheme: str) -> bytes:
    data = content()
    data += bytes(-len(data) % SECTOR)
    if scheme == "none":
        return data
    count = len(data) // SECTOR
    if scheme == "GPT":
        disk = gpt_disk([Part(HFS_GUID, 40, count, "disk image")], (40 + count + 40) * SECTOR)
        start = 40
    else:
        parts = [Part("Apple_partition_map", 1, 63, "Apple"), Part("Apple_HFS", 64, count, "disk image")]
        disk = apm_disk([*parts, Part("Apple_Free", 64 + count, 10)], (64 + count + 10) * SECTOR)
        start = 64
    disk[start * SECTOR : start * SECTOR + len(data)] = data
    return bytes(disk)


@pytest.fixture(params=["GPT", "APM", "none"])
def disk(request: pytest.FixtureRequest) -> bytes:
    return disk_of(request.param)


@pytest.fixture
def tool(tmp_path: Path) -> Callable[..., str]:
    """Runs an installed program, skips where it is not; returns what it printed. Its failure is the test's."""

    def run(name: str, *arguments: str | Path) -> str:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [name, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("format_name", UDIF)
def test_7zip_tests_and_extracts_it(tmp_path: Path, packed, tool, disk: bytes, format_name: str) -> None:
    out = tmp_path / "out.dmg"
    packed(out, disk, format_name)
    assert "Everything is Ok" in tool("7z", "t", "-tdmg", out)
    tool("7z", "x", "-tdmg", f"-o{tmp_path / 'x'}", out)
    parts = sorted((tmp_path / "x").iterdir(), key=lambda path: int("0" + path.name.split(".")[0].strip("out")))
    assert b"".join(part.read_bytes() for part in parts) == disk


@pytest.mark.parametrize("format_name", QEMU)
def test_qemu_reads_the_disk(tmp_path: Path, packed, tool, disk: bytes, format_name: str) -> None:
    packed(tmp_path / "out.dmg", disk, format_name)
    tool("qemu-img", "convert", "-f", "dmg", "-O", "raw", tmp_path / "out.dmg", tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == disk


@pytest.mark.parametrize("format_name", DMG2IMG)
def test_dmg2img_reads_the_disk(tmp_path: Path, packed, tool, disk: bytes, format_name: str) -> None:
    packed(tmp_path / "out.dmg", disk, format_name)
    tool("dmg2img", "-i", tmp_path / "out.dmg", "-o", tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == disk


@pytest.mark.parametrize("format_name", LIBMODI)
def test_libmodi_reads_the_disk(tmp_path: Path, packed, disk: bytes, format_name: str) -> None:
    pymodi = pytest.importorskip("pymodi", reason="libmodi-python is not installed")
    packed(tmp_path / "out.dmg", disk, format_name)
    image = pymodi.handle()
    image.open(str(tmp_path / "out.dmg"))
    parts, left = [], image.get_media_size()
    while left:
        parts.append(image.read_buffer(min(left, 1 << 20)))
        left -= len(parts[-1])
    image.close()
    assert b"".join(parts) == disk
