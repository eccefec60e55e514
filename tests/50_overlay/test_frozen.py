"""Frozen copies, what differs from the lower, and the layer of the changes: after any operations, held against plain
walks through everything."""

import errno
import os
import random
from stat import S_ISDIR

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller, Pair
from builders.overlay_walk import everything, facts, walk
from builders.refusal import refused
from builders.rough_use import forest, move_around
from builders.shuffled import shuffled

from overlay.check import check
from overlay.compact import compact
from overlay.diff import differences
from overlay.file import FileStore
from overlay.layer import GONE, OPAQUE, layer
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.save import save
from overlay.vfs import run


def let_go(pair: Pair, frozen: list[tuple[object, object]]) -> None:
    while frozen:
        pair.overlay.thaw(frozen.pop()[0])


# -- copies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_stays_what_it_was(seed: int) -> None:
    """While the live overlay changes at random; and copies come and go in any order."""
    source = random.Random(seed)
    pair, choice = shuffled(seed, case_sensitive=bool(seed % 2))
    frozen: list[tuple[object, object]] = []
    for step in range(600):
        pair.call(*choice.operation())
        if step % 60 == 30:
            copy = pair.overlay.freeze()
            frozen.append((copy, everything(copy.view)))
            assert frozen[-1][1] == everything(pair.overlay)
        if step % 90 == 80:
            copy, was = frozen.pop(source.randrange(len(frozen)))
            assert everything(copy.view) == was
            pair.overlay.thaw(copy)
        assert pair.store.used <= pair.store.budget
    for copy, was in frozen:
        assert everything(copy.view) == was
    let_go(pair, frozen)
    assert pair.overlay._state.tree.copies == 0
    pair.end()


def test_a_copy_takes_no_page_and_gives_back_what_only_it_had() -> None:
    pair, _ = shuffled(0, case_sensitive=True)
    parent = pair.overlay.root
    ino = pair.call("create", parent, b"big", 0o644, 0)
    pair.call("write", ino, 0, b"x" * 4096 * 100, False)
    before = pair.store.used
    copy = pair.overlay.freeze()
    assert pair.store.used - before < 2000
    pair.call("write", ino, 4096, b"y" * 4096, False)
    assert 4096 <= pair.store.used - before < 4096 + 4000
    pair.call("write", ino, 8192, b"part", False)  # in the middle of a shared page
    assert 8192 <= pair.store.used - before < 8192 + 4000
    assert bytes(run(copy.view.read(ino, 4096, 8192))) == b"x" * 8192
    pair.call("unlink", parent, b"big")
    pair.forget(ino, pair.model.held[ino])
    assert pair.store.used > 4096 * 100
    assert bytes(run(copy.view.read(ino, 4096, 8192))) == b"x" * 8192
    pair.overlay.thaw(copy)
    assert pair.store.used < 20_000
    for name in (b"file", b"a", b"x.y"):  # objects that the copy had, too
        pair.call("unlink", parent, name)
    assert pair.store.used == pair.overlay.tree.weigh()
    pair.end()


def test_a_copy_that_the_budget_does_not_allow() -> None:
    pair, _ = shuffled(0, case_sensitive=True, budget=1 << 16)
    for number in range(70):
        pair.call("create", pair.overlay.root, b"new%d" % number, 0o644, 0)
    used = pair.store.used
    while pair.store.used + 105 * 71 <= pair.store.budget:
        pair.overlay.freeze()
    with pytest.raises(OSError, match="No space"):
        pair.overlay.freeze()
    assert pair.store.used - used < 1 << 16
    assert pair.store.used <= pair.store.budget


# -- what differs -------------------------------------------------------------------------------------------------------


def explained(lower: Overlay, now: Overlay) -> None:
    """Every line is true, and between them they say everything."""
    old, new = walk(lower), walk(now)
    lines = list(differences(now.changes()))
    assert len({(line.kind, line.path) for line in lines}) == len(lines)
    put = {line.path: line for line in lines if line.kind in ("added", "renamed") or "replaced" in line.what}
    gone = {line.path for line in lines if line.kind == "deleted" or "replaced" in line.what}
    gone |= {line.source for line in lines if line.source is not None}
    same = {line.path: line for line in lines if line.kind in ("changed", "metadata")}

    def above(path: bytes) -> list[bytes]:
        parts = path.split(b"/")
        return [b"/".join(parts[:count]) for count in range(1, len(parts) + 1)]

    for line in lines:
        if line.kind == "deleted":
            assert line.path in old
            assert new.get(line.path) != old[line.path]
            continue
        assert new[line.path] == line.ino
        if line.kind == "added":
            assert old.get(line.path) != line.ino
        if line.source is not None:
            assert old[line.source] == line.ino
    for path, ino in new.items():
        if old.get(path) != ino:
            assert any(part in put for part in above(path)), path
    for path, ino in old.items():
        if new.get(path) != ino:
            assert any(part in gone for part in above(path)), path
    for path, ino in new.items():
        if ino in old.values():
            before, after = facts(lower, ino), facts(now, ino)
            if path in put:
                if before != after:
                    assert put[path].what, path
            elif before != after:
                assert path in same, path
                assert before[4] == after[4] or "content" in same[path].what
            if path in same and "replaced" not in same[path].what and "content" not in same[path].what:
                assert before != after, path


@pytest.mark.parametrize("seed", range(8))
def test_differences_explain_exactly_what_differs(seed: int) -> None:
    pair, choice = shuffled(100 + seed, case_sensitive=bool(seed % 2), layers=max(0, seed - 5))
    lower = Overlay(pair.overlay.lower)
    for _ in range(12):
        for _ in range(20):
            pair.call(*choice.operation())
        explained(lower, pair.overlay)
    pair.end()


def said(pair: Pair) -> list[tuple[object, ...]]:
    return [(line.kind, line.path, line.source, line.what) for line in differences(pair.overlay.changes())]


def test_the_words() -> None:
    lower = LowerTree()
    first = lower.add_directory(lower.root, b"first")
    inner = lower.add_directory(first, b"inner")
    text = lower.add_file(inner, b"text", b"text")
    other = lower.add_file(lower.root, b"other", b"other")
    lower.add_file(lower.root, b"third", b"third")
    pair = Pair(lower)
    root = lower.root
    assert said(pair) == []
    for ino, name in ((root, b"first"), (first, b"inner"), (inner, b"text"), (root, b"other"), (root, b"third")):
        pair.call("lookup", ino, name)
    pair.call("write", text, 0, b"TEXT", False)
    assert said(pair) == [("changed", b"first/inner/text", None, ("content", "times"))]
    pair.call("rename", root, b"first", root, b"moved", 0)
    assert said(pair) == [
        ("renamed", b"moved", b"first", ()),
        ("changed", b"moved/inner/text", None, ("content", "times")),
    ]
    pair.call("chmod", other, 0o600)
    pair.call("unlink", root, b"third")
    pair.call("create", root, b"new", 0o644, 0)
    pair.call("link", other, inner, b"again")
    assert set(said(pair)) == {
        ("deleted", b"third", None, ()),
        ("metadata", b"other", None, ("mode",)),
        ("added", b"new", None, ()),
        ("renamed", b"moved", b"first", ()),
        ("added", b"moved/inner/again", None, ("link", "mode")),
        ("changed", b"moved/inner/text", None, ("content", "times")),
    }
    pair.call("rename", root, b"moved", root, b"first", 0)
    pair.call("create", root, b"third", 0o644, 0)
    assert ("changed", b"third", None, ("replaced",)) in said(pair)
    assert not any(line[0] == "renamed" for line in said(pair))


# -- the layer ----------------------------------------------------------------------------------------------------------


def applied(lower: Overlay, now: Overlay) -> dict[bytes, object]:
    """The lower with the layer put over it, as a tool that knows of paths only does it."""
    tree: dict[bytes, object] = {path: (facts(lower, ino), ino) for path, ino in walk(lower).items()}

    def remove(path: bytes, *, itself: bool) -> None:
        for old in [old for old in tree if old.startswith(path + b"/") or (itself and old == path)]:
            del tree[old]

    out: set[bytes] = {b""}
    for member in layer(now):
        parent, _, name = member.path.rpartition(b"/")
        assert parent in out, f"{member.path!r} comes before its directory"
        if name == OPAQUE:
            remove(parent, itself=False)
        elif member.attr is None:
            assert name.startswith(GONE)
            gone = parent + b"/" + name[len(GONE) :] if parent else name[len(GONE) :]
            assert gone in tree, f"{gone!r} was not there"
            remove(gone, itself=True)
        else:
            assert member.path not in out or not member.path
            out.add(member.path)
            if not S_ISDIR(member.attr.mode) and member.path in tree:
                remove(member.path, itself=True)
            ino = member.attr.ino
            if member.link is not None:
                assert tree[member.link][1] == ("layer", ino)
            tree[member.path] = facts(now, ino), ("layer", ino)
    return tree


def links(tree: dict[bytes, object]) -> set[frozenset[bytes]]:
    groups: dict[object, set[bytes]] = {}
    for path, (fact, identity) in tree.items():
        if not S_ISDIR(fact[0]):
            groups.setdefault(identity, set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


@pytest.mark.parametrize("seed", range(16))
def test_the_layer_over_the_lower_is_what_the_overlay_shows(seed: int) -> None:
    pair, choice = shuffled(200 + seed, case_sensitive=bool(seed % 2), layers=max(0, seed - 12))
    lower = Overlay(pair.overlay.lower)
    for _ in range(10):
        for _ in range(25):
            pair.call(*choice.operation())
        wanted = {path: (facts(pair.overlay, ino), ino) for path, ino in walk(pair.overlay).items()}
        got = applied(lower, pair.overlay)
        assert {path: fact for path, (fact, _) in got.items()} == {path: fact for path, (fact, _) in wanted.items()}
        assert links(got) == links(wanted)
    pair.end()


def test_a_layer_of_nothing_is_empty() -> None:
    pair, _ = shuffled(1, case_sensitive=True)
    assert list(layer(pair.overlay)) == []


# -- back ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_back_to_a_snapshot_and_back_to_the_lower(seed: int) -> None:
    """Again and again, in any order, with objects held by the kernel; and in the end no page and no byte is lost."""
    source = random.Random(seed)
    tree = forest(case_sensitive=bool(seed % 2))
    overlay = Overlay(tree, RamStore(1 << 28))
    lower = everything(Overlay(tree))
    taken: dict[bytes, object] = {}
    for number in range(8):
        move_around(overlay, source, 30)
        overlay.snapshot(b"%d" % number)
        taken[b"%d" % number] = everything(overlay)
        name = source.choice(sorted(taken))
        overlay.rollback(name)
        assert everything(overlay) == taken[name]
        assert overlay.tree.weight == overlay.tree.weigh()
        same(overlay, taken)
        if source.random() < 0.5:
            gone = source.choice(sorted(taken))
            overlay.delete_snapshot(gone)
            del taken[gone]
    overlay.reset()
    assert everything(overlay) == lower
    same(overlay, taken)
    for name in taken:
        overlay.delete_snapshot(name)
    for ino in overlay.held:
        overlay.forget(ino, overlay._state.holds[ino])
    assert not overlay.tree.nodes
    assert overlay.store.used == 0


def same(overlay: Overlay, taken: dict[bytes, object]) -> None:
    assert list(overlay.snapshots()) == list(taken)
    for name, one in overlay.snapshots().items():
        assert everything(one.view) == taken[name], name


def test_names_of_snapshots() -> None:
    pair, _ = shuffled(0, case_sensitive=True)
    overlay = pair.overlay
    overlay.snapshot(b"one")
    for call, name, number in (
        (overlay.snapshot, b"one", errno.EEXIST),
        (overlay.snapshot, b"", errno.EINVAL),
        (overlay.snapshot, b"n" * 256, errno.EINVAL),
        (overlay.rollback, b"two", errno.ENOENT),
        (overlay.delete_snapshot, b"two", errno.ENOENT),
        (Overlay(pair.lower).snapshot, b"one", errno.EROFS),
    ):
        with refused(number):
            call(name)
    for count in range(99):
        overlay.snapshot(b"%d" % count)
    with refused(errno.ENOSPC):
        overlay.snapshot(b"one too many")


def test_open_files_survive_a_reset() -> None:
    pair, _ = shuffled(0, case_sensitive=True)
    overlay = pair.overlay
    ino = pair.call("create", overlay.root, b"new", 0o644, 0)
    pair.call("write", ino, 0, b"y" * 10_000, False)
    stale = overlay.reset()
    assert ino in stale.inodes
    assert (overlay.root, b"new") in stale.names
    assert run(overlay.getattr(ino)).nlink == 0
    assert bytes(run(overlay.read(ino, 0, 20_000))) == b"y" * 10_000
    overlay.forget(ino)
    with pytest.raises(OSError, match="Stale"):
        run(overlay.getattr(ino))
    assert pair.store.used == 0


# -- saved --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_what_is_saved_is_the_same_in_a_file(seed: int, tmp_path) -> None:
    pair, choice = shuffled(400 + seed, case_sensitive=bool(seed % 2))
    for _ in range(300):
        pair.call(*choice.operation())
    path = tmp_path / "saved"
    store = FileStore.open_file(path, {"image": "x"})
    save(pair.overlay, store)
    store.close()
    assert check(path).problems == []
    smaller = tmp_path / "compacted"
    compact(str(path), os.open(smaller, os.O_RDWR | os.O_CREAT))
    assert check(smaller).problems == []
    smaller.rename(path)
    again = Overlay(pair.lower, FileStore.open_file(path, {"image": "x"}))
    assert everything(again) == everything(pair.overlay)
    assert run(again.mknod(again.root, b"one more", 0o100644, 0, Caller())).ino >= pair.overlay.tree.next_ino
    again.close()


def test_a_file_that_was_cut_off_when_it_was_closed_can_be_read(tmp_path) -> None:
    """Its log told of pages that are gone."""
    pair, _ = shuffled(0, case_sensitive=True)
    path = tmp_path / "shadow"
    for pages in (1, 5, 50, 500, 5000):
        overlay = Overlay(pair.lower, FileStore.open_file(path, {"image": "x"}))
        for name in (b"one", b"two"):
            ino = run(overlay.mknod(overlay.root, name, 0o100644, 0, Caller())).ino
            run(overlay.write(ino, 0, b"x" * 4096 * pages))
            run(overlay.fsync())
        for name in (b"one", b"two"):
            run(overlay.unlink(overlay.root, name))
        for held in overlay.held:
            overlay.forget(held, 1)
        overlay.close()
        assert check(path).problems == []
    assert path.stat().st_size < 4 << 20
