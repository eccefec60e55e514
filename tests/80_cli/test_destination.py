"""The destination of a verb is none of its inputs and nothing that is in use, --force or not; and what is wrong with it is
said of it. (commit: test_commit.py; live mounts: 90_live/test_commit.py.)"""

import fcntl
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

NAMES = ("itself", "hard link", "link")


def named(path: Path, kind: str) -> Path:
    """Another name of the file."""
    if kind == "itself":
        return path
    other = path.with_name(f"{path.name} {kind.replace(' ', '-')}")
    if kind == "link":
        other.symlink_to(path)
    else:
        os.link(path, other)
    return other


def require_refused(said, out: Path, *words: str) -> None:
    assert said.code == 73, said.err
    assert said.err.startswith(f"dmgfs: {out}: ")
    assert said.err.endswith("; name another file\n")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


@pytest.fixture
def pair(run, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two files and the delta between them."""
    old, new, delta = (tmp_path / name for name in ("old", "new", "delta"))
    old.write_bytes(random.Random(1).randbytes(200 * 512))
    new.write_bytes(old.read_bytes() + b"more")
    assert run("diff", old, new, "--delta", delta).code == 0
    return old, new, delta


@pytest.mark.parametrize("kind", NAMES)
def test_a_delta_replaces_neither_of_the_two(run, pair: tuple[Path, Path, Path], kind: str) -> None:
    before = [path.read_bytes() for path in pair]
    old, new, delta = pair
    old_too, new_too, delta_too = (named(path, kind) for path in pair)
    for out in (old_too, new_too):
        require_refused(run("diff", old, new, "--delta", out, "--force"), out)
    for out in (old_too, delta_too):
        require_refused(run("patch", old, delta, out, "--force"), out)
    assert [path.read_bytes() for path in pair] == before
    assert not list(old.parent.glob(".dmgfs-*"))


@pytest.mark.parametrize("kind", NAMES)
def test_create_replaces_nothing_that_it_reads(run, tmp_path: Path, kind: str) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("x")
    archive, playlist = tmp_path / "in.tar", tmp_path / "list"
    with tarfile.open(archive, "w") as tar:
        tar.add(tree, ".")
    playlist.write_text("file\n")
    before = archive.read_bytes()
    out = named(archive, kind)
    require_refused(run("create", archive, out, "--force"), out)
    assert archive.read_bytes() == before
    out = named(playlist, kind)
    require_refused(run("create", tree, out, "--playlist", playlist, "--force"), out)
    way = tmp_path / "way"
    way.symlink_to(tree / "folder")
    for out in (tree / "out.dmg", tree / "folder" / "out.dmg", way / "out.dmg"):
        require_refused(run("create", tree, out), out, str(tree))
        require_refused(run("create", tree, out, "--one-file-system"), out)
    assert os.listdir(tree / "folder") == []
    assert run("create", tree, tmp_path / "out.dmg").code == 0


def test_an_archive_is_not_written_over_what_it_is_made_of(run, rich: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(rich.read_bytes())
    for kind in NAMES:
        out = named(image, kind)
        require_refused(run("extract", image, "--tar", out), out)
    assert image.read_bytes() == rich.read_bytes()
    archive = tmp_path / "in.tar"
    tarfile.open(archive, "w").close()
    before = archive.read_bytes()
    with archive.open("rb") as file:
        command = [sys.executable, "-m", "dmgfs", "create", "-", archive, "--force"]
        said = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (73, 1)
    assert archive.read_bytes() == before


def test_a_shadow_that_somebody_has_open_stays(run, pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    old, _, delta = pair
    out = tmp_path / "shadow"
    out.write_bytes(b"shadow")
    for lock in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        with out.open("rb") as held:
            fcntl.flock(held, lock)
            require_refused(run("patch", old, delta, out, "--force"), out, "somebody has it open")
    assert run("patch", old, delta, out, "--force").code == 0


def test_what_is_wrong_with_the_destination_is_said_of_it(run, pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    old, new, delta = pair
    there, nowhere = tmp_path / "there", tmp_path / "nowhere" / "out"
    there.write_text("mine")
    (tmp_path / "tree").mkdir()
    for words in (
        lambda out: ("patch", old, delta, out),
        lambda out: ("diff", old, new, "--delta", out),
        lambda out: ("create", tmp_path / "tree", out),
        lambda out: ("convert", old, out),
    ):
        said = run(*words(there))
        assert (said.code, said.err) == (73, f"dmgfs: {there}: File exists; --force replaces it\n")
        said = run(*words(nowhere))
        assert (said.code, said.err) == (73, f"dmgfs: {nowhere}: No such file or directory\n")
    assert there.read_text() == "mine"
