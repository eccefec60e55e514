"""Saved shadows below the shadow, on real mounts: what was changed and saved shows again, what is changed now goes
elsewhere, and nothing is ever mounted over what it was not made over."""

import errno
import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
from builders.processes import errno_of
from exercise import randomops
from exercise.daemon import clear_away
from exercise.mounted import Ended, dmgfs, mounted
from exercise.trees import digest

pytestmark = pytest.mark.kernel

WORKLOAD = Path(__file__).resolve().parents[1] / "data/workload.dmg"


def refused(image: Path, place: Path, *options: str | Path) -> Ended:
    ended = dmgfs("mount", image, place, *options)
    if ended.code == 0:
        clear_away(place)
    assert ended.code != 0
    assert len(ended.err.splitlines()) == 1
    return ended


def append(file: Path, data: bytes) -> None:
    with file.open("ab") as output:
        output.write(data)


def saved(image: Path, place: Path, file: Path, *below: str | Path) -> None:
    """A layer with a few changes of every kind, over the layers `below`."""
    with mounted(image, place, *below, "--shadow", file):
        mark = file.name
        (place / f"new of {mark}").write_text(mark * 1000)
        append(place / "other", mark.encode())
        os.unlink(place / ("ReadMe" if not below else "link"))
        os.rename(place / "Folder", place / "moved")
        os.rename(place / "moved", place / "Folder")
        os.chmod(place / "program", 0o700 + len(mark))
        os.setxattr(place / "tagged", f"user.{mark}", mark.encode())
        os.mkdir(place / f"folder of {mark}")
        os.link(place / "first name", place / f"folder of {mark}" / "one more")
        os.sync()


def show(place: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            facts = (status.st_ino, status.st_mode, status.st_nlink, status.st_mtime_ns, data)
            found[str(path.relative_to(place))] = facts
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, insensitive_volume: bytes) -> tuple[Path, Path]:
    """Two layers over the volume of `image`, the second over the first."""
    folder = tmp_path_factory.mktemp("layers")
    image, place = folder / "image", folder / "place"
    image.write_bytes(insensitive_volume)
    one, two = folder / "one", folder / "two"
    saved(image, place, one)
    saved(image, place, two, "--shadow-ro", one)
    return one, two


@pytest.fixture
def layers(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of them, for the test to do with as it likes."""
    return shutil.copy(made[0], tmp_path / "one"), shutil.copy(made[1], tmp_path / "two")


def test_layers_show_what_was_saved_in_them(image, place, layers):
    one, two = layers
    with mounted(image, place, "--shadow", one):
        first = show(place)
    with mounted(image, place, "--shadow-ro", one):
        assert show(place) == first
        assert errno_of(lambda: (place / "new").write_text("")) == errno.EROFS
    with mounted(image, place, "--shadow-ro", one, "--shadow", two):
        second = show(place)
        assert second != first
    with mounted(image, place, "-o", f"shadow-ro={one},shadow-ro={two}"):
        assert show(place) == second
        assert (place / "other").read_bytes().endswith(b"onetwo")
        assert not (place / "ReadMe").exists()
        assert not (place / "link").is_symlink()
        assert os.stat(place / "first name").st_nlink == 4
        assert os.listxattr(place / "tagged") == ["user.com.apple.quarantine", "user.one", "user.two"]
        said = dmgfs("status", place).out
        assert f"{one}, " in said
        assert f"{two}, " in said


def test_a_shadow_over_layers_is_what_is_seen_kept_and_taken_back(image, place, layers, tmp_path):
    one, two = layers
    below = ["--shadow-ro", one, "--shadow-ro", two]
    with mounted(image, place, *below, "--shadow", "ram:8M"):
        before = show(place)
        assert dmgfs("shadow", "diff", place).out == ""
        number = os.stat(place / "new of two").st_ino
        os.unlink(place / "new of one")
        (place / "new of one").write_text("again")
        append(place / "new of two", b"more")
        assert os.stat(place / "new of two").st_ino == number
        os.rename(place / "folder of two", place / "moved")
        lines = json.loads(dmgfs("shadow", "diff", place, "--json").out)
        assert {(line["change"], line["path"]) for line in lines} == {
            ("changed", "new of one"), ("changed", "new of two"), ("renamed", "moved"),
        }  # fmt: skip
        assert {line["layers"] for line in lines} == {2}
        status = json.loads(dmgfs("status", place, "--json").out)
        assert [Path(one["file"]).name for one in status["layers"]] == ["one", "two"]
        tar = tmp_path / "layer.tar"
        assert dmgfs("shadow", "export", place, "--tar", tar).code == 0
        with tarfile.open(tar) as members:
            names = members.getnames()
        assert ".wh.folder of two" in names
        assert "ReadMe" not in names
        assert ".wh.ReadMe" not in names  # the layers' own business
        after = show(place)
        three = tmp_path / "three"
        ended = dmgfs("shadow", "save", place, three)
        assert (ended.code, ended.err) == (0, "")
        assert dmgfs("shadow", "reset", place).code == 0
        assert show(place) == before
    with mounted(image, place, *below, "--shadow-ro", three):
        assert show(place) == after
    live = {(line["change"], line["path"], line["layers"]) for line in lines}
    offline = dmgfs("shadow", "diff", three, "--image", image, "--shadow-ro", one, "--shadow-ro", two, "--json")
    assert offline.err == ""
    assert {(line["change"], line["path"], line["layers"]) for line in json.loads(offline.out)} == live
    ended = dmgfs("shadow", "diff", three, "--image", image, "--shadow-ro", one)
    assert ended.code == 78
    marks = [json.loads(dmgfs("shadow", "check", file, "--json").out)["fingerprint"] for file in (one, two)]
    assert all(mark in ended.err for mark in marks)
    said = dmgfs("shadow", "check", three)
    assert said.code == 0
    assert f"over {', '.join(marks)}" in said.out
    assert dmgfs("shadow", "compact", three).code == 0
    with mounted(image, place, *below, "--shadow", three):
        assert show(place) == after


def test_a_layer_is_refused_over_anything_else(image, sensitive_image, place, layers, tmp_path):
    one, two = layers
    for options in (["--shadow-ro", two], ["--shadow", two], ["--shadow", two, "--force-base"]):
        ended = refused(image, place, *options)
        assert ended.code == 78
        assert f"{two}: it was made over the read-only layer " in ended.err
        assert "here it would be over the image itself" in ended.err
    ended = refused(image, place, "--shadow-ro", two, "--shadow-ro", one)
    assert f"{two}: " in ended.err
    ended = refused(sensitive_image, place, "--shadow-ro", one)
    assert f"{one}: it belongs to another image" in ended.err
    ended = refused(image, place, "--shadow-ro", tmp_path / "none")
    assert ended.code == 66
    assert not (tmp_path / "none").exists()
    ended = refused(image, place, "--shadow-ro", one, "--shadow-ro", one)
    assert (ended.code, "twice" in ended.err) == (64, True)
    # What was opened for writing and left as it was is the same layer; what was changed is another one.
    with mounted(image, place, "--shadow", one):
        pass
    with mounted(image, place, "--shadow-ro", one, "--shadow-ro", two):
        pass
    assert dmgfs("shadow", "compact", one).code == 0
    with mounted(image, place, "--shadow-ro", one, "--shadow-ro", two):
        pass
    with mounted(image, place, "--shadow", one):
        (place / "other").write_bytes(b"changed")
    ended = refused(image, place, "--shadow-ro", one, "--shadow-ro", two)
    assert f"{two}: it was made over the read-only layer " in ended.err
    with mounted(image, place, "--shadow-ro", one, "--shadow-ro", two, "--force-base"):
        assert (place / "new of one").exists()


def test_a_layer_is_shared_by_readers_and_kept_from_writers(image, place, layers, tmp_path):
    one, _ = layers
    before = one.read_bytes()
    other = tmp_path / "other place"
    ours = ("--shadow-ro", one, "--shadow", "ram:8M")
    with mounted(image, place, *ours), mounted(image, other, *ours):
        (place / "new of one").write_text("changed here")
        assert (other / "new of one").read_text() == "one" * 1000
        third = tmp_path / "third place"
        third.mkdir()
        ended = refused(image, third, "--shadow", one)
        assert ended.code == 75
        assert f"{one}: another process is using it" in ended.err
    assert one.read_bytes() == before


def test_a_late_shadow_over_layers(image, place, layers, tmp_path):
    one, two = layers
    three = tmp_path / "three"
    with mounted(image, place, "--shadow-ro", one, "--shadow-ro", two, "--late-shadow"):
        before = show(place)
        assert errno_of(lambda: (place / "new").write_text("")) == errno.EROFS
        assert dmgfs("shadow", "attach", place, three).code == 0
        (place / "new").write_text("late")
        os.unlink(place / "new of two")
        assert errno_of(lambda: os.stat(place / "NEW OF TWO")) == errno.ENOENT
        after = show(place)
        assert after.keys() == before.keys() - {"new of two"} | {"new"}
    with mounted(image, place, "--shadow-ro", one, "--shadow-ro", two, "--shadow", three):
        assert show(place) == after


def test_access_lists_of_a_layer_are_obeyed_above_it(image, place, tmp_path):
    file = tmp_path / "layer"
    with mounted(image, place, "--acl", "--shadow", file, "-o", "allow_other"):
        subprocess.run(["setfacl", "-m", "u:1234:rwx,m:rwx", place / "program"], check=True)
        subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", place / "Folder"], check=True)
        os.sync()
    with mounted(image, place, "--acl", "--shadow-ro", file, "--shadow", "ram:8M", "-o", "allow_other"):
        said = subprocess.run(
            ["getfacl", "-cp", place / "program"], capture_output=True, text=True, check=True
        ).stdout
        assert "user:1234:rwx" in said
        os.mkdir(place / "Folder/made")
        said = subprocess.run(
            ["getfacl", "-cp", place / "Folder/made"], capture_output=True, text=True, check=True
        ).stdout
        assert "user:1234:r-x" in said
        subprocess.run(["setfacl", "-b", place / "program"], check=True)
        said = subprocess.run(
            ["getfacl", "-cp", place / "program"], capture_output=True, text=True, check=True
        ).stdout
        assert "1234" not in said
        assert "system.posix_acl_access" not in os.listxattr(place / "program")


def test_random_operations_through_layers_end_alike(tmp_path):
    """A real directory beside the mount all the time, and a new layer between every two rounds: the first saved from
    memory, the second written as a file."""
    before = digest(os.fsencode(WORKLOAD))
    place, model = tmp_path / "mnt", tmp_path / "model"
    files = [tmp_path / "one", tmp_path / "two"]
    words = ["-o", "allow_other,dev,suid"]
    below: list[str | Path] = []
    started = time.time()
    for seed in range(3):
        top = ["ram:512M", files[1], "ram:512M"][seed]
        with mounted(WORKLOAD, place, *below, "--shadow", top, *words):
            if seed == 0:
                subprocess.run(["cp", "-a", place, model], check=True)
            done = randomops.exercise(place, model, seed, 600, started=started)
            assert len(done) == 600
            if seed == 0:
                ended = dmgfs("shadow", "save", place, files[0])
                assert (ended.code, ended.err) == (0, "")
        if seed < 2:
            below += ["--shadow-ro", files[seed]]
            assert dmgfs("shadow", "check", files[seed]).code == 0
    shutil.rmtree(model)
    assert digest(os.fsencode(WORKLOAD)) == before


def test_a_layer_that_is_still_in_use_is_waited_for(image, place, layers, tmp_path):
    one, _ = layers
    other = tmp_path / "other place"
    other.mkdir()
    assert dmgfs("mount", image, other, "--shadow", one).code == 0
    ending = threading.Timer(2, lambda: dmgfs("unmount", other))
    ending.start()
    try:
        with mounted(image, place, "--shadow-ro", one, "--wait", "40"):
            assert (place / "new of one").exists()
    finally:
        ending.join()
