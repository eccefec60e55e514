"""commit of a live mount: the new image shows what the mount shows, and the mount goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from exercise.mounted import dmgfs, mounted
from exercise.trees import differences

pytestmark = pytest.mark.kernel


def test_the_new_image_shows_what_the_mount_shows(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder" / "below").mkdir(parents=True)
    for number in range(40):
        (tree / "folder" / f"{number}").write_bytes(os.urandom(number * 3000))
    os.link(tree / "folder" / "7", tree / "seven")
    image, out, again = tmp_path / "image.dmg", tmp_path / "out.dmg", tmp_path / "again.dmg"
    assert dmgfs("create", tree, image, "--fs", "hfsx", "--journal").code == 0
    options = ("--shadow", "ram", "-o", "allow_other,dev,suid")
    with mounted(image, tmp_path / "mnt", *options) as place:
        (place / "new").write_text("new\n")
        (place / "folder" / "3").unlink()
        (place / "folder" / "below").rename(place / "moved")
        os.link(place / "seven", place / "moved" / "seven")
        with (place / "folder" / "20").open("r+b") as file:
            file.seek(5000)
            file.write(b"changed")
        subprocess.run(["cp", "-a", tree / "folder", place / "moved" / "copy"], check=True)
        ended = dmgfs("commit", place, out)
        assert ended.code == 0, ended.err
        with mounted(out, tmp_path / "new", *options) as other:
            assert list(differences(os.fsencode(place), os.fsencode(other))) == []
            (other / "later").write_text("second")
            (other / "moved" / "seven").unlink()
            ended = dmgfs("commit", other, again, "--format", "ulfo")
            assert ended.code == 0, ended.err
            with mounted(again, tmp_path / "newer", "-o", "allow_other,dev,suid") as newest:
                assert list(differences(os.fsencode(other), os.fsencode(newest))) == []
        (place / "goes on").write_text("yes")
        ended = dmgfs("commit", place, out)
        assert ended.code == 73
    for each in (out, again):
        ended = dmgfs("verify", "--deep", each)
        assert ended.code == 0, ended.out


def test_layers_go_into_the_new_image(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b", "c"):
        (tree / name).write_text(name * 5000)
    image, layer, out = tmp_path / "image.dmg", tmp_path / "layer", tmp_path / "out.dmg"
    assert dmgfs("create", tree, image).code == 0
    with mounted(image, tmp_path / "mnt", "--shadow", layer) as place:
        (place / "a").unlink()
        (place / "new").write_text("of the layer")
        os.link(place / "new", place / "new too")
    with mounted(image, tmp_path / "mnt", "--shadow-ro", layer, "--shadow", "ram") as place:
        (place / "b").write_text("of the topmost")
        (place / "new").unlink()
        ended = dmgfs("commit", place, out)
        assert ended.code == 0, ended.err
        with mounted(out, tmp_path / "new") as other:
            assert list(differences(os.fsencode(place), os.fsencode(other))) == []
            assert sorted(os.listdir(other)) == ["b", "c", "new too"]


def test_a_read_only_mount_has_nothing_to_commit(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    image = tmp_path / "image.dmg"
    assert dmgfs("create", tmp_path / "tree", image).code == 0
    with mounted(image, tmp_path / "mnt") as place:
        ended = dmgfs("commit", place, tmp_path / "out.dmg")
        assert ended.code == 64
        assert "read-only" in ended.err
    assert not (tmp_path / "out.dmg").exists()


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """An image of a folder with 8 MiB that no coding makes smaller."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "noise").write_bytes(os.urandom(8 << 20))
    assert dmgfs("create", tmp_path / "tree", tmp_path / "image.dmg", "--format", "raw").code == 0
    return tmp_path / "image.dmg"


def test_a_commit_never_replaces_what_the_mount_needs(noise: Path, tmp_path: Path) -> None:
    """Nor does another verb. What was changed is still there over the same image afterwards."""
    shadow, out = tmp_path / "shadow", tmp_path / "out.dmg"
    before = noise.read_bytes()
    with mounted(noise, tmp_path / "mnt", "--shadow", shadow) as place:
        (place / "one").write_text("1")
        for words in (("commit", place), ("create", tmp_path / "tree")):
            for path in (noise, shadow):
                ended = dmgfs(*words, path, "--force")
                assert (ended.code, ended.err.count("\n")) == (73, 1)
                assert ended.err.startswith(f"dmgfs: {path}: ")
                assert ended.err.endswith("; name another file\n")
        assert f"mounted on {place}" in dmgfs("create", tmp_path / "tree", noise, "--force").err
        (place / "two").write_text("2")
        assert dmgfs("commit", place, out).code == 0
        ended = dmgfs("commit", place, out)
        assert (ended.code, ended.err) == (73, f"dmgfs: {out}: File exists; --force replaces it\n")
    assert noise.read_bytes() == before
    with mounted(noise, tmp_path / "mnt", "--shadow", shadow) as place:
        assert sorted(os.listdir(place)) == ["noise", "one", "two"]
        assert dmgfs("commit", place, out, "--force").code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_commit_that_ends_early_leaves_nothing(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with mounted(noise, tmp_path / "mnt", "--shadow", "ram") as place:
        (place / "one").write_text("1")
        before = sorted(os.listdir(tmp_path))
        assert dmgfs("commit", place, noise).code == 73
        assert os.listdir(temporary) == []
        command = [sys.executable, "-m", "dmgfs", "commit", place, tmp_path / "out", "--format", "ulmo"]
        with subprocess.Popen([*command, "--progress", "json"], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            process.stderr.readline()  # it is under way
            assert len(os.listdir(temporary)) == 1
            process.send_signal(number)
            assert process.wait(30) == 128 + number
            assert "Traceback" not in process.stderr.read()
        assert os.listdir(temporary) == []
        assert sorted(os.listdir(tmp_path)) == before
