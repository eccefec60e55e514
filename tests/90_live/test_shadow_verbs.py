"""Seeing, keeping and taking back the changes of real mounts, while they are used."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from exercise.daemon import becomes, clear_away, has_ended, process_of
from exercise.mounted import dmgfs

pytestmark = pytest.mark.kernel


def start(image: Path, place: Path, *options: str | Path) -> None:
    ended = dmgfs("mount", image, place, *options)
    assert (ended.code, ended.err) == (0, "")


def unmount(place: Path) -> None:
    """And the daemon has ended: it lives on while a mount namespace does that somebody made meanwhile."""
    process = process_of(place)
    assert dmgfs("unmount", place).code == 0
    assert has_ended(process, 120)


def shadow(*arguments: str | Path) -> str:
    ended = dmgfs("shadow", *arguments)
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def refused(*arguments: str | Path) -> str:
    ended = dmgfs("shadow", *arguments)
    assert ended.code != 0
    assert len(ended.err.splitlines()) == 1
    return ended.err


def used(place: Path) -> int:
    return json.loads(dmgfs("status", place, "--json").out)["shadow"]["used"]


def change(place: Path) -> None:
    os.unlink(place / "ReadMe")
    (place / "other").write_bytes(b"changed")
    os.chmod(place / "program", 0o600)
    os.rename(place / "Folder", place / "Renamed")
    (place / "Renamed" / "new").write_bytes(b"new\n" * 5000)
    os.setxattr(place / "tagged", "user.mine", b"\0value")
    os.mkfifo(place / "pipe")


CHANGES = {
    ("deleted", "ReadMe"),
    ("changed", "other"),
    ("metadata", "program"),
    ("renamed", "Renamed"),
    ("added", "Renamed/new"),
    ("metadata", "tagged"),
    ("added", "pipe"),
}


def facts(place: Path) -> dict[str, object]:
    """Everything below, as stat and read show it; without times of directories, which follow from the rest."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(place):
        for name in folders + files:
            path = Path(folder, name)
            status = path.lstat()
            data = os.readlink(path) if path.is_symlink() and name != "damaged link" else None
            if stat.S_ISREG(status.st_mode):
                data = hashlib.sha256(path.read_bytes()).hexdigest()
            times = None if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            links = None if stat.S_ISDIR(status.st_mode) else status.st_nlink
            key = (status.st_mode, status.st_uid, status.st_gid, links, times, data)
            found[str(path.relative_to(place))] = key
    return found


# -- diff ---------------------------------------------------------------------------------------------------------------


def test_diff(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert shadow("diff", place) == ""
    assert json.loads(shadow("diff", place, "--json")) == []
    change(place)
    lines = json.loads(shadow("diff", place, "--json"))
    assert {(line["change"], line["path"]) for line in lines} == CHANGES
    said = shadow("diff", place)
    assert "renamed   Folder -> Renamed/\n" in said
    assert "deleted   ReadMe\n" in said
    assert "metadata  program  (mode)\n" in said


def test_diff_while_the_mount_is_busy(image, place):
    """It shows one moment, and the mount does not wait for it."""
    start(image, place, "--shadow", "ram:64M")
    for number in range(2000):
        (place / f"file {number:04}").write_bytes(b"x")
    ending = threading.Event()

    def write() -> None:
        number = 0
        while not ending.is_set():
            (place / f"more {number}").write_bytes(b"y" * 5000)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            lines = json.loads(shadow("diff", place, "--json"))
            assert sum(line["path"].startswith("file ") for line in lines) == 2000
    finally:
        ending.set()
        writer.join()


def test_diff_of_a_mount_without_changes_to_see(image, place):
    start(image, place)
    assert shadow("diff", place) == ""


# -- export -------------------------------------------------------------------------------------------------------------


def test_a_layer_over_a_copy_of_the_image_is_the_mount(sensitive_image, place, tmp_path):
    """Read with Python's tarfile, unpacked with GNU tar; whiteouts applied as container tools do."""
    copy = tmp_path / "copy"
    start(sensitive_image, place, "--shadow", "ram:8M")
    shutil.copytree(
        place, copy, symlinks=True, ignore=lambda _, names: [name for name in names if name == "damaged link"]
    )
    os.unlink(copy / "Folder" / "second name")
    os.link(copy / "first name", copy / "Folder" / "second name")
    for name in ("program", "Folder", "."):
        os.chown(copy / name, 501, 20)
    change(place)
    os.unlink(place / "damaged link")
    layer = tmp_path / "layer.tar"
    shadow("export", place, "--tar", layer)
    assert layer.stat().st_mode & 0o777 == 0o600
    piped = subprocess.run(
        [shutil.which("dmgfs") or "dmgfs", "shadow", "export", place, "--tar", "-"], capture_output=True, check=True
    )
    assert len(piped.stdout) == layer.stat().st_size
    with tarfile.open(layer) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members[".wh.ReadMe"].size == 0
    assert ".wh.Folder" in members
    assert members["Renamed/new"].size == 20_000
    assert members["tagged"].pax_headers["SCHILY.xattr.user.mine"] == "\0value"
    for member in [one for one in members.values() if os.path.basename(one.name).startswith(".wh.")]:
        gone = copy / os.path.dirname(member.name) / os.path.basename(member.name)[4:]
        if member.name == ".wh.damaged link":
            continue
        assert os.path.lexists(gone)
        shutil.rmtree(gone) if gone.is_dir() else os.unlink(gone)
    subprocess.run(
        ["tar", "-xpf", layer, "-C", copy, "--xattrs", "--xattrs-include=*", "--exclude=.wh.*"],
        check=True,
        capture_output=True,
    )
    got, wanted = facts(copy), facts(place)
    assert got.keys() == wanted.keys()
    for path in members:
        if path in wanted and not path.endswith("damaged link"):
            assert got[path] == wanted[path], path
    assert os.getxattr(copy / "tagged", "user.mine") == b"\0value"


def test_a_reader_of_the_export_that_goes_away(image, place):
    start(image, place, "--shadow", "ram:64M")
    (place / "big").write_bytes(os.urandom(16 << 20))
    exporting = subprocess.Popen(
        [shutil.which("dmgfs") or "dmgfs", "shadow", "export", place, "--tar", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert exporting.stdout is not None
    exporting.stdout.read(1000)
    exporting.stdout.close()
    assert exporting.wait(30) != 0
    exporting.stderr.close()
    assert shadow("diff", place) != ""
    os.unlink(place / "big")


def test_an_export_into_the_mount_itself(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert "lies in the mount itself" in refused("export", place, "--tar", place / "layer.tar")


def test_a_file_that_nobody_uses_tells_the_same(image, sensitive_image, place, tmp_path):
    """Without a mount, and without what a mount needs: the same lines, the same bytes."""
    file, live, still = tmp_path / "a.shadow", tmp_path / "live.tar", tmp_path / "still.tar"
    start(image, place, "--shadow", file)
    change(place)
    os.unlink(place / "damaged link")
    os.link(place / "first name", place / "third name")
    (place / b"odd \xff\n".decode("utf-8", "surrogateescape")).symlink_to("x")
    lines, words = shadow("diff", place, "--json"), shadow("diff", place)
    shadow("export", place, "--tar", live)
    assert "another process is using it" in refused("diff", file, "--image", image)
    unmount(place)
    before = file.read_bytes()
    assert shadow("diff", file, "--image", image, "--json") == lines
    assert shadow("diff", file, "--image", image) == words
    shadow("export", file, "--image", image, "--tar", still)
    assert still.read_bytes() == live.read_bytes()
    assert "--image IMAGE" in refused("diff", file)
    still.unlink()
    assert "belongs to another image" in refused("export", file, "--image", sensitive_image, "--tar", still)
    assert not still.exists()
    assert shadow("diff", file, "--image", sensitive_image, "--force-base") != ""
    assert "left alone" in refused("diff", image, "--image", image)
    assert "No such file" in refused("diff", tmp_path / "none", "--image", image)
    assert file.read_bytes() == before
    program = "import sys; from dmgfs.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program, "shadow", "diff", file, "--image", image],
        capture_output=True,
        text=True,
        check=True,
        errors="surrogateescape",
    )
    assert {"overlay.file", "dmgfs.image"} <= set(said.stdout.split())
    assert not {"pyfuse3", "trio"} & set(said.stdout.split())


# -- space --------------------------------------------------------------------------------------------------------------


def taken(file: Path) -> int:
    """What it takes of its file system."""
    return file.stat().st_blocks * 512


def test_space_of_a_file_in_use_goes_back(image, place, tmp_path):
    """When asked for, while others write; and by itself some time after much was removed."""
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    for number in range(8):
        (place / f"big {number}").write_bytes(os.urandom(6 << 20))
    kept = hashlib.sha256((place / "big 7").read_bytes()).digest()
    ending = threading.Event()
    written: list[bytes] = []

    def write() -> None:
        while not ending.is_set():
            data = os.urandom(50_000)
            (place / f"more {len(written)}").write_bytes(data)
            written.append(hashlib.sha256(data).digest())
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            os.unlink(place / f"big {number}")
        assert becomes(lambda: used(place) < (28 << 20) + len(written) * 60_000)
        said = shadow("compact", place)
    finally:
        ending.set()
        writer.join()
    assert " before, " in said
    assert taken(file) < (27 << 20) + len(written) * 60_000
    for number in range(4, 7):
        os.unlink(place / f"big {number}")
    for number, digest in enumerate(written):
        assert hashlib.sha256((place / f"more {number}").read_bytes()).digest() == digest
        os.unlink(place / f"more {number}")
    assert becomes(lambda: taken(file) < 12 << 20, 120), taken(file)
    assert hashlib.sha256((place / "big 7").read_bytes()).digest() == kept
    unmount(place)
    assert "clean" in shadow("check", file)


def test_compacting_what_has_no_file(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert shadow("compact", place) == ""
    unmount(place)
    start(image, place)
    assert "read-only" in refused("compact", place)


# -- reset --------------------------------------------------------------------------------------------------------------


def test_reset_takes_everything_back_live(image, place):
    start(image, place, "--shadow", "ram:8M")
    before = facts(place)
    inode = (place / "other").stat().st_ino
    for _ in range(2):
        change(place)
        (place / "FOLDER").mkdir()
        os.mkdir(place / "folder" / "inner")
        facts(place)
        with open(place / "Renamed" / "new", "rb") as opened, open(place / "other", "rb") as changed:
            changed.read()
            shadow("reset", place)
            assert opened.read() == b"new\n" * 5000
            assert os.fstat(opened.fileno()).st_nlink == 0
            assert os.pread(changed.fileno(), 100_000, 0) == b"other\n" * 1000
        assert facts(place) == before
        assert not (place / "Renamed").exists()
        assert not (place / "pipe").exists()
        assert (place / "readme").read_bytes() == b"read me\n"
        assert (place / "other").stat().st_ino == inode
        assert shadow("diff", place) == ""
    assert becomes(lambda: used(place) == 0), dmgfs("status", place).out


def test_reset_of_a_shadow_file_lasts(image, place, tmp_path):
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    before = facts(place)
    change(place)
    shadow("reset", place)
    (place / "later").write_bytes(b"later")
    unmount(place)
    start(image, place, "--shadow", file)
    assert {name: fact for name, fact in facts(place).items() if name != "later"} == before
    assert "clean" not in refused("check", file)
    unmount(place)
    assert "clean" in shadow("check", file)


def test_one_object_is_taken_back(image, place):
    """A deleted one, a changed one, a renamed directory; files that are open, names that the kernel knows."""
    start(image, place, "--shadow", "ram:8M")
    before = facts(place)
    change(place)
    for name in ("readme", "README", "Folder/inner/deep", "folder", "other", "link"):
        assert os.path.lexists(place / name) == (name in ("other", "link")), name
    assert shadow("reset", place, "ReadMe") != ""
    assert (place / "README").read_bytes() == (place / "ReadMe").read_bytes() == b"read me\n"
    with open(place / "other", "r+b") as opened, open(place / "Renamed" / "new", "rb") as new:
        assert opened.read() == b"changed"
        shadow("reset", place, place / "other")
        assert os.pread(opened.fileno(), 100_000, 0) == b"other\n" * 1000
        assert os.fstat(opened.fileno()).st_size == 6000
        shadow("reset", place, "Renamed/inner/")
        assert (place / "renamed" / "inner" / "deep").read_bytes() == b"deep\n"
        for path, why in (
            (
                "Folder/inner/deep",
                "Folder/inner/deep: it was in Folder, which is not the image's any more: reset Folder",
            ),
            ("Renamed", "Renamed: the image has it as Folder: reset that"),
            ("pipe", "pipe: the image has nothing there; what is there now is new, remove it with rm"),
            ("none", "none: the image has nothing there, and nothing is there now"),
        ):
            assert refused("reset", place, path) == f"dmgfs: {place}: {why}\n"
        shadow("reset", place, "/Folder")
        assert not (place / "Renamed").exists()
        assert new.read() == b"new\n" * 5000
        assert os.fstat(new.fileno()).st_nlink == 0
    assert (place / "FOLDER" / "inner" / "deep").read_bytes() == b"deep\n"
    shadow("reset", place, "tagged")
    assert "user.mine" not in os.listxattr(place / "tagged")
    os.unlink(place / "pipe")
    shadow("reset", place, "program")
    assert facts(place) == before
    assert shadow("diff", place) == ""


def test_names_that_were_swapped_and_hard_links_are_taken_back(sensitive_image, place, tmp_path):
    """In a file; and it is so after the next mount, too."""
    file = tmp_path / "a.shadow"
    start(sensitive_image, place, "--shadow", file)
    before = facts(place)
    os.rename(place / "Folder", place / "aside")
    os.rename(place / "first name", place / "Folder")
    os.rename(place / "aside", place / "first name")
    os.unlink(place / "first name" / "second name")
    facts(place)
    shadow("reset", place, "Folder")
    assert (place / "Folder" / "second name").stat().st_nlink == 1  # nobody asked for the other name
    assert not (place / "first name").exists()
    shadow("reset", place, "first name")
    assert facts(place) == before
    os.unlink(place / "first name")
    os.unlink(place / "Folder" / "second name")
    shadow("reset", place, "Folder/second name")
    assert (place / "Folder" / "second name").stat().st_nlink == 1
    shadow("reset", place, "first name")
    assert facts(place) == before
    unmount(place)
    assert "clean" in shadow("check", file)
    start(sensitive_image, place, "--shadow", file)
    assert facts(place) == before


# -- snapshots ----------------------------------------------------------------------------------------------------------


def test_snapshots(image, place):
    start(image, place, "--shadow", "ram:64M")
    (place / "data").write_bytes(b"1" * 10_000_000)
    shadow("snapshot", "create", place, "first")
    assert used(place) < 10_100_000
    first = facts(place)
    with open(place / "data", "r+b") as data:
        data.seek(5000)
        data.write(b"2" * 5000)
    change(place)
    shadow("snapshot", "create", place, "second")
    second = facts(place)
    os.unlink(place / "data")
    assert "there is a snapshot first already" in refused("snapshot", "create", place, "first")
    assert "no snapshot third" in refused("snapshot", "rollback", place, "third")
    listed = json.loads(shadow("snapshot", "list", place, "--json"))
    assert [one["name"] for one in listed] == ["first", "second"]
    shadow("snapshot", "rollback", place, "first")
    assert facts(place) == first
    shadow("snapshot", "rollback", place, "second")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "first")
    shadow("snapshot", "rollback", place, "second")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "second")
    assert shadow("snapshot", "list", place) == ""
    assert facts(place) == second
    shadow("reset", place)
    assert becomes(lambda: used(place) == 0), dmgfs("status", place).out


def test_snapshots_in_a_file_survive_everything(image, place, tmp_path):
    """Unmounting, and the end of the daemon by force; made, gone back to and deleted while the mount is used."""
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    (place / "data").write_bytes(os.urandom(10_000_000))
    os.sync()
    size = file.stat().st_size
    shadow("snapshot", "create", place, "first")
    first = facts(place)
    assert file.stat().st_size - size < 2 << 20
    with open(place / "data", "r+b") as data:
        data.seek(5000)
        data.write(b"2" * 5000)
    change(place)
    shadow("snapshot", "create", place, "zweiter ü")
    second = facts(place)
    words, lines = shadow("diff", place), shadow("diff", place, "--json")
    listed = shadow("snapshot", "list", place, "--json")
    process = process_of(place)
    os.unlink(place / "data")
    os.kill(process, signal.SIGKILL)
    assert has_ended(process)
    clear_away(place)
    assert shadow("snapshot", "list", file, "--json") == listed
    assert "2 snapshots" in shadow("check", file)
    assert shadow("diff", file, "--image", image, "--snapshot", "zweiter ü") == words
    assert [
        one["path"] for one in json.loads(shadow("diff", file, "--image", image, "--json", "--snapshot", "first"))
    ] == ["data"]
    assert "no snapshot third" in refused("diff", file, "--image", image, "--snapshot", "third")
    assert "mount the image" in refused("snapshot", "delete", file, "first")
    start(image, place, "--shadow", file)
    assert not (place / "data").exists()
    shadow("snapshot", "rollback", place, "first")
    assert facts(place) == first
    assert shadow("diff", place, "--json", "--snapshot", "zweiter ü") == lines
    shadow("snapshot", "rollback", place, "zweiter ü")
    assert facts(place) == second
    shadow("reset", place)
    unmount(place)
    shadow("compact", file)
    assert file.stat().st_size < 11 << 20
    start(image, place, "--shadow", file)
    shadow("snapshot", "rollback", place, "zweiter ü")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "zweiter ü")
    shadow("snapshot", "delete", place, "first")
    shadow("reset", place)
    assert becomes(lambda: used(place) < 2 << 20), dmgfs("status", place).out
    unmount(place)
    assert "0 objects, " in shadow("check", file)
    assert file.stat().st_size < 2 << 20


# -- save and the verbs about files ----------------------------------------------------------------------------------------


def test_a_shadow_in_memory_is_saved_live_and_mounted_from_the_file(image, place, tmp_path):
    file = tmp_path / "saved.shadow"
    start(image, place, "--shadow", "ram:64M")
    change(place)
    (place / "sparse").write_bytes(b"")
    os.truncate(place / "sparse", 1 << 30)
    with open(place / "sparse", "r+b") as sparse:
        sparse.seek(1 << 29)
        sparse.write(b"middle" * 10_000)
    saved = {name: fact for name, fact in facts(place).items() if name != "sparse"}
    shadow("snapshot", "create", place, "before")
    os.unlink(place / "Renamed" / "new")
    shadow("save", place, file)
    (place / "afterwards").write_bytes(b"")
    assert "exists already" in refused("save", place, file)
    assert "clean" in shadow("check", file)
    assert file.stat().st_size < 2 << 20
    assert file.stat().st_mode & 0o777 == 0o600
    unmount(place)
    start(image, place, "--shadow", file)
    assert not (place / "Renamed" / "new").exists()
    shadow("snapshot", "rollback", place, "before")
    assert {name: fact for name, fact in facts(place).items() if name != "sparse"} == saved
    with open(place / "sparse", "rb") as sparse:
        sparse.seek(1 << 29)
        assert sparse.read(60_001) == b"middle" * 10_000 + b"\0"
    assert sorted(tmp_path.glob("*.partial")) == []


def test_compact_and_discard(image, place, tmp_path):
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    change(place)
    for number in range(20):
        (place / f"big {number}").write_bytes(os.urandom(1 << 20))
    for number in range(20):
        if number != 10:
            os.unlink(place / f"big {number}")
    now = facts(place)
    for what in (file, place):
        said = refused("discard", what)
        assert f"`dmgfs shadow reset {place}` takes all changes back" in said
        assert f"`dmgfs shadow discard {file}` removes the file" in said
    assert "another process is using it" in refused("check", file)
    unmount(place)
    before = file.stat().st_size
    shadow("compact", file)
    assert file.stat().st_size < before / 2
    start(image, place, "--shadow", file)
    assert facts(place) == now
    unmount(place)
    text = tmp_path / "text"
    text.write_text("not a shadow")
    assert "left alone" in refused("discard", text)
    refused("compact", text)
    refused("check", text)
    assert text.read_text() == "not a shadow"
    shadow("discard", file)
    assert not file.exists()
    assert "No such file" in refused("discard", file)
    assert "nothing is mounted there" in refused("discard", place)
    start(image, place, "--shadow", "ram:8M")
    assert "unmounting throws them away" in refused("discard", place)
    unmount(place)
    start(image, place)
    assert "has no changes" in refused("discard", place)
    assert not file.exists()
