"""create --compress: files become smaller and say the same, to us and to readers that we did not write."""

import io
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from builders.decmpfs import pack
from exercise.trees import differences

from dmgfs import open_image
from dmgfs.gathering import compressing
from dmgfs.hfsplus.attributes import DECMPFS
from dmgfs.hfsplus.decmpfs import header
from dmgfs.hfsplus.structs import UF_COMPRESSED
from dmgfs.hfsplus.volume import HfsPlusVolume

MTIME = 1_500_000_000
CHANCE = random.Random(5)
CONTENTS = {
    "empty": b"",
    "tiny noise": CHANCE.randbytes(10),
    "small noise": CHANCE.randbytes(3780),
    "text": b"some text, again and again " * 1000,
    "two blocks": CHANCE.randbytes(9000) + bytes(70_000),
    "noise": CHANCE.randbytes(200_000),
    "half and half": b"".join(CHANCE.randbytes(40_000) + b"a" * 40_000 for _ in range(40)),
    "just a block": b"0123456789abcdef" * 4096,
    "zeros": bytes(3_500_000),
    "with a fork": b"x" * 50_000,
    "compressed before": b"y" * 50_000,
}
BEFORE = pack(3, CONTENTS["compressed before"]).attribute
TYPES = {
    "decmpfs": {"inline": 3, "fork": 4},
    "decmpfs-lzfse": {"inline": 11, "fork": 12},
}
COMPRESSED = {
    "tiny noise": "inline",
    "text": "inline",
    "two blocks": "fork",
    "half and half": "fork",
    "just a block": "inline",
    "zeros": "fork",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "Tree"
    (root / "folder").mkdir(parents=True)
    for number, (name, data) in enumerate(CONTENTS.items()):
        (root / ("folder" if number % 2 else ".") / name).write_bytes(data)
    for number in range(300):
        (root / "folder" / f"{number}").write_bytes(b"%d " % number * (number * 7))
    os.link(next(root.rglob("text")), root / "the text again")
    (root / "link").symlink_to("folder/text")
    os.setxattr(next(root.rglob("with a fork")), "user.com.apple.ResourceFork", b"fork" * 10)
    os.setxattr(next(root.rglob("compressed before")), "user.com.apple.decmpfs", BEFORE)
    os.setxattr(next(root.rglob("half and half")), "user.mine", b"mine")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)
    return root


def kinds(volume: HfsPlusVolume, path: Path) -> tuple[int, bool] | None:
    """(compression type, whether there is a resource fork) of a file of the volume, None if it is not compressed."""
    number = 2
    for part in path.parts:
        node = volume.find(number, part)
        assert node is not None
        number = node.cnid
    if not node.flags & UF_COMPRESSED:
        return None
    assert volume.named is not None
    value = volume.named.get(node.cnid, DECMPFS)
    assert value is not None
    return header(value.read(0, value.size)).type, header(value.read(0, value.size)).type in (4, 12)


@pytest.mark.parametrize("scheme", TYPES)
def test_files_come_out_as_they_went_in(run, tree: Path, tmp_path: Path, scheme: str) -> None:
    image, plain = tmp_path / "image.img", tmp_path / "plain.img"
    options = ("--format", "raw", "--layout", "none", "--fs", "hfsx")
    said = run("create", tree, image, *options, "--compress", scheme)
    assert (said.code, said.err) == (0, "")
    assert b"compressed, " in said.out
    assert run("create", tree, plain, *options).code == 0
    assert image.stat().st_size < plain.stat().st_size / 2
    (tmp_path / "out").mkdir()
    assert run("extract", image, "-C", tmp_path / "out").code == 0
    os.utime(tmp_path / "out", (MTIME, MTIME))
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"), untouched_before=MTIME * 2)) == []
    assert run("verify", "--deep", image).code == 0
    with open_image(image) as opened:
        volume = opened.volume()
        assert isinstance(volume, HfsPlusVolume)
        for name in CONTENTS:
            found = kinds(volume, next(tree.rglob(name)).relative_to(tree))
            wanted = COMPRESSED.get(name)
            assert found == (wanted and (TYPES[scheme][wanted], wanted == "fork")), name
    wanted_contents = {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if stat.S_ISREG(path.lstat().st_mode) and path.stat().st_nlink == 1 and path.name != "compressed before"
    }
    others = theirs(image)
    assert others.keys() == wanted_contents.keys()
    different = {path: data for path, data in others.items() if data != wanted_contents[path]}
    if scheme == "decmpfs":
        assert different == {}
    else:
        assert set(different.values()) == {b"LZFSE"}
        assert "half and half" not in map(os.path.basename, different)


def theirs(image: Path) -> dict[str, bytes]:
    """As libfshfs reads the files. It lists hard links as empty files, and fails where an attribute says that a file is
    compressed and its flag does not, so those are left out. "LZFSE" for what it cannot decode: blocks that repeat a lot."""
    pyfshfs = pytest.importorskip("pyfshfs")
    volume = pyfshfs.volume()
    volume.open_file_object(io.BytesIO(image.read_bytes()))
    found: dict[str, bytes] = {}

    def visit(folder, above: str) -> None:
        for index in range(folder.number_of_sub_file_entries):
            entry = folder.get_sub_file_entry(index)
            if stat.S_ISDIR(entry.file_mode):
                if "HFS+ Private" not in entry.name:
                    visit(entry, above + entry.name + "/")
            elif stat.S_ISREG(entry.file_mode) and entry.name not in ("text", "the text again", "compressed before"):
                try:
                    found[above + entry.name] = entry.read_buffer(entry.size) if entry.size else b""
                except OSError as error:
                    if "libfmos_lzfse_read_block_v2_header" not in str(error):
                        raise
                    found[above + entry.name] = b"LZFSE"

    visit(volume.get_root_directory(), "")
    volume.close()
    return found


def test_other_readers_of_zlib(run, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.img"
    next(tree.rglob("compressed before")).unlink()
    assert run("create", tree, image, "--format", "raw", "--layout", "none", "--compress", "decmpfs").code == 0
    out = tmp_path / "out"
    subprocess.run(["7z", "x", "-y", f"-o{out}", image], capture_output=True, check=True)
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            assert (out / "Tree" / path.relative_to(tree)).read_bytes() == path.read_bytes(), path


def test_the_same_whatever_the_number_of_threads(
    run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(MTIME))
    made = []
    for jobs in ("1", "3"):
        image = tmp_path / f"{jobs}.dmg"
        assert run("create", tree, image, "--jobs", jobs, "--format", "ulfo", "--compress", "decmpfs").code == 0
        made.append(image.read_bytes())
    assert made[0] == made[1]


def test_larger_files_than_apple_compresses_stay_as_they_are(
    run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressing, "LARGEST_FILE", 3_400_000)
    image = tmp_path / "image"
    assert run("create", tree, image, "--compress", "decmpfs").code == 0
    with open_image(image) as opened:
        volume = opened.volume()
        assert isinstance(volume, HfsPlusVolume)
        assert kinds(volume, next(tree.rglob("zeros")).relative_to(tree)) is None
        assert kinds(volume, next(tree.rglob("half and half")).relative_to(tree)) == (4, True)


def test_a_tar_stream_is_compressed_as_well(run, tree: Path, tmp_path: Path) -> None:
    archive, image = tmp_path / "tree.tar.gz", tmp_path / "image"
    subprocess.run(["tar", "-C", tree, "-czf", archive, "."], check=True)
    assert run("create", archive, image, "--compress", "decmpfs").code == 0
    said = run("cat", image, next(tree.rglob("half and half")).relative_to(tree))
    assert said.out == CONTENTS["half and half"]
