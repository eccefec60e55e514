"""A name spelled anew: `mv readme README` on a volume that takes both for one, through a kernel that would do nothing."""

import ctypes
import errno
import os
import subprocess
import threading
import unicodedata
from pathlib import Path

import pytest
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel

AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2


@pytest.fixture
def folded(image, place):
    """Case-insensitive, writable."""
    with mounted(image, place, "--shadow", "ram:16M"):
        yield place


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mv(old: Path, new: Path) -> None:
    subprocess.run(["mv", old, new], check=True)


def mv_inside(old: Path, new: Path) -> None:
    subprocess.run(["mv", old.name, new.name], check=True, cwd=old.parent)


def mv_slash(old: Path, new: Path) -> None:
    slash = "/" if old.is_dir() else ""
    subprocess.run(["mv", f"{old}{slash}", f"{new}{slash}"], check=True)


def by_descriptor(old: Path, new: Path) -> None:
    descriptor = os.open(old.parent, os.O_RDONLY)
    try:
        os.rename(old.name, new.name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    finally:
        os.close(descriptor)


def in_a_thread(old: Path, new: Path) -> None:
    thread = threading.Thread(target=os.rename, args=(old, new))
    thread.start()
    thread.join()


def shell(old: Path, new: Path) -> None:
    subprocess.run(
        ["python3", "-c", "import os, sys; os.rename(*sys.argv[1:])", f"./{old.name}", new],
        check=True,
        cwd=old.parent,
    )


WAYS = {
    "mv": mv,
    "mv inside": mv_inside,
    "mv with slashes": mv_slash,
    "rename": os.rename,
    "renameat": by_descriptor,
    "renameat2": lambda old, new: renameat2(old, new, 0),
    "renameat2 noreplace": lambda old, new: renameat2(old, new, NOREPLACE),
    "thread": in_a_thread,
    "relative and absolute": shell,
}


def listed(folder: Path, name: str) -> list[str]:
    return [one for one in os.listdir(folder) if one.casefold() == name.casefold()]


def check(folder: Path, name: str, inode: int, spellings: list[str]) -> None:
    assert listed(folder, name) == [name]
    for spelling in spellings:
        assert (folder / spelling).stat().st_ino == inode, spelling
    assert listed(folder, name) == [name]


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back(folded, way):
    """A file and a folder of the image, new ones, and one of two hard links; spellings used before and not."""
    (folded / "new").write_text("new")
    (folded / "new folder").mkdir()
    for name in ("ReadMe", "Folder", "new", "new folder", "first name"):
        inode = (folded / name).stat().st_ino
        spellings = [name, name.upper(), name.lower(), name.title(), name.swapcase()]
        last = name
        for number, spelling in enumerate([name.upper(), name.lower(), name.swapcase(), name]):
            if number == 1:
                assert all((folded / one).exists() for one in spellings)
            old = last if number != 2 else last.title()  # not as it is listed
            WAYS[way](folded / old, folded / spelling)
            check(folded, spelling, inode, spellings)
            last = spelling
        (folded / name.upper()).rename(folded / "elsewhere")
        assert not any(os.path.lexists(folded / one) for one in spellings)
        (folded / "elsewhere").rename(folded / "gone by")
        subprocess.run(["rm", "-r", folded / "gone by"], check=True)


def test_by_way_of_pyfuse3(image, place):
    with mounted(image, place, "--shadow", "ram:16M", "--requests", "pyfuse3"):
        mv(place / "ReadMe", place / "README")
        os.rename(place / "Folder", place / "folder")
        assert {"README", "folder"} <= set(os.listdir(place))


def test_what_a_folder_holds_stays(folded):
    descriptor = os.open(folded / "Folder" / "inner" / "deep", os.O_RDONLY)
    os.chdir(folded / "Folder")
    try:
        mv(folded / "Folder", folded / "FOLDER")
        assert os.path.exists("INNER/deep")
        assert os.read(descriptor, 10) == b"deep\n"
        assert os.readlink("/proc/self/cwd") == str(folded / "FOLDER")
    finally:
        os.chdir("/")
        os.close(descriptor)
    assert (folded / "folder" / "inner" / "deep").read_text() == "deep\n"


def test_deep_below(folded):
    mv(folded / "Folder" / "inner", folded / "Folder" / "INNER")
    mv(folded / "folder" / "inner" / "deep", folded / "folder" / "inner" / "DEEP")
    assert os.listdir(folded / "Folder" / "inner") == ["DEEP"]
    assert listed(folded / "Folder", "inner") == ["INNER"]


def test_composed_and_decomposed(folded):
    folder = folded / "Folder"
    for form in ("NFD", "NFC"):
        os.rename(folder / "Übergröße", folder / unicodedata.normalize(form, "ÜBERGRÖSSE".replace("SS", "ß")))
        assert [name for name in os.listdir(folder) if name.startswith(("Ü", "U"))]
        os.rename(folder / "ÜBERGRÖßE", folder / "Übergröße")
    assert "Übergröße" in os.listdir(folder)


def test_what_is_no_respelling_is_as_it_was(folded):
    """Another file of that name replaced, an exchange, two hard links, the spelling that it has, another directory."""
    with pytest.raises(FileExistsError):
        renameat2(folded / "other", folded / "README", NOREPLACE)
    renameat2(folded / "other", folded / "README", EXCHANGE)
    assert (folded / "ReadMe").read_bytes() == b"other\n" * 1000
    renameat2(folded / "readme", folded / "README", EXCHANGE)
    assert listed(folded, "readme") == ["ReadMe"]
    os.rename(folded / "README", folded / "ReadMe")
    assert listed(folded, "readme") == ["ReadMe"]
    os.link(folded / "ReadMe", folded / "second")
    os.rename(folded / "ReadMe", folded / "SECOND")
    assert listed(folded, "second") == ["second"]
    assert listed(folded, "readme") == ["ReadMe"]
    (folded / "Folder" / "readme").write_text("from below")
    os.rename(folded / "Folder" / "README", folded / "README")
    assert (folded / "ReadMe").read_text() == "from below"
    assert listed(folded / "Folder", "readme") == []
    with pytest.raises(OSError, match="argument") as caught:
        os.rename(folded / "Folder", folded / "FOLDER" / "folder")
    assert caught.value.errno == errno.EINVAL
    (folded / "Folder" / "folder").mkdir()
    os.rename(folded / "FOLDER" / "folder", folded / "FOLDER" / "FOLDER")  # in doubt nothing happens
    assert os.path.isdir(folded / "Folder" / "Folder")


def test_it_survives_in_a_shadow_file(image, place, tmp_path):
    shadow = tmp_path / "changes.shadow"
    with mounted(image, place, "--shadow", shadow):
        mv(place / "ReadMe", place / "README")
        mv(place / "Folder", place / "folder")
    with mounted(image, place, "--shadow", shadow):
        assert {"README", "folder"} <= set(os.listdir(place))


def test_read_only_stays_read_only(image, place):
    with mounted(image, place), pytest.raises(OSError, match="Read-only"):
        os.rename(place / "ReadMe", place / "other name")
    with mounted(image, place):
        assert listed(place, "readme") == ["ReadMe"]
