"""Changes taken back, all or those of one object, while the mount is used."""

import os

import pytest
from exercise.daemon import becomes
from exercise.mounted import dmgfs
from exercise.shadowed import change, facts, refused, shadow, start, unmount, used

pytestmark = pytest.mark.kernel


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
