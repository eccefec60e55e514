"""Listings under change, names in other spellings, moved directories."""

import errno
from collections.abc import Iterator

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.refusal import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.vfs import DirEntry, run

CALLER = Caller()


def listing(overlay: Overlay, ino: int, limit: int) -> Iterator[DirEntry]:
    handle = run(overlay.opendir(ino))
    after = 0
    while part := run(overlay.readdir(handle, after, limit)):
        yield from part
        after = part[-1].next
    overlay.releasedir(handle)


def names(overlay: Overlay, ino: int, limit: int = 50) -> set[bytes]:
    return {entry.name for entry in listing(overlay, ino, limit)} - {b".", b".."}


def full(case_sensitive: bool = True) -> tuple[Overlay, int, set[bytes]]:
    """A directory with 300 names of the lower and 300 new ones."""
    lower = LowerTree(case_sensitive)
    directory = lower.add_directory(2, b"full")
    for number in range(300):
        lower.add_file(directory, b"lower%03d" % number)
    overlay = Overlay(lower, RamStore(1 << 24))
    for number in range(300):
        run(overlay.mknod(directory, b"new%03d" % number, 0o100644, 0, CALLER))
    return overlay, directory, {b"%s%03d" % (kind, number) for kind in (b"lower", b"new") for number in range(300)}


@pytest.mark.parametrize("limit", [1, 2, 7, 128, 1000])
def test_rm_r_while_listing_misses_nothing(limit: int) -> None:
    overlay, directory, _ = full()
    for entry in listing(overlay, directory, limit):
        if entry.name not in (b".", b".."):
            run(overlay.unlink(directory, entry.name))
    assert names(overlay, directory) == set()
    run(overlay.rmdir(2, b"full"))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 299)), st.sets(st.integers(0, 299)), st.integers(0, 700))
def test_what_stays_is_listed_exactly_once(limit: int, gone: set[int], added: set[int], moment: int) -> None:
    overlay, directory, there = full()
    seen: list[bytes] = []
    for count, entry in enumerate(listing(overlay, directory, limit)):
        seen.append(entry.name)
        if count == moment:
            for number in gone:
                run(overlay.unlink(directory, b"lower%03d" % number))
                run(overlay.unlink(directory, b"new%03d" % number))
            for number in added:
                run(overlay.mknod(directory, b"later%03d" % number, 0o100644, 0, CALLER))
    assert len(seen) == len(set(seen))
    removed = {b"%s%03d" % (kind, number) for kind in (b"lower", b"new") for number in gone}
    assert there - removed <= set(seen)
    assert not {name for name in seen if name.startswith(b"later")} or moment >= 600


def test_cookies_can_be_returned_to() -> None:
    """seekdir: every cookie leads to what followed it, in any order of visits, also in a handle that has not been there."""
    overlay, directory, _ = full()
    everything = list(listing(overlay, directory, 50))
    handle = run(overlay.opendir(directory))
    run(overlay.readdir(handle, 0, 10))
    for position in [500, 3, 290, 130, 599, 0, 301, 299, 128, 64]:
        part = run(overlay.readdir(handle, everything[position].next, 5))
        assert [entry.name for entry in part] == [entry.name for entry in everything[position + 1 : position + 6]]
    assert run(overlay.readdir(handle, everything[-1].next, 5)) == []


def test_a_listing_that_renames_comes_to_an_end() -> None:
    overlay, directory, _ = full()
    moved = 0
    for entry in listing(overlay, directory, 16):
        if entry.name not in (b".", b".."):
            run(overlay.rename(directory, entry.name, directory, entry.name + b"'"))
            moved += 1
    assert moved <= 1200
    assert len(names(overlay, directory)) == 600


def test_a_huge_directory_is_never_held_whole() -> None:
    lower = LowerTree()
    directory = lower.add_directory(2, b"huge")
    for number in range(3000):
        lower.add_file(directory, b"%05d" % number)
    overlay = Overlay(lower, RamStore(1 << 22))
    handle = run(overlay.opendir(directory))
    after, count = 0, 0
    while part := run(overlay.readdir(handle, after, 40)):
        count += len(part)
        after = part[-1].next
        assert len(overlay._handles[handle].batch) <= 128
    assert count == 3002
    assert len([asked for asked in lower.asked if asked.startswith("readdir")]) <= 3000 // 128 + 2


def test_dot_and_dotdot_follow_a_moved_directory() -> None:
    lower = LowerTree()
    one = lower.add_directory(2, b"one")
    two = lower.add_directory(2, b"two")
    inner = lower.add_directory(one, b"inner")
    overlay = Overlay(lower, RamStore(1 << 20))
    run(overlay.rename(one, b"inner", two, b"moved"))
    found = {entry.name: entry.ino for entry in listing(overlay, inner, 10)}
    assert found == {b".": inner, b"..": two}
    assert run(overlay.lookup(inner, b"..")).ino == two
    assert (run(overlay.getattr(one)).nlink, run(overlay.getattr(two)).nlink) == (2, 3)


def test_a_directory_cannot_be_moved_into_itself() -> None:
    lower = LowerTree()
    one = lower.add_directory(2, b"one")
    two = lower.add_directory(one, b"two")
    three = lower.add_directory(two, b"three")
    lower.add_file(2, b"file")
    overlay = Overlay(lower, RamStore(1 << 20))
    for flags in (0, 1):
        for into in (one, two, three):
            with refused(errno.EINVAL):
                run(overlay.rename(2, b"one", into, b"x", flags))
    for source, target in (((2, b"one"), (two, b"three")), ((two, b"three"), (2, b"one"))):
        with refused(errno.EINVAL):
            run(overlay.rename(*source, *target, 2))
    with refused(errno.ENOTEMPTY):
        run(overlay.rename(two, b"three", 2, b"one"))


def test_moving_a_directory_of_the_image_asks_for_nothing_inside_it() -> None:
    lower = LowerTree()
    one = lower.add_directory(2, b"one")
    for number in range(500):
        lower.add_file(one, b"%d" % number)
    overlay = Overlay(lower, RamStore(1 << 20))
    used = overlay._state.tree.weight
    run(overlay.rename(2, b"one", 2, b"two"))
    assert not [asked for asked in lower.asked if asked.startswith(("readdir", "open"))]
    assert overlay._state.tree.weight - used < 3000
    assert len(names(overlay, one)) == 500
    assert run(overlay.lookup(2, b"two")).ino == one


def test_another_spelling_is_the_same_name() -> None:
    lower = LowerTree(case_sensitive=False)
    ino = lower.add_file(2, b"Read Me")
    overlay = Overlay(lower, RamStore(1 << 20))
    assert run(overlay.lookup(2, b"READ ME")).name == b"Read Me"
    for make in (overlay.mkdir(2, b"read me", 0o755, CALLER), overlay.symlink(2, b"read me", b"x", CALLER)):
        with pytest.raises(FileExistsError):
            run(make)
    run(overlay.rename(2, b"read me", 2, b"READ me"))
    assert names(overlay, 2) == {b"READ me"}
    assert run(overlay.lookup(2, b"read me")).ino == ino
    run(overlay.rename(2, b"READ me", 2, b"Read Me", 1))
    assert names(overlay, 2) == {b"Read Me"}
    run(overlay.unlink(2, b"rEAD mE"))
    assert names(overlay, 2) == set()
    for spelling in (b"Read Me", b"READ me", b"read me"):
        with pytest.raises(FileNotFoundError):
            run(overlay.lookup(2, spelling))
    run(overlay.mkdir(2, b"READ ME", 0o755, CALLER))
    assert names(overlay, 2) == {b"READ ME"}


def test_two_names_that_fold_alike_are_hidden_one_by_one() -> None:
    """A volume may hold both forms of a name; its own lookup finds each by its exact spelling."""

    class Twins(LowerTree):
        def fold(self, name: bytes) -> bytes:
            return name if self.building else name.lower()

        building = True

    lower = Twins()
    lower.add_file(2, b"twin", b"small")
    lower.add_file(2, b"TWIN", b"GREAT")
    overlay = Overlay(lower, RamStore(1 << 20))
    lower.lookup = lambda parent, name: lower._entry(*lower.things[2].children[name])  # type: ignore[method-assign]
    lower.building = False
    run(overlay.unlink(2, b"twin"))
    assert names(overlay, 2) == {b"TWIN"}
    assert run(overlay.lookup(2, b"TWIN")).attr is not None
    with pytest.raises(FileNotFoundError):
        run(overlay.lookup(2, b"twin"))


def test_long_names_of_the_lower_are_found_and_new_ones_end_at_255() -> None:
    lower = LowerTree()
    ino = lower.add_file(2, b"x" * 600)
    overlay = Overlay(lower, RamStore(1 << 20))
    assert run(overlay.lookup(2, b"x" * 600)).ino == ino
    for length in (256, 601, 766):
        with refused(errno.ENAMETOOLONG):
            run(overlay.lookup(2, b"x" * length))
    run(overlay.rename(2, b"x" * 600, 2, b"y" * 255))
    assert names(overlay, 2) == {b"y" * 255}
    assert run(overlay.statfs()).name_max == 255
