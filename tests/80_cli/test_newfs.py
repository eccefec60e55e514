"""newfs: empty volumes of any size and shape; fsck.hfsplus finds no fault (where the fixtures are set up)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from dmgfs import open_image

REPOSITORY = Path(__file__).resolve().parents[2]
FSCK = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures")) / "hfsprogs/sbin/fsck.hfsplus"


@pytest.mark.parametrize(
    "options",
    [
        ("--size", "512K"),
        ("--size", "512K", "-s", "-b", "512"),
        ("--size", "1M", "-b", "1024", "-v", "Été", "-U", "7", "-G", "8", "-M", "700"),
        ("--size", "40M", "-J"),
        ("--size", "40M", "-J", "1M", "-s", "-n", "c=16384,e=1024,a=4096"),
        ("--size", "64M", "-c", "c=100,e=3,a=7,d=2,r=1", "-i", "5000"),
        ("--size", "3G", "-J", "-s"),
        ("--size", "700007"),
        ("--size", "200G", "-b", "8K"),
    ],
)
def test_empty_volumes(run, tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "file"
    said = run("newfs", file, *options, "--json")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    assert file.stat().st_blocks * 512 < 300 << 20
    with open_image(file) as image:
        volume = image.volume()
        info = volume.info
        assert info.warnings == ()
        assert (info.kind, info.case_sensitive) == (("HFSX", True) if "-s" in options else ("HFS+", False))
        assert (info.total_blocks, info.free_blocks, info.block_size) == (
            told["blocks"],
            told["free_blocks"],
            told["block_size"],
        )
        assert info.journal == ("clean" if "-J" in options else None)
        assert list(volume.children(2, None, 10).nodes) == []
        if "-U" in options:
            root = volume.node(2)
            assert (root.uid, root.gid, root.mode & 0o7777, info.name) == (7, 8, 0o700, "E\u0301te\u0301")
    if FSCK.exists() and file.stat().st_size < 4 << 30:
        verdict = subprocess.run([FSCK, "-fn", file], capture_output=True, text=True, check=False)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_a_file_that_is_there(run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as writing:
        writing.truncate(2 << 20)
    assert run("newfs", file).code == 0
    first = file.read_bytes()
    assert len(first) == 2 << 20
    said = run("newfs", file)
    assert said.code == 73
    assert said.err == f"dmgfs: {file}: the file holds something; --force overwrites it\n"
    noise = os.urandom(2 << 20)
    file.write_bytes(noise)
    assert run("newfs", file, "--force", "-s").code == 0
    with open_image(file) as image:
        info = image.volume().info
        assert info.kind == "HFSX"
        used = info.total_blocks - info.free_blocks - 1
    # What belongs to nobody was not written.
    assert file.read_bytes()[used * 4096 : -4096] == noise[used * 4096 : -4096]
    if FSCK.exists():
        assert subprocess.run([FSCK, "-fn", file], capture_output=True, check=False).returncode == 0
    assert run("newfs", file, "--size", "1M").code == 73
    assert run("newfs", tmp_path / "missing").code == 66


def test_a_tree_of_more_than_a_clump_can_be(run, tmp_path: Path) -> None:
    said = run("newfs", "-N", tmp_path / "file", "--size", "2T", "-c", "c=1100000")
    assert said.code == 0
    assert b"catalog tree    4505600000\n" in said.out


def test_only_saying(run, tmp_path: Path) -> None:
    said = run("newfs", "-N", tmp_path / "file", "--size", "10M", "-J")
    assert said.code == 0
    assert b"journal         524288\n" in said.out
    assert b"blocks          2560\n" in said.out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--size", "511K"), 65, "too small"),
        (("--size", "512K", "-J"), 65, "too small"),
        (("--size", "1M", "-b", "1000"), 64, "power of two"),
        (("--size", "1M", "-b", "256"), 64, "power of two"),
        (("--size", "1M", "-n", "c=1000"), 64, "powers of two"),
        (("--size", "1M", "-n", "c=512"), 64, "from 4096 on"),
        (("--size", "1M", "-n", "x=512"), 64, "write LETTER=NUMBER"),
        (("--size", "1M", "-c", "c=0"), 64, "write LETTER=NUMBER"),
        (("--size", "1M", "-i", "3"), 64, "numbers begin at 16"),
        (("--size", "1M", "-M", "rwx"), 64, "-M rwx: write permissions in octal"),
        (("--size", "1M", "-M", "999"), 64, "-M 999: write permissions in octal"),
        (("--size", "1M", "-M", "7777777"), 64, "-M 7777777: write permissions in octal, from 0 to 777"),
        (("--size", "1M", "-U", "-1"), 64, "-U -1: write a number from 0 to 4294967295"),
        (("--size", "1M", "-G", "-1"), 64, "-G -1: write a number"),
        (("--size", "1M", "-U", "99999999999"), 64, "-U 99999999999: write a number"),
        (("--size", "1M", "-U", "root"), 64, "-U root: write a number"),
        (("--size", "1M", "-c", "d=99999999999"), 64, "-c d=99999999999: d=99999999999 blocks are 4 GiB or more"),
        (("--size", "1M", "-c", "c=99999999999"), 65, "too small"),
        (("--size", "1M", "-c", "r=1048576"), 64, "4 GiB or more"),
        (("--size", "1M", "-i", "2147483648"), 64, "numbers begin at 16 and end at 2147483647"),
        (("--size", "1M", "-J", "600"), 64, "a journal has 512K"),
        (("--size", "1M", "-v", ""), 64, "cannot be the name"),
    ],
)
def test_what_makes_no_sense(run, tmp_path: Path, options: tuple[str, ...], code: int, text: str) -> None:
    said = run("newfs", tmp_path / "file", *options)
    assert said.code == code, said.err
    assert text in said.err
    assert said.err.count("\n") == 1
    assert os.listdir(tmp_path) == []
