"""create: a folder becomes an image, and comes out of it as it went in."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exercise.trees import differences

from dmgfs import open_image
from dmgfs.cli.create import FORMATS, LAYOUTS
from dmgfs.packing import FORMATS as WRITABLE
from dmgfs.packing.layout import LAYOUTS as MAPS
from dmgfs.volume import MOST_DEPTH

MTIME = 1_500_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Every kind of object, odd names, links, attributes, holes."""
    root = tmp_path / "Source é"
    deep = root / "folder" / "below: it" / "deeper"
    deep.mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").write_bytes(os.urandom(300_000))
    (deep / "text").write_bytes(b"text " * 50_000)
    (deep / ("long " * 50)).write_bytes(b"")
    (root / "naïve ␀ 中文 𝄞").write_bytes(b"name")
    os.link(root / "file", deep / "the file again")
    os.link(root / "file", root / "and again")
    (root / "link").symlink_to("folder/below: it")
    (root / "nowhere").symlink_to("x" * 900)
    os.mkfifo(root / "fifo", 0o640)
    with (root / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(2_000_000)
        file.write(b"not a hole")
    (root / "suid").write_bytes(b"#!")
    os.chmod(root / "suid", 0o6755)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFBLK | 0o660, os.makedev(8, 1))
        os.chown(root / "file", 1000, 4_000_000_000)
        os.chown(root / "link", 7, 8, follow_symlinks=False)
    os.setxattr(root / "file", "user.com.apple.FinderInfo", b"TEXTttxt" + bytes(8) + b"\0" * 16)
    os.setxattr(root / "file", "user.com.apple.quarantine", b"0083;")
    os.setxattr(deep / "text", "user.com.apple.ResourceFork", b"fork" * 500)
    os.setxattr(deep / "text", "user.comment", b"mine")
    os.setxattr(deep / "text", "user.user.odd", b"")
    os.setxattr(root / "folder", "user.of folder", b"\0\1")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(MTIME * 10**9,) * 2, follow_symlinks=False)
    os.utime(root, ns=(MTIME * 10**9,) * 2)
    return root


def test_the_options_are_what_can_be_written() -> None:
    assert set(FORMATS) == set(WRITABLE)
    assert LAYOUTS == MAPS


def extracted(run, image: Path, into: Path) -> Path:
    into.mkdir()
    said = run("extract", image, "-C", into)
    assert (said.code, said.err) == (0, "")
    return into


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_folder_comes_out_as_it_went_in(run, tree: Path, tmp_path: Path, format_name: str) -> None:
    image = tmp_path / "image"
    layout = LAYOUTS[FORMATS.index(format_name) % 3]
    said = run("create", tree, image, "--format", format_name, "--layout", layout, "--fs", "hfsx")
    assert (said.code, said.err) == (0, "")
    out = extracted(run, image, tmp_path / "out")
    os.utime(out, (MTIME, MTIME))  # extract leaves the folder alone that it is told to write into
    assert list(differences(os.fsencode(tree), os.fsencode(out), untouched_before=time.time())) == []
    said = run("verify", "--deep", image)
    assert said.code == 0, said.out
    with open_image(image) as opened:
        assert opened.map.scheme == {"gpt": "GPT", "apm": "APM", "none": "none"}[layout]
        volume = opened.volume()
        assert volume.info.name == "Source e\u0301"
        assert volume.info.case_sensitive
        file = volume.find(2, "file")
        assert file is not None
        assert file.finder_info[:8] == b"TEXTttxt"
        assert list(volume.attributes(file)) == ["com.apple.quarantine"]


def test_the_same_tree_gives_the_same_image(run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(MTIME - 5))
    images = []
    for number, jobs in enumerate(("1", "3")):
        image = tmp_path / f"{number}.dmg"
        assert run("create", tree, image, "--jobs", jobs, "--journal").code == 0
        images.append(image.read_bytes())
        os.utime(tree / "file", ns=(5 * 10**18 // 10**9 * 10**9, MTIME * 10**9))  # its date of access
        time.sleep(1.1)
    assert images[0] == images[1]
    with open_image(tmp_path / "0.dmg") as opened:
        info = opened.volume().info
        assert info.created == MTIME - 5
        assert info.journal == "clean"
        assert opened.volume().node(2).modified == MTIME - 5


def test_what_does_not_fit_is_told_before_anything_is_written(run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (b"README", b"Readme", b"not \xff utf-8", "é".encode() * 127, b"fine"):
        (tree / os.fsdecode(name)).write_bytes(b"")
    said = run("create", tree, tmp_path / "out")
    assert said.code == 65
    lines = said.err.splitlines()
    start = f"dmgfs: {tree}: "
    assert all(line.startswith(start) for line in lines)
    assert lines[0] == start + "/not \\xff utf-8: names that are not UTF-8"
    assert lines[1].startswith(start + "/ 'README' and 'Readme': names that differ only in case")
    assert lines[2].startswith(
        start + "nothing was written, because HFS+ cannot hold all of this: 1 names that are not"
    )
    assert len(lines) == 3
    assert os.listdir(tmp_path) == ["tree"]
    (tree / os.fsdecode(b"not \xff utf-8")).unlink()
    assert run("create", tree, tmp_path / "out", "--fs", "hfsx").code == 0


def test_owners_and_names(run, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    assert run("create", tree, image, "--owners", "12:34", "--volname", "A: b", "--size", "20M").code == 0
    with open_image(image) as opened:
        assert opened.disk.size == 20 << 20
        volume = opened.volume()
        assert volume.info.name == "A/ b"
        file = volume.find(2, "file")
        assert file is not None
        assert (file.uid, file.gid) == (12, 34)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--size", "1M"), 65, "a disk of 1048576 bytes is too small: at least"),
        (("--size", "10"), 65, "a disk of 10 bytes is too small: at least"),
        (("--size", "10", "--layout", "none"), 65, "a volume of 10 bytes is too small: at least"),
        (("--size", "much"), 64, "'much' is no size"),
        (("--owners", "me"), 64, "--owners me: write on"),
        (("--owners", "off"), 64, "--owners off: write on or UID:GID"),
        (("--volname", ""), 64, "--volname: a volume has a name of one character at least"),
        (("--volname", "a/b"), 64, "cannot be a volume's"),
        (("--format", "udro", "--level", "3"), 64, "no levels"),
        (("--chunk", "1"), 64, "a chunk has"),
    ],
)
def test_wrong_usage(run, tree: Path, tmp_path: Path, options: tuple[str, ...], code: int, text: str) -> None:
    said = run("create", tree, tmp_path / "out", *options)
    assert said.code == code, said.err
    assert text in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_odd_epoch(run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    said = run("create", tree, tmp_path / "out")
    assert (said.code, said.err) == (
        64,
        f"dmgfs: {tree}: SOURCE_DATE_EPOCH is 'yesterday', not a number of seconds\n",
    )


def test_sources_that_are_none(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert run("create", tmp_path / "file", tmp_path / "out").code == 66
    assert run("create", tmp_path / "missing", tmp_path / "out").code == 66
    (tmp_path / "folder").mkdir()
    said = run("create", tmp_path / "folder", tmp_path / "file")
    assert said.code == 73
    assert "--force replaces it" in said.err
    assert run("create", tmp_path / "folder", tmp_path / "file", "--force").code == 0


def test_what_was_left_out_is_told(run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "old").write_text("old")
    os.utime(tree / "old", (-3_000_000_000, -3_000_000_000))
    (tree / "decomposed e\u0301").write_text("spelt out")
    said = run("create", tree, tmp_path / "out", "--json")
    assert said.code == 0
    assert "names that are not composed; a mount shows them composed unless --names nfd: 1" in said.err
    assert "dates before 1904 or after February 2040" in said.err
    told = json.loads(said.out)
    assert (told["files"], told["folders"], told["format"]) == (2, 0, "udzo")


def test_a_tree_deeper_than_a_path_may_be_long(run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    folder = os.open(tree, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=folder)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    fd = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
    os.write(fd, b"far down")
    os.close(fd)
    os.close(folder)
    assert run("create", tree, tmp_path / "out").code == 0
    with open_image(tmp_path / "out") as opened:
        volume = opened.volume()
        number = 2
        for _ in range(40):
            node = volume.find(number, "d" * 200)
            assert node is not None
            number = node.cnid
        file = volume.find(number, "file")
        assert file is not None
        assert volume.data(file).read(0, 8) == b"far down"
    subprocess.run(["rm", "-rf", tree], check=True)


def test_folders_that_stand_too_deep(run, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    folder = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(MOST_DEPTH + 2):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    said = run("create", tmp_path / "tree", tmp_path / "out")
    assert said.code == 65
    assert said.err.count("\n") == 2
    assert f"1 folders that stand more than {MOST_DEPTH - 1} deep" in said.err
    assert not (tmp_path / "out").exists()
    subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)


def test_a_file_that_changes_meanwhile_is_an_error(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "log").write_text("a line\n")
    from dmgfs.gathering.folder import FolderOrigin

    gather = FolderOrigin.gather

    def and_then_write(self: FolderOrigin, name: bytes) -> None:
        gather(self, name)
        (tree / "log").write_text("a line\nand another\n")

    monkeypatch.setattr(FolderOrigin, "gather", and_then_write)
    said = run("create", tree, tmp_path / "out")
    assert said.code == 74
    assert said.err == (
        f"dmgfs: {tree}: {tree}/log: it changed while the image was made; take a tree that stands still\n"
    )
    assert os.listdir(tmp_path) == ["tree"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "noise").write_bytes(os.urandom(4 << 20) * 20)
    out = tmp_path / "out.dmg"
    command = [sys.executable, "-m", "dmgfs", "create", tree, out, "--format", "ulmo", "--progress", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while '"create"' not in process.stderr.readline():  # until it is under way
            assert process.poll() is None
        assert len(list(tmp_path.glob(".dmgfs-*"))) == 1
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert "Traceback" not in process.stderr.read()
    assert os.listdir(tmp_path) == ["tree"]
