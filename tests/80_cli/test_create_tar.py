"""create from tar archives: what GNU tar and Python's tarfile write becomes the same volume as the folder itself."""

import base64
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from builders.tars import made, member
from exercise.trees import differences

from dmgfs import open_image
from dmgfs.tarformat import END, sparse_header
from overlay.vfs import Attr

MTIME = 1_500_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    deep = root / "folder" / ("long " * 30) / "é: 中"
    deep.mkdir(parents=True)
    for number in range(30):
        (deep / f"{number}").write_bytes(os.urandom(number * 700))
    (deep / ("name " * 40)).write_bytes(b"long name")
    os.link(deep / "3", root / "hard link")
    os.link(deep / "3", root / "and another")
    (root / "link").symlink_to("t" * 300)
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        file.truncate(3_000_000)
        file.seek(1_500_000)
        file.write(b"data")
    os.setxattr(root / "sparse", "user.com.apple.FinderInfo", b"TEXTttxt" + bytes(24))
    os.setxattr(deep / "7", "user.binary", bytes(range(256)))
    os.setxattr(root / "folder", "user.folder's", b"x")
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        os.chown(deep / "5", 1234, 3_000_000)
    os.chmod(deep / "8", 0o4711)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)
    os.utime(root, (MTIME, MTIME))
    return root


def extracted(run, image: Path, into: Path) -> Path:
    into.mkdir()
    assert run("extract", image, "-C", into).code == 0
    os.utime(into, (MTIME, MTIME))
    return into


def archive(tree: Path, out: Path, *options: str) -> Path:
    subprocess.run(["tar", "-C", tree, "--xattrs", *options, "-cf", out, "."], check=True)
    return out


@pytest.mark.parametrize(
    "options", [("--format=posix",), ("--format=posix", "--sparse"), ("--format=posix", "-z"), ("--format=gnu", "-S")]
)
def test_what_tar_packs_comes_out(run, tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    without = [] if "--format=posix" in options else ["user.binary", "user.folder's", "user.com.apple.FinderInfo"]
    if without:
        tar = tmp_path / "it.tar"
        subprocess.run(["tar", "-C", tree, *options, "-cf", tar, "."], check=True)
    else:
        tar = archive(tree, tmp_path / "it.tar", *options)
    said = run("create", tar, tmp_path / "out.dmg", "--fs", "hfsx")
    assert (said.code, said.err) == (0, "")
    out = extracted(run, tmp_path / "out.dmg", tmp_path / "out")
    found = differences(os.fsencode(tree), os.fsencode(out), untouched_before=MTIME + 9, without=without)
    assert list(found) == []
    assert run("verify", "--deep", tmp_path / "out.dmg").code == 0


def test_a_stream_and_a_file_give_the_same_image(tree: Path, tmp_path: Path) -> None:
    tar = archive(tree, tmp_path / "it.tar", "--format=posix")
    images = []
    for number, source in enumerate((str(tar), "-")):
        image = tmp_path / f"{number}.dmg"
        command = [sys.executable, "-m", "dmgfs", "create", source, image, "--volname", "It"]
        with tar.open("rb") as stream:
            done = subprocess.run(
                command, stdin=stream if source == "-" else subprocess.DEVNULL, env={"SOURCE_DATE_EPOCH": f"{MTIME}"}
            )
        assert done.returncode == 0
        images.append(image.read_bytes())
    with subprocess.Popen(["cat", tar], stdout=subprocess.PIPE) as pipe:
        image = tmp_path / "piped.dmg"
        command = [sys.executable, "-m", "dmgfs", "create", "-", image, "--volname", "It"]
        done = subprocess.run(command, stdin=pipe.stdout, env={"SOURCE_DATE_EPOCH": f"{MTIME}"})
        assert done.returncode == 0
    images.append(image.read_bytes())
    assert images[0] == images[1] == images[2]


def test_a_later_member_replaces_an_earlier_one(run, tmp_path: Path) -> None:
    tar = made(
        tmp_path / "it.tar",
        (member("a/b/file"), b"old"),
        (member("other"), b"stays"),
        (member("./a/b/file", mode=0o600), b"new contents"),
        (member("a", tarfile.DIRTYPE, mode=0o711, uid=7), b""),
        (member("./", tarfile.DIRTYPE, mode=0o700, uid=9), b""),
    )
    assert run("create", tar, tmp_path / "out").code == 0
    with open_image(tmp_path / "out") as image:
        volume = image.volume()
        folder = volume.find(2, "a")
        assert folder is not None
        assert (folder.mode & 0o7777, folder.uid) == (0o711, 7)
        assert (volume.node(2).mode & 0o7777, volume.node(2).uid) == (0o700, 9)
        below = volume.find(folder.cnid, "b")
        assert below is not None
        file = volume.find(below.cnid, "file")
        assert file is not None
        assert bytes(volume.data(file).read(0, file.data_size)) == b"new contents"
        assert volume.info.files == 2
        assert volume.info.name == "it"


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([(member("../up"), b"")], "names with .. in them"),
        ([(member("file"), b""), (member("file/below"), b"")], "names below something that is no folder"),
        ([(member("link", tarfile.LNKTYPE, linkname="nothing"), b"")], "hard links to what did not come before"),
        ([(member("null", tarfile.CHRTYPE, devmajor=300), b"")], "device numbers beyond"),
        ([(member("A"), b""), (member("a"), b"")], "names that differ only in case"),
        (
            [(member("a"), b"1"), (member("b", tarfile.LNKTYPE, linkname="a"), b""), (member("a"), b"2")],
            "names that something else replaces",
        ),
    ],
)
def test_what_cannot_be(run, tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], text: str) -> None:
    said = run("create", made(tmp_path / "it.tar", *members), tmp_path / "out")
    assert said.code == 65
    assert text in said.err
    assert not (tmp_path / "out").exists()


def test_damaged_archives(run, tree: Path, tmp_path: Path) -> None:
    tar = archive(tree, tmp_path / "it.tar", "--format=posix")
    whole = tar.read_bytes()
    for end in (100, 700, 20_000, len(whole) // 2):
        tar.write_bytes(whole[:end])
        said = run("create", tar, tmp_path / "out")
        assert said.code in (65, 66)
        assert said.err.count("\n") == 1
    packed = archive(tree, tmp_path / "it.tar.gz", "--format=posix", "-z")
    packed.write_bytes(packed.read_bytes()[:30_000])
    said = run("create", packed, tmp_path / "out")
    assert (said.code, said.err.count("\n")) == (65, 1)
    (tmp_path / "none").write_bytes(b"no archive at all" * 100)
    said = run("create", tmp_path / "none", tmp_path / "out")
    assert said.code == 66
    assert "neither a folder nor a tar archive" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("parts", [[(5000, 9000), (0, 100)], [(0, 100), (50, 200)], [(0, 1 << 40)]])
def test_parts_of_a_file_that_are_nowhere(run, tmp_path: Path, parts: list[tuple[int, int]]) -> None:
    attr = Attr(5, 0o100644, 1, 0, 0, 0, 8000, 0, 0, 0, 0, 0)
    head = sparse_header(b"file", attr, (0, 0), parts, {})
    (tmp_path / "it.tar").write_bytes(head + b"x" * 20_000 + bytes(-20_000 % 512 + END))
    said = run("create", tmp_path / "it.tar", tmp_path / "out")
    assert said.code == 65
    assert "goes back or past its end" in said.err
    assert said.err.count("\n") == 1


def test_attributes_as_libarchive_writes_them(run, tmp_path: Path) -> None:
    value = base64.b64encode(b"\0\xffvalue").decode().rstrip("=")
    info = member("file", pax_headers={"LIBARCHIVE.xattr.user.my%20name": value})
    assert run("create", made(tmp_path / "it.tar", (info, b"")), tmp_path / "out").code == 0
    with open_image(tmp_path / "out") as image:
        volume = image.volume()
        file = volume.find(2, "file")
        assert file is not None
        attributes = volume.attributes(file)
        assert {name: bytes(attributes[name].read(0, 7)) for name in attributes} == {"my name": b"\0\xffvalue"}


def test_an_attribute_that_linux_cannot_show(run, tmp_path: Path) -> None:
    finder = bytes(range(1, 33))
    values = {"large": b"x" * ((64 << 10) + 1), "com.apple.FinderInfo": finder}
    headers = {f"SCHILY.xattr.user.{name}": value.decode() for name, value in values.items()}
    tar = made(tmp_path / "it.tar", (member("file", pax_headers=headers), b""), kind=tarfile.PAX_FORMAT)
    said = run("create", tar, tmp_path / "out")
    assert said.code == 0
    assert said.err == (
        f"dmgfs: {tar}: note: some extended attributes have more than 64 KiB: the volume has them, a mount on Linux cannot"
        " show them\n"
    )
    with open_image(tmp_path / "out") as image:
        volume = image.volume()
        file = volume.find(2, "file")
        assert file is not None
        assert volume.attributes(file)["large"].size == (64 << 10) + 1
        assert file.finder_info == finder
