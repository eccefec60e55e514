"""A volume that takes `readme` and `README` for one name, through a kernel that keeps every spelling apart: no spelling may
show what is gone, or hide what is there, however the name was last used."""

import errno
import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel


@pytest.fixture
def folded(image, place):
    """Case-insensitive, writable."""
    with mounted(image, place, "--shadow", "ram:16M"):
        yield place


@pytest.fixture
def exact(sensitive_image, place):
    """Case-sensitive, writable; names still have a composed and a decomposed spelling."""
    with mounted(sensitive_image, place, "--shadow", "ram:16M"):
        yield place


def gone(*paths: Path) -> bool:
    return not any(os.path.lexists(path) for path in paths)


def test_removed_under_another_spelling(folded):
    one, two = folded / "ReadMe", folded / "README"
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_ino == two.stat().st_ino
    two.unlink()
    assert gone(one, two)


def test_removed_under_its_own_spelling(folded):
    one, two = folded / "ReadMe", folded / "readme"
    assert two.read_bytes() == b"read me\n"
    one.unlink()
    assert gone(two, one)


def test_not_there_and_then_made(folded):
    one, two = folded / "New", folded / "nEW"
    assert gone(one, two)
    one.touch()
    assert two.exists()
    two.unlink()
    assert gone(one)
    two.mkdir()
    assert one.is_dir()
    one.rmdir()
    assert gone(one, two)


def test_renamed_under_another_spelling(folded):
    one, two, new = folded / "ReadMe", folded / "README", folded / "x"
    assert one.exists()
    assert two.exists()
    two.rename(new)
    assert gone(one, two)
    assert (folded / "X").read_bytes() == b"read me\n"


def test_replaced_under_another_spelling(folded):
    assert (folded / "ReadMe").exists()
    (folded / "other").rename(folded / "README")
    assert (folded / "ReadMe").read_bytes() == b"other\n" * 1000
    assert gone(folded / "other", folded / "OTHER")


def test_made_anew_under_another_spelling(folded):
    (folded / "ReadMe").unlink()
    (folded / "README").write_text("new")
    assert (folded / "ReadMe").read_text() == "new"
    assert "README" in os.listdir(folded)
    assert "ReadMe" not in os.listdir(folded)


def test_a_folder_removed_under_another_spelling(folded):
    (folded / "dir").mkdir()
    assert (folded / "DIR").is_dir()
    assert (folded / "dir").is_dir()
    (folded / "Dir").rmdir()
    assert gone(folded / "dir", folded / "DIR", folded / "Dir")


def test_a_folder_renamed_under_another_spelling_keeps_what_it_holds(folded):
    assert (folded / "Folder" / "inner" / "deep").exists()
    (folded / "FOLDER").rename(folded / "moved")
    assert gone(folded / "Folder", folded / "folder")
    assert (folded / "Moved" / "INNER" / "Deep").read_bytes() == b"deep\n"


def test_exclusive_creation_sees_every_spelling(folded):
    for name in ("ReadMe", "README", "readme"):
        with pytest.raises(FileExistsError):
            os.close(os.open(folded / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with pytest.raises(FileExistsError):
        (folded / "README").mkdir()


def test_composed_and_decomposed_are_one(exact):
    composed = exact / unicodedata.normalize("NFC", "Größe")
    decomposed = exact / unicodedata.normalize("NFD", "Größe")
    assert gone(composed, decomposed)
    composed.write_text("1")
    assert decomposed.read_text() == "1"
    assert os.listdir(exact).count(composed.name) + os.listdir(exact).count(decomposed.name) == 1
    decomposed.unlink()
    assert gone(composed, decomposed)


def test_the_semicolon_has_a_twin(exact):
    plain, twin = exact / "a;b", exact / "a\u037eb"
    assert gone(plain, twin)
    twin.touch()
    assert plain.exists()
    plain.unlink()
    assert gone(plain, twin)


def test_case_is_told_apart_where_the_volume_does(exact):
    (exact / "README").write_text("other file")
    assert (exact / "ReadMe").read_bytes() == b"read me\n"
    (exact / "README").unlink()
    assert (exact / "ReadMe").exists()
    assert gone(exact / "README")


def test_absent_names_appear_when_made(exact):
    """The kernel remembers that these are absent."""
    for number in range(3):
        assert gone(exact / "absent")
        if number == 0:
            (exact / "absent").touch()
        elif number == 1:
            (exact / "other").rename(exact / "absent")
        else:
            os.link(exact / "ReadMe", exact / "absent")
        assert (exact / "absent").exists()
        (exact / "absent").unlink()


SPELLINGS = ["a", "A", "bb", "Bb", "BB", "c\u00e9", "c\u0065\u0301", "C\u00c9", "d;", "D\u037e"]


def folding(name: str) -> str:
    return unicodedata.normalize("NFD", name).lower()


class Model:
    """What one directory holds: folded name → (spelling, contents; None: a folder)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, tuple[str, bytes | None]] = {}

    def expect(self, number: int, act: Callable[[], object]) -> None:
        with pytest.raises(OSError, match=r".") as caught:
            act()
        assert caught.value.errno == number

    def write(self, name: str, text: bytes) -> None:
        known = self.names.get(folding(name))
        path = self.root / name
        if known is not None and known[1] is None:
            self.expect(errno.EISDIR, lambda: path.write_bytes(text))
            return
        path.write_bytes(text)
        self.names[folding(name)] = (known[0] if known else name, text)

    def mkdir(self, name: str) -> None:
        if folding(name) in self.names:
            self.expect(errno.EEXIST, (self.root / name).mkdir)
            return
        (self.root / name).mkdir()
        self.names[folding(name)] = (name, None)

    def remove(self, name: str) -> None:
        known = self.names.pop(folding(name), None)
        path = self.root / name
        if known is None:
            self.expect(errno.ENOENT, path.unlink)
        elif known[1] is None:
            path.rmdir()
        else:
            path.unlink()

    def rename(self, old: str, new: str) -> None:
        source, target = self.names.get(folding(old)), self.names.get(folding(new))
        act = lambda: (self.root / old).rename(self.root / new)  # noqa: E731
        if source is None:
            self.expect(errno.ENOENT, act)
        elif folding(old) == folding(new):
            act()
            if old != new:  # the kernel does not ask
                self.names[folding(new)] = (new, source[1])
        elif target is not None and (source[1] is None) != (target[1] is None):
            self.expect(errno.ENOTDIR if source[1] is None else errno.EISDIR, act)
        else:
            act()
            del self.names[folding(old)]
            self.names[folding(new)] = (new, source[1])

    def check(self, name: str) -> None:
        known = self.names.get(folding(name))
        path = self.root / name
        if known is None:
            assert gone(path), f"{name!r} shows what is gone"
        elif known[1] is None:
            assert path.is_dir(), f"{name!r} is hidden"
        else:
            assert path.read_bytes() == known[1], f"{name!r} shows something else"


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence(folded, seed):
    dice = random.Random(seed)
    (folded / "place").mkdir()
    model = Model(folded / "place")
    for step in range(700):
        name, other = dice.choice(SPELLINGS), dice.choice(SPELLINGS)
        match dice.randrange(6):
            case 0 | 1:
                model.write(name, b"%d" % step)
            case 2:
                model.mkdir(name)
            case 3 | 4:
                model.remove(name)
            case 5:
                model.rename(name, other)
        for _ in range(4):
            model.check(dice.choice(SPELLINGS))
        if step % 10 == 0:
            assert sorted(os.listdir(model.root)) == sorted(spelling for spelling, _ in model.names.values())
