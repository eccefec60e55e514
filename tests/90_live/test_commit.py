"""commit of a live mount: the new image shows what the mount shows, and the mount goes on."""

import os
import subprocess
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
