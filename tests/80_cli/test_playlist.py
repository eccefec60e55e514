"""dmgfs playlist: show, merge, trim."""

import json
import os

import pytest

from dmgfs.image import open_image
from dmgfs.playlist import Playlist, identity_of, read_file, write_file

IMAGE = "ab" * 16


@pytest.fixture
def lists(tmp_path):
    one = Playlist(IMAGE, 1 << 30, ((1 << 20, 1 << 20), (0, 4096)))
    two = Playlist(IMAGE, 1 << 30, ((8 << 20, 1 << 20), (0, 4096)))
    write_file(one, str(tmp_path / "one"))
    write_file(two, str(tmp_path / "two"))
    write_file(Playlist("cd" * 16, 1 << 30, ((0, 1),)), str(tmp_path / "other"))
    return tmp_path


def test_show(run, lists):
    said = run("playlist", "show", lists / "one")
    assert (said.code, said.err) == (0, "")
    assert said.out.decode() == f"image   {IMAGE}, a disk of 1.0 GiB\nparts   2, 1.0 MiB of the disk\n"
    said = run("playlist", "show", "--parts", lists / "one")
    assert said.out.decode().endswith("1048576 1048576\n0 4096\n")
    facts = json.loads(run("playlist", "show", "--json", "--parts", lists / "one").out)
    assert facts == {
        "image": IMAGE,
        "disk": 1 << 30,
        "parts": 2,
        "bytes": (1 << 20) + 4096,
        "files": 0,
        "list": [[1 << 20, 1 << 20], [0, 4096]],
    }


def test_show_for_an_image(run, lists, rich):
    assert b"another image" in run("playlist", "show", lists / "one", "--for", rich).out
    with open_image(rich) as image:
        own = Playlist(identity_of(image.container), image.disk.size, ((0, 512),))
    write_file(own, str(lists / "own"))
    assert b"recorded with it" in run("playlist", "show", lists / "own", "--for", rich).out
    assert json.loads(run("playlist", "show", "--json", lists / "own", "--for", rich).out)["matches"] is True


def test_merge(run, lists):
    assert run("playlist", "merge", lists / "both", lists / "one", lists / "two").code == 0
    assert read_file(str(lists / "both")).parts == ((1 << 20, 1 << 20), (0, 4096), (8 << 20, 1 << 20))
    assert run("playlist", "merge", lists / "one", lists / "two", lists / "one").code == 0
    assert read_file(str(lists / "one")).parts[0] == (8 << 20, 1 << 20)
    said = run("playlist", "merge", lists / "bad", lists / "one", lists / "other")
    assert said.code == 65
    assert "another image" in said.err
    assert not (lists / "bad").exists()


def test_trim(run, lists):
    assert run("playlist", "trim", lists / "one", "1M", "-o", lists / "short").code == 0
    assert read_file(str(lists / "short")).parts == ((1 << 20, 1 << 20),)
    assert len(read_file(str(lists / "one")).parts) == 2
    assert run("playlist", "trim", lists / "one", "0").code == 0
    assert read_file(str(lists / "one")).parts == ()
    assert run("playlist", "trim", lists / "one", "much").code == 64


@pytest.mark.parametrize(
    ("text", "code"), [(b"no list", 66), (b"dmgfs playlist 9\n", 69), (b"dmgfs playlist 1\n\n", 65)]
)
def test_other_files_are_refused(run, tmp_path, text, code):
    (tmp_path / "file").write_bytes(text)
    for action in (("show",), ("trim", "5M"), ("merge",)):
        words = [tmp_path / "out", tmp_path / "file"] if action == ("merge",) else [tmp_path / "file", *action[1:]]
        said = run("playlist", action[0], *words)
        assert said.code == code
        assert "Traceback" not in said.err
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_missing_list_and_missing_words(run, tmp_path):
    assert run("playlist", "show", tmp_path / "none").code == 66
    with pytest.raises(SystemExit) as ended:
        run("playlist")
    assert ended.value.code == 64
