"""create from tar archives that are damaged, cut, or hold what no volume can: one line and no image, as GNU tar would
complain."""

import bz2
import gzip
import lzma
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.tars import made, member

from dmgfs import open_image
from dmgfs.volume import MOST_DEPTH

BLOCK = 512
COUNT = 30
NFC, NFD = "\u00e9", "e\u0301"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    noise = random.Random(1)
    members = [(member(f"f{number}"), noise.randbytes(3000)) for number in range(COUNT)]
    return made(tmp_path_factory.mktemp("tar") / "it.tar", *members).read_bytes()


def header_of(archive: bytes, name: str) -> int:
    return archive.index(name.encode() + b"\0" * 10)


def refused(run, tar: Path, *texts: str, code: int = 65) -> None:
    out = tar.parent / "out"
    said = run("create", tar, out)
    assert said.code == code, said.err
    assert said.err.count("\n") == 1
    for text in texts:
        assert text in said.err
    assert not out.exists()


def count(image: Path) -> int:
    with open_image(image) as opened:
        return opened.volume().info.files


def flipped(archive: bytes) -> bytes:
    at = header_of(archive, "f15") + 105
    return archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :]


def lone_zeros(archive: bytes) -> bytes:
    at = header_of(archive, "f15")
    return archive[:at] + bytes(BLOCK) + archive[at:]


def junk(archive: bytes) -> bytes:
    at = header_of(archive, "f15")
    return archive[:at] + b"junk" * 75 + archive[at:]


def half_a_header(archive: bytes) -> bytes:
    return archive[: header_of(archive, "f15") + 300]


@pytest.mark.parametrize("damage", [flipped, lone_zeros, junk, half_a_header])
def test_a_header_that_is_none(run, tmp_path: Path, plain: bytes, damage: Callable[[bytes], bytes]) -> None:
    tar = tmp_path / "it.tar"
    tar.write_bytes(damage(plain))
    place = f"tar archive: what follows 'f14' at offset {header_of(plain, 'f15'):#x}: no header stands there"
    refused(run, tar, place)
    with tar.open("rb") as stream, subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE) as pipe:
        create = [sys.executable, "-m", "dmgfs", "create", "-", tmp_path / "out"]
        done = subprocess.run(create, stdin=pipe.stdout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (65, 1)
    assert place in done.stderr
    assert not (tmp_path / "out").exists()


def test_ends_that_are_odd(run, tmp_path: Path, plain: bytes) -> None:
    bare = plain[: header_of(plain, f"f{COUNT - 1}") + BLOCK + -(-3000 // BLOCK) * BLOCK]
    for end, note in (
        (b"", "note: the archive has no end mark"),
        (bytes(BLOCK), "note: the archive ends with one block of zeros"),
        (bytes(BLOCK * 2), ""),
        (bytes(BLOCK * 50), ""),
        (bytes(BLOCK * 2) + b"anything" * 1000, ""),
    ):
        (tmp_path / "it.tar").write_bytes(bare + end)
        said = run("create", tmp_path / "it.tar", tmp_path / "out", "--force")
        assert said.code == 0
        assert (note in said.err) if note else said.err == ""
        assert count(tmp_path / "out") == COUNT


@pytest.mark.parametrize(("layer", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_archives(run, tmp_path: Path, plain: bytes, layer: str, pack: Callable[[bytes], bytes]) -> None:
    tar = tmp_path / "it.tar.it"
    packed = pack(plain)
    for whole in (packed, pack(plain[:20_000]) + pack(plain[20_000:])):
        tar.write_bytes(whole)
        assert run("create", tar, tmp_path / "whole", "--force").code == 0
        assert count(tmp_path / "whole") == COUNT
    for end in (20, len(packed) // 2, len(packed) - 20, len(packed) - 1):
        tar.write_bytes(packed[:end])
        refused(run, tar, f"{layer}: compressed archive: it is cut")
    for at in (len(packed) // 2, len(packed) - 6):
        tar.write_bytes(packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :])
        refused(run, tar, f"{layer}: compressed archive: ")


def test_headers_that_make_no_sense(run, tmp_path: Path) -> None:
    sparse = bytearray(member("sparse", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    sparse[482] = 1  # more of the map follows
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    first = member("first").tobuf()
    extended = member("file", pax_headers={"comment": "text", "path": "p" * 200}).tobuf(tarfile.PAX_FORMAT)
    at = extended.index(b" path=")
    for broken in (
        bytes(sparse),
        extended[: at - 3] + b"999" + extended[at:],
        extended[: at - 3] + b"20" + extended[at - 1 :],
        extended[: at - 3] + b"x11" + extended[at:],
        extended.replace(b" path=", b" path:"),
        extended[: BLOCK * 2] * 1100 + extended[BLOCK * 2 :],
        member("file", size=-1024).tobuf(tarfile.GNU_FORMAT) + bytes(BLOCK * 2),
        member("long", tarfile.GNUTYPE_LONGNAME, size=1 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(BLOCK * 2),
        member("link", tarfile.LNKTYPE, pax_headers={"size": "-5000"}).tobuf(tarfile.PAX_FORMAT) + bytes(BLOCK * 2),
        member("file", pax_headers={"GNU.sparse.map": "1,x"}).tobuf(tarfile.PAX_FORMAT) + bytes(BLOCK * 2),
    ):
        for archive in (first + broken, gzip.compress(first + broken)):
            (tmp_path / "it.tar").write_bytes(archive)
            refused(run, tmp_path / "it.tar", "tar archive: ")


@pytest.mark.parametrize("kind", ["hfs+", "hfsx"])
def test_spellings_of_one_name(run, tmp_path: Path, kind: str) -> None:
    for names in ((NFC, NFD), (f"{NFC}/a", f"{NFD}/b"), (f"{NFD}/a", f"{NFC}")):
        tar = made(tmp_path / "it.tar", *((member(name), name.encode()) for name in names))
        said = run("create", tar, tmp_path / "out", "--fs", kind)
        assert said.code == 65
        assert "spellings of one name (they differ in composition only)" in said.err
        assert not (tmp_path / "out").exists()
    tar = made(tmp_path / "it.tar", *((member(f"{NFC}/{NFD}"), text) for text in (b"first", b"second")))
    assert run("create", tar, tmp_path / "out", "--fs", kind).code == 0
    assert run("cat", tmp_path / "out", f"{NFC}/{NFC}").out == b"second"


@pytest.mark.parametrize(
    "info",
    [
        member("file", mode=0o4755, pax_headers={"uid": "4294967296"}),
        member("file", pax_headers={"gid": "18446744073709551616"}),
        member("file", pax_headers={"uid": "-1"}),
        member("file", pax_headers={"uid": "root"}),
        member("folder/file", gid=-1),
        member("folder", tarfile.DIRTYPE, uid=1 << 32),
        member(".", tarfile.DIRTYPE, uid=1 << 40),
    ],
)
def test_owners_that_are_none(run, tmp_path: Path, info: tarfile.TarInfo) -> None:
    kind = tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT
    tar = made(tmp_path / "it.tar", (member("first"), b""), (info, b""), kind=kind)
    said = run("create", tar, tmp_path / "out")
    assert said.code == 65
    assert f"{info.name}: owners or groups that are no number of 32 bits" in said.err
    assert not (tmp_path / "out").exists()
    assert run("create", tar, tmp_path / "out", "--owners", "0:0").code == 0


def test_numbers_out_of_all_bounds(run, tmp_path: Path) -> None:
    tar = made(tmp_path / "it.tar", (member("null", tarfile.CHRTYPE, devmajor=-1), b""), kind=tarfile.GNU_FORMAT)
    said = run("create", tar, tmp_path / "out")
    assert said.code == 65
    assert "device numbers beyond" in said.err
    info = member("file", pax_headers={"LIBARCHIVE.xattr.user.x": "A"})
    refused(run, made(tmp_path / "it.tar", (info, b""), kind=tarfile.PAX_FORMAT), "tar archive: 'file'", "base64")
    for date in ("inf", "nan", "-1e300"):
        tar = made(tmp_path / "it.tar", (member("file", pax_headers={"mtime": date}), b""), kind=tarfile.PAX_FORMAT)
        said = run("create", tar, tmp_path / "out", "--force")
        assert said.code == 0
        assert "dates before 1904" in said.err


def test_depths(run, tmp_path: Path) -> None:
    deepest = "/".join("d" * (MOST_DEPTH - 1))
    tar = made(tmp_path / "it.tar", (member(f"{deepest}/file"), b"far down"))
    assert run("create", tar, tmp_path / "out").code == 0
    listed = run("ls", "-R", tmp_path / "out")
    assert (listed.code, listed.err) == (0, "")
    assert run("cat", tmp_path / "out", f"{deepest}/file").out == b"far down"
    (tmp_path / "out").unlink()
    for info in (member(f"{deepest}/d", tarfile.DIRTYPE), member(f"{deepest}/d/file"), member("d/" * 3000 + "d")):
        said = run("create", made(tmp_path / "it.tar", (info, b"")), tmp_path / "out")
        assert said.code == 65
        assert said.err.count("\n") == 2
        assert f"1 folders that stand more than {MOST_DEPTH - 1} deep" in said.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", ".", "/", "./."])
def test_a_member_without_a_name(run, tmp_path: Path, name: str) -> None:
    tar = made(tmp_path / "it.tar", (member("file"), b""), (member(name), b"contents"))
    said = run("create", tar, tmp_path / "out")
    assert said.code == 65
    assert f"member {name!r}: members that are no folder and have no name" in said.err
    assert not (tmp_path / "out").exists()
