"""convert: the disk in another format, all or nothing."""

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.partitions import HFS_GUID, Part, gpt_disk
from builders.udif import Piece, Table, build

from dmgfs import open_image
from dmgfs.cli.convert import CHUNK_SECTORS, FORMATS
from dmgfs.packing import CHUNK
from dmgfs.packing import FORMATS as WRITABLE


def image_of(path: Path, disk: bytes, packed: bytes | None = None) -> Path:
    path.write_bytes(build([Table("whole disk", [Piece("zlib", disk, packed=packed), Piece("zero", 4096)])]).bytes)
    return path


def test_the_disk_is_written_with_holes(run, tmp_path: Path) -> None:
    disk = os.urandom(100 * 512)
    out = tmp_path / "out"
    assert run("convert", image_of(tmp_path / "image", disk), out).code == 0
    assert out.read_bytes() == disk + bytes(4096 * 512)
    assert out.stat().st_blocks * 512 < 200_000
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_one_partition(run, tmp_path: Path) -> None:
    disk = gpt_disk([Part(HFS_GUID, 64, 10, "one")], 1 << 17)
    disk[64 * 512 : 74 * 512] = b"x" * 5120
    assert run("convert", image_of(tmp_path / "image", bytes(disk)), tmp_path / "out", "--partition", "one").code == 0
    assert (tmp_path / "out").read_bytes() == b"x" * 5120


def test_what_is_there_stays(run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    said = run("convert", image_of(tmp_path / "image", bytes(512)), tmp_path / "out")
    assert said.code == 73
    assert said.err == f"dmgfs: {tmp_path / 'out'}: File exists; --force replaces it\n"
    assert (tmp_path / "out").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["image", "out"]


def test_damage_leaves_nothing_behind(run, tmp_path: Path) -> None:
    image = image_of(tmp_path / "image", os.urandom(1 << 20), b"nonsense")
    for format_name in FORMATS:
        said = run("convert", image, tmp_path / "out", "--to", format_name)
        assert said.code == 65
        [line] = said.err.splitlines()
        assert line.startswith(f"dmgfs: {image}: UDIF: block table 0 ('whole disk'): run 0 at offset 0x0: zlib")
        assert os.listdir(tmp_path) == ["image"]


def disk_of(size: int) -> bytes:
    disk = gpt_disk([Part(HFS_GUID, 64, size // 512 - 200, "one")], size)
    noise = random.Random(1).randbytes(5000)
    disk[64 * 512 : size // 2] = (noise * (size // 5000))[: size // 2 - 64 * 512]
    return bytes(disk)


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format(run, tmp_path: Path, format_name: str) -> None:
    disk = disk_of(1 << 20)
    image = image_of(tmp_path / "image", disk)
    said = run("convert", image, tmp_path / "out", "--to", format_name, "--json", "--chunk", "256")
    told = json.loads(said.out)
    assert (said.code, told["format"], told["disk_size"]) == (0, format_name, len(disk) + 4096 * 512)
    assert told["size"] == (tmp_path / "out").stat().st_size
    with open_image(tmp_path / "out") as out:
        assert bytes(out.disk.read(0, out.disk.size)) == disk + bytes(4096 * 512)
        assert out.scheme == "GPT"
    assert run("verify", tmp_path / "out").code == 0


def test_the_command_line_knows_what_can_be_written() -> None:
    assert tuple(WRITABLE) == FORMATS
    assert CHUNK_SECTORS * 512 == CHUNK


def test_one_partition_is_an_image_of_one_table(run, tmp_path: Path) -> None:
    image = image_of(tmp_path / "image", disk_of(1 << 20))
    assert run("convert", image, tmp_path / "out", "--partition", "one", "--to", "udzo").code == 0
    facts = json.loads(run("info", "--json", tmp_path / "out").out)
    assert facts["container"]["variant"] == "partition"
    assert [table["name"] for table in facts["container"]["tables"]] == ["whole disk (unknown partition : 0)"]


def test_encrypted_and_nested_images_are_read(run, tmp_path: Path) -> None:
    disk = disk_of(1 << 20)
    image = tmp_path / "image"
    image.write_bytes(encrypt_v2(image_of(tmp_path / "plain", disk).read_bytes()))
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    said = run("convert", image, tmp_path / "out", "--to", "ulfo", "--passphrase-file", tmp_path / "passphrase")
    assert said.code == 0
    outer = HfsPlusBuilder()
    outer.file(ROOT, "inner.dmg", (tmp_path / "out").read_bytes())
    volume = bytes(outer.build().data)
    (tmp_path / "outer").write_bytes(volume + bytes(-len(volume) % 512))
    assert run("convert", f"{tmp_path / 'outer'}//inner.dmg", tmp_path / "raw").code == 0
    assert (tmp_path / "raw").read_bytes() == disk + bytes(4096 * 512)


def test_force_replaces(run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert run("convert", image_of(tmp_path / "image", b"x" * 512), tmp_path / "out", "--force").code == 0
    assert (tmp_path / "out").read_bytes()[:512] == b"x" * 512


def test_the_image_itself_is_never_replaced(run, tmp_path: Path) -> None:
    image = image_of(tmp_path / "image", b"x" * 512)
    before = image.read_bytes()
    os.link(image, tmp_path / "other name")
    for name in ("image", "other name"):
        said = run("convert", image, tmp_path / name, "--force", "--to", "udzo")
        assert (said.code, said.err) == (
            73,
            f"dmgfs: {tmp_path / name}: it is an input, or lies in one ({image}); name another file\n",
        )
    assert image.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["image", "other name"]


def test_nothing_is_written_into_a_bundle(run, tmp_path: Path) -> None:
    bundle = tmp_path / "x.sparsebundle"
    (bundle / "bands").mkdir(parents=True)
    (bundle / "Info.plist").write_text(
        '<plist version="1.0"><dict><key>band-size</key><integer>8388608</integer><key>size</key><integer>1048576'
        "</integer><key>diskimage-bundle-type</key><string>com.apple.diskimage.sparsebundle</string>"
        "<key>bundle-backingstore-version</key><integer>1</integer></dict></plist>"
    )
    said = run("convert", bundle, bundle / "bands" / "0", "--force")
    assert said.code == 73
    assert os.listdir(bundle / "bands") == []
    assert run("convert", bundle, tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "udzo", "--level", "13"), "levels 1 to 12"),
        (("--to", "ulfo", "--level", "1"), "no levels"),
        (("--level", "1"), "not compressed"),
        (("--to", "udzo", "--chunk", "1"), "8 to 32768 sectors"),
    ],
)
def test_wrong_options_are_usage(run, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    said = run("convert", image_of(tmp_path / "image", b"x" * 512), tmp_path / "out", *options)
    assert said.code == 64
    assert words in said.err
    assert os.listdir(tmp_path) == ["image"]


def test_progress_counts_to_the_end(run, tmp_path: Path) -> None:
    image = image_of(tmp_path / "image", disk_of(1 << 20))
    said = run("convert", image, tmp_path / "out", "--to", "udzo", "--progress", "json")
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert {line["phase"] for line in lines} == {"convert"}
    assert (lines[-1]["done"], lines[-1]["total"]) == (3 << 20, 3 << 20)


def process(image: Path, out: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """The verb in a process of its own. limit: bytes that a file may have."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "dmgfs", "convert", str(image), str(out), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=prepare)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    image = tmp_path / "image"
    image.write_bytes(random.Random(1).randbytes(64 << 20))
    with process(image, tmp_path / "out", "--to", "ulmo", "--progress", "json") as running:
        assert running.stderr is not None
        running.stderr.readline()  # it is under way
        assert len(os.listdir(tmp_path)) == 2
        running.send_signal(number)
        begun = time.monotonic()
        assert running.wait(timeout=30) == 128 + number
        assert time.monotonic() - begun < 20
        assert "Traceback" not in running.stderr.read()
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_where_no_more_can_be_written_it_says_so(tmp_path: Path, format_name: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(random.Random(1).randbytes(3 << 20))
    with process(image, tmp_path / "out", "--to", format_name, limit=1 << 20) as running:
        _, said = running.communicate(timeout=60)
    assert running.returncode == 74
    assert said == f"dmgfs: {tmp_path / 'out'}: File too large\n"
    assert os.listdir(tmp_path) == ["image"]
