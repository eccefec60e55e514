"""A layer of files with holes: small, and the same in the hands of GNU tar, bsdtar, Python and our own `create`."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller

from dmgfs import open_image
from dmgfs.layertar import write_layer
from dmgfs.tarformat import END, header, sparse_header
from dmgfs.volume import ROOT_FOLDER
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.vfs import Attr, run

MIB = 1 << 20
FILES: dict[bytes, tuple[int, dict[int, bytes]]] = {
    b"plain": (2 * MIB - 1, {MIB - 4096: b"in the middle"}),  # no hole is large enough
    b"empty": (0, {}),
    b"nothing": (5 * MIB, {}),
    b"tail": (7 * MIB, {7 * MIB - 3: b"end"}),
    b"odd": (9 * MIB + 3, {0: b"x" * 5000, 3 * MIB: b"mid" * 3000}),
    "é".encode() * 90: (2 * MIB + 4096, {0: b"long name"}),
    b"many": (600 * MIB, {number * 2 * MIB: b"%d" % number for number in range(300)}),
}


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    lower = LowerTree(True)
    overlay = Overlay(lower, RamStore(64 * MIB))
    folder = run(overlay.mkdir(lower.root, b"folder", 0o755, Caller())).ino
    for name, (size, parts) in FILES.items():
        ino = run(overlay.create(folder, name, 0o644, os.O_RDWR, Caller())).ino
        for offset, data in parts.items():
            run(overlay.write(ino, offset, data))
        run(overlay.setattr(ino, size=size))
        run(overlay.setxattr(ino, b"user.name", name))
    with (tmp_path / "layer.tar").open("wb") as out:
        assert write_layer(overlay, out.write) == 0
    return tmp_path / "layer.tar"


def check(file: Path, name: bytes) -> None:
    size, parts = FILES[name]
    assert file.stat().st_size == size
    content = bytearray(file.read_bytes())
    for offset, data in parts.items():
        assert content[offset : offset + len(data)] == data
        content[offset : offset + len(data)] = bytes(len(data))
    assert content.count(0) == size


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_unpacked(layer: Path, tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    assert layer.stat().st_size < 5 * MIB
    more = ("--xattrs", "--xattrs-include=*") if program == "tar" else ("--xattrs",)
    done = subprocess.run([program, "-C", tmp_path, *more, "-xpf", layer], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    for name in FILES:
        file = tmp_path / "folder" / os.fsdecode(name)
        check(file, name)
        assert os.getxattr(file, "user.name") == name
        assert file.stat().st_blocks * 512 <= 2 * MIB


def test_read_by_python(layer: Path) -> None:
    with tarfile.open(layer) as archive:
        for name, (size, parts) in FILES.items():
            member = archive.getmember(f"folder/{os.fsdecode(name)}")
            assert (member.size, member.sparse is None) == (size, name in (b"plain", b"empty"))
            content = archive.extractfile(member)
            assert content is not None
            for offset, data in parts.items():
                content.seek(offset)
                assert content.read(len(data)) == data


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_create_takes_it(layer: Path, tmp_path: Path, stream: bool) -> None:
    command = [sys.executable, "-m", "dmgfs", "create", "-" if stream else layer, tmp_path / "out.dmg"]
    done = subprocess.run(command, input=layer.read_bytes() if stream else b"", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with open_image(tmp_path / "out.dmg") as image:
        volume = image.volume()
        folder = volume.find(ROOT_FOLDER, "folder")
        assert folder is not None
        for name, (size, parts) in FILES.items():
            node = volume.find(folder.cnid, os.fsdecode(name))
            assert node is not None
            assert node.data_size == size
            for offset, data in parts.items():
                assert bytes(volume.data(node).read(offset, len(data))) == data


def test_a_file_larger_than_any_disk() -> None:
    lower = LowerTree(True)
    overlay = Overlay(lower, RamStore(MIB))
    ino = run(overlay.create(lower.root, b"file", 0o644, os.O_RDWR, Caller())).ino
    run(overlay.write(ino, 1 << 45, b"data"))
    stream = bytearray()
    write_layer(overlay, stream.extend)
    assert len(stream) <= 10240


def test_parts_of_more_than_eight_gibibytes(tmp_path: Path) -> None:
    """Too much for the digits of a header, also in an archive that goes on after it."""
    packed, size = 9 << 30, 10 << 30
    attr = Attr(5, 0o100644, 1, 0, 0, 0, size, 0, 0, 0, 0, 0)
    with (tmp_path / "it.tar").open("wb") as file:
        file.write(sparse_header(b"folder/large", attr, (0, 0), [(0, packed)], {}))
        file.seek(packed, os.SEEK_CUR)
        file.write(header(b"after", b"0", attr, (0, 0)) + bytes(END))
    with tarfile.open(tmp_path / "it.tar") as archive:
        assert [(member.name, member.size) for member in archive] == [("folder/large", size), ("after", 0)]
    listed = subprocess.run(["tar", "-tvf", tmp_path / "it.tar"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[2] for line in listed.splitlines()] == [str(size), "0"]
