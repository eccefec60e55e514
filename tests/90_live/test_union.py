"""What a union shows and what can be done in it, cell by cell, on real mounts: `--union=bsd` as BSD's `mount -o union`,
where Linux lets it be so, and `--union=overlay` beside the kernel's own overlay."""

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.processes import errno_of
from exercise.here import here
from exercise.mounted import dmgfs, is_mounted

pytestmark = pytest.mark.kernel


def fill(directory: Path) -> None:
    """What is below."""
    for name in ("both", "deep", "deep/er", "lone"):
        (directory / name).mkdir()
    for name in ("file", "victim", "both/below", "both/same", "deep/er/bottom", "lone/child", "a link's name"):
        (directory / name).write_text(f"below {name}\n")
    os.link(directory / "victim", directory / "victim too")
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "pipe")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)


@pytest.fixture(scope="module")
def mounted_union(tmp_path_factory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("here") / "union"
    path.mkdir()
    fill(path)
    assert dmgfs("ramdisk", path, "4M", "--union=bsd").code == 0
    yield path
    while is_mounted(path):
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def union(mounted_union) -> Path:
    """A directory under `--union=bsd`, with a directory `both` on the top, too, and nothing else there."""
    take_back(mounted_union)
    top = mounted_union / "new"  # a directory of the top gets the name of one below by being moved over it
    top.mkdir()
    (top / "same").write_text("top same\n")
    assert errno_of(lambda: (mounted_union / "both").mkdir()) == errno.EEXIST  # Linux finds the name before it asks
    os.rename(top, mounted_union / "both")
    return mounted_union


def take_back(union: Path) -> None:
    """The top is empty again."""
    assert here("shadow", "reset", union).code == 0


def below(union: Path) -> None:
    assert here("unmount", union).code == 0


def test_a_name_that_the_top_lacks_is_found_below(union):
    assert (union / "file").read_text() == "below file\n"
    assert (union / "deep/er/bottom").read_text() == "below deep/er/bottom\n"
    assert os.readlink(union / "link") == "file"
    assert (union / "link").read_text() == "below file\n"
    assert stat.S_ISFIFO((union / "pipe").stat().st_mode)
    assert stat.S_ISSOCK((union / "socket").stat().st_mode)
    assert errno_of(lambda: (union / "nothing").stat()) == errno.ENOENT


def test_a_directory_of_the_top_hides_nothing_that_it_lacks(union):
    assert (union / "both/same").read_text() == "top same\n"
    assert (union / "both/below").read_text() == "below both/below\n"


def test_the_top_wins_whatever_the_two_are(union):
    (union / "x").write_text("a file now\n")
    assert errno_of(lambda: os.rename(union / "x", union / "lone")) == errno.EISDIR  # Linux compares the kinds itself
    (union / "file").write_text("top\n")
    assert (union / "file").read_text() == "top\n"
    assert (union / "link").read_text() == "top\n"  # by the name, not by the object


def test_a_listing_shows_each_name_once_the_tops_first(union):
    (union / "own").touch()
    names = os.listdir(union)
    assert len(names) == len(set(names))
    assert set(names) == {
        "own", "both", "deep", "lone", "file", "victim", "victim too", "link", "pipe", "socket", "a link's name"
    }  # fmt: skip
    assert set(names[:2]) == {"own", "both"}
    assert sorted(os.listdir(union / "both")) == ["below", "same"]
    assert os.listdir(union / "lone") == ["child"]


def test_a_long_listing_and_one_that_is_begun_again(union):
    for number in range(500):
        (union / f"n{number}").touch()
    with os.scandir(union) as entries:
        first = [entry.name for entry in entries]
    assert len(first) == len(set(first)) == 510


def test_a_file_that_is_made_masks_the_one_below_and_nothing_is_copied_up(union):
    with (union / "file").open("w") as file:
        assert os.fstat(file.fileno()).st_size == 0
        file.write("t")
    assert (union / "file").read_text() == "t"
    with (union / "both/below").open("w"):
        pass
    assert (union / "both/below").read_bytes() == b""
    take_back(union)
    assert (union / "file").read_text() == "below file\n"
    assert (union / "both/below").read_text() == "below both/below\n"


def test_nothing_can_be_made_in_a_directory_that_is_only_below(union):
    lone = union / "lone"
    assert errno_of(lambda: (lone / "new").touch()) == errno.EROFS
    assert errno_of(lambda: (lone / "new").mkdir()) == errno.EROFS
    assert errno_of(lambda: (lone / "new").symlink_to("x")) == errno.EROFS
    assert errno_of(lambda: os.mkfifo(lone / "new")) == errno.EROFS
    assert errno_of(lambda: (lone / "child").write_text("x")) == errno.EROFS


def test_what_is_below_cannot_be_changed(union):
    file = union / "file"
    for change in (
        lambda: os.close(os.open(file, os.O_WRONLY)),
        lambda: os.close(os.open(file, os.O_RDWR | os.O_APPEND)),
        lambda: os.truncate(file, 0),
        lambda: file.chmod(0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: (union / "victim too").write_text("x"),  # two names: which one would be masked?
    ):
        assert errno_of(change) == errno.EROFS
    assert file.read_text() == "below file\n"


def test_what_is_below_cannot_be_removed(union):
    assert errno_of((union / "file").unlink) == errno.EROFS
    assert errno_of((union / "lone").rmdir) in (errno.EROFS, errno.ENOTEMPTY)
    assert (union / "file").exists()


def test_what_is_removed_from_the_top_shows_what_is_below_again(union):
    (union / "file").write_text("top\n")
    (union / "file").unlink()
    assert (union / "file").read_text() == "below file\n"
    (union / "both/same").unlink()
    assert (union / "both/same").read_text() == "below both/same\n"
    (union / "both").rmdir()  # empty on the top
    assert sorted(os.listdir(union / "both")) == ["below", "same"]
    assert errno_of((union / "both/same").unlink) == errno.EROFS


def test_nothing_moves_between_the_two(union):
    (union / "own").write_text("own\n")
    assert errno_of(lambda: os.rename(union / "file", union / "moved")) == errno.EXDEV
    assert errno_of(lambda: os.rename(union / "own", union / "lone/own")) == errno.EXDEV
    assert errno_of(lambda: os.rename(union / "lone/child", union / "deep/child")) == errno.EROFS
    assert errno_of(lambda: os.link(union / "file", union / "linked")) == errno.EXDEV
    os.rename(union / "own", union / "file")  # a name of the top goes over one that is only below
    assert (union / "file").read_text() == "own\n"
    os.rename(union / "both", union / "elsewhere")  # below there is no such path: only its own is in it
    assert os.listdir(union / "elsewhere") == ["same"]
    assert sorted(os.listdir(union / "both")) == ["below", "same"]


def test_what_happens_below_is_seen(tmp_path):
    path = tmp_path / "union"
    path.mkdir()
    held = os.open(path, os.O_RDONLY)
    assert dmgfs("ramdisk", path, "1024", "--union").code == 0
    try:
        assert os.listdir(path) == []
        descriptor = os.open("late", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=held)
        os.write(descriptor, b"came later\n")
        os.close(descriptor)
        assert (path / "late").read_text() == "came later\n"
        os.unlink("late", dir_fd=held)
        assert os.listdir(path) == []
        assert errno_of(lambda: (path / "late").read_text()) == errno.ENOENT
    finally:
        os.close(held)
        below(path)


# -- the other union ------------------------------------------------------------------------------------------------------

STEPS = """
echo new > file; echo more >> both/below; mkdir fresh; echo x > fresh/x; rm victim; rm -r deep; mkdir deep
mkdir -p lone/more; mv lone/child lone/renamed; chmod 700 both; ln -s there new-link; mv 'a link'\\''s name' moved
ln both/same again; : > both/empty; mkfifo fifo; chown 12:34 both/same; truncate -s 3 moved; rmdir fresh 2>/dev/null
touch -d @1000000000 lone; rm link; mkdir link; cp -a both copied; mv file both/file
"""


def shown(root: Path) -> list[tuple[object, ...]]:
    """Everything that both must agree on. The times of what was made now differ."""
    lines: list[tuple[object, ...]] = []
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = Path(folder, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            what = path.read_bytes() if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else b""
            links = status.st_nlink if name in ("again", "same") else 0
            lines.append(
                (str(path.relative_to(root)), oct(status.st_mode), status.st_uid, status.st_gid, what, links)
            )
    return sorted(lines, key=str)


def test_the_overlay_does_what_the_kernels_does(tmp_path):
    ours, lower, memory, theirs = (tmp_path / name for name in ("ours", "lower", "memory", "theirs"))
    for path in (ours, lower, memory, theirs):
        path.mkdir()
    fill(ours)
    fill(lower)
    assert dmgfs("ramdisk", ours, "4M", "--union=overlay").code == 0
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", memory], check=True)
    try:
        (memory / "upper").mkdir()
        (memory / "work").mkdir()
        options = f"lowerdir={lower},upperdir={memory}/upper,workdir={memory}/work"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", theirs, "-o", options], check=False)
        if done.returncode:
            pytest.skip("this kernel has no overlay")
        said = []
        for place in (ours, theirs):
            script = subprocess.run(["sh", "-x"], input=STEPS, text=True, cwd=place, capture_output=True, check=False)
            said.append([line for line in script.stderr.splitlines() if not line.startswith("+")])
        assert shown(ours) == shown(theirs)
        assert said[0] == said[1]
    finally:
        subprocess.run(["umount", "-lq", theirs], check=False)
        subprocess.run(["umount", "-l", memory], check=True)
        assert here("unmount", ours).code == 0
    assert (ours / "victim").read_text() == "below victim\n"
