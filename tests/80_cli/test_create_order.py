"""create --playlist: what a start opened comes first, in that order."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from exercise.trees import differences

from dmgfs import open_image
from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.structs import DATA_FORK
from dmgfs.hfsplus.volume import HfsPlusVolume
from dmgfs.playlist import Playlist, identity_of, write_file

MTIME = 1_500_000_000
OPTIONS = ("--fs", "hfsx", "--format", "udro")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "Tree"
    (root / "a").mkdir(parents=True)
    (root / "z" / "é: deep").mkdir(parents=True)
    for number in range(30):
        (root / ("a", "z", "z/é: deep")[number % 3] / f"{number:02}").write_bytes(b"%02d" % number * 5000)
    (root / "a" / "linked").write_bytes(b"linked" * 2000)
    os.link(root / "a" / "linked", root / "z" / "other name")
    (root / "z" / "symbolic").symlink_to("é: deep/29")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)
    return root


def number_of(volume: HfsPlusVolume, path: str) -> int:
    number = 2
    for name in path.split("/"):
        node = volume.find(number, name.replace(":", "/"))
        assert node is not None, path
        number = node.cnid
    return number


def in_order_of_the_disk(image: Path, paths: list[str]) -> list[str]:
    """The paths, sorted by where their contents begin; nothing else may lie before the last of them."""
    with open_image(image) as opened:
        volume = opened.volume()
        assert isinstance(volume, HfsPlusVolume)
        starts: dict[int, int] = {}
        sizes: dict[int, int] = {}
        for number in range(16, 200):
            try:
                node = volume.node(number)
                fork, _ = volume._forks(node)
            except CorruptImage:  # there is none, or it is a folder
                continue
            if node.cnid != number:  # a hard link, followed
                continue
            for start, blocks in volume.extents.all_of(fork, number, DATA_FORK) if fork.total_blocks else ():
                starts[number], sizes[number] = start, blocks
        wanted = {number_of(volume, path): path for path in paths}
        found = sorted(starts, key=starts.__getitem__)[: len(wanted)]
        assert all(starts[one] + sizes[one] == starts[next_] for one, next_ in pairwise(found))
        return [wanted.get(number, f"object {number}") for number in found]


FIRST = ["z/é: deep/29", "a/00", "z/symbolic", "z/other name", "z/16"]


def test_a_list_of_paths(run, tree: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(
        "/z/é: deep/29\na/00\n./z/symbolic\nz/other name\nz/16\na/linked\n/not/there\n" + "n" * 300 + "\n"
    )
    image = tmp_path / "image"
    said = run("create", tree, image, *OPTIONS, "--playlist", listed)
    assert (said.code, said.err) == (0, f"dmgfs: {listed}: 2 of 8 files are not in the new volume\n")
    assert in_order_of_the_disk(image, FIRST) == FIRST
    assert run("verify", "--deep", image).code == 0
    (tmp_path / "out").mkdir()
    assert run("extract", image, "-C", tmp_path / "out").code == 0
    os.utime(tmp_path / "out", (MTIME, MTIME))
    assert list(differences(os.fsencode(tree), os.fsencode(tmp_path / "out"), untouched_before=MTIME * 2)) == []


def test_without_a_list_folder_comes_after_folder(run, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    assert run("create", tree, image, *OPTIONS).code == 0
    first = [f"a/{number:02}" for number in range(0, 30, 3)] + ["a/linked"]
    assert in_order_of_the_disk(image, first) == first


@pytest.fixture
def recorded(run, tree: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An image, and a playlist as its mount would have recorded it."""
    image, listed = tmp_path / "old.dmg", tmp_path / "playlist"
    assert run("create", tree, image).code == 0
    with open_image(image) as opened:
        volume = opened.volume()
        assert isinstance(volume, HfsPlusVolume)
        numbers = [number_of(volume, path) for path in FIRST]
        write_file(
            Playlist(identity_of(opened.container), opened.disk.size, ((0, 512),), (*numbers, 9999)), str(listed)
        )
    return image, listed


def test_a_recorded_playlist(run, tree: Path, tmp_path: Path, recorded: tuple[Path, Path]) -> None:
    old, listed = recorded
    (tree / "0 is new").write_bytes(b"new")
    (tree / "a" / "00").write_bytes(b"other contents")
    image = tmp_path / "image"
    said = run(
        "create", tree, image, *OPTIONS, "--playlist", listed, "--playlist-image", old, "--compress", "decmpfs"
    )
    assert (said.code, said.err) == (0, f"dmgfs: {listed}: 1 of 6 files are not in the new volume\n")
    assert run("verify", "--deep", image).code == 0
    said = run("create", tree, image, *OPTIONS, "--playlist", listed, "--playlist-image", old, "--force")
    assert in_order_of_the_disk(image, FIRST) == FIRST


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--playlist-image", "OLD"), "--playlist-image without --playlist"),
        (("--playlist", "LIST"), "name it with --playlist-image"),
        (("--playlist", "LIST", "--playlist-image", "NEW"), "was recorded with another image than"),
        (("--playlist", "PARTS", "--playlist-image", "OLD"), "names no files: record it anew"),
        (("--playlist", "PATHS", "--playlist-image", "OLD"), "is a list of paths and needs no --playlist-image"),
    ],
)
def test_wrong_usage(
    run, tree: Path, tmp_path: Path, recorded: tuple[Path, Path], options: tuple[str, ...], says: str
) -> None:
    old, listed = recorded
    (tmp_path / "paths").write_text("a/00\n")
    write_file(Playlist("ab" * 16, 512, ((0, 512),)), str(tmp_path / "parts"))
    assert run("create", tree, tmp_path / "new", "--fs", "hfsx").code == 0
    places = {
        "OLD": old,
        "LIST": listed,
        "NEW": tmp_path / "new",
        "PARTS": tmp_path / "parts",
        "PATHS": tmp_path / "paths",
    }
    said = run("create", tree, tmp_path / "out", *(places.get(word, word) for word in options))
    assert said.code == 64
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
