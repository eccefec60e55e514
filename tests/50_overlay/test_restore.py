"""One object back to the lower's: after any operations, held against plain walks through everything."""

import errno
import os
import random
import re
from stat import S_ISDIR

import pytest
from builders.fault_disk import FaultDisk
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.overlay_state import state
from builders.overlay_walk import children, everything, facts, walk
from builders.refusal import refused
from builders.rough_use import forest, move_around

from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.stratum import Stratum
from overlay.vfs import run

CALLER = Caller()


def sound(overlay: Overlay, lower: LowerTree) -> None:
    """Link counts, parents, unique names, the books."""
    paths = walk(overlay)
    names: dict[int, int] = {}
    folders: dict[int, int] = {}
    for path, ino in paths.items():
        names[ino] = names.get(ino, 0) + 1
        if S_ISDIR(run(overlay.getattr(ino)).mode):
            inside = children(overlay, ino)
            assert len({lower.fold(name) for name in inside}) == len(inside), path
            folders[ino] = sum(S_ISDIR(run(overlay.getattr(child)).mode) for child in inside.values())
            above = run(overlay.lookup(ino, b"..")).ino
            assert above == paths[path.rpartition(b"/")[0]], path
    for ino, count in names.items():
        links = run(overlay.getattr(ino)).nlink
        assert links == (folders[ino] + 2 if ino in folders else count), (ino, links)
    tree = overlay.tree
    assert tree.weight == tree.weigh()
    for ino, node in tree.nodes.items():
        assert not node.attr.nlink or ino in names, ino


def inside(lower: Overlay, path: bytes) -> dict[bytes, int]:
    return {one: ino for one, ino in walk(lower).items() if one == path or one.startswith(path + b"/")}


def respelt(paths: dict[bytes, int], path: bytes) -> dict[bytes, int]:
    """With the directories above `path` in its spelling: they may have been renamed to another one, and stay so."""
    above = path.split(b"/")[:-1]
    found: dict[bytes, int] = {}
    for one, ino in paths.items():
        parts = one.split(b"/")
        for number, (part, wanted) in enumerate(zip(parts, above, strict=False)):
            if part.lower() != wanted.lower():
                break
            parts[number] = wanted
        found[b"/".join(parts)] = ino
    return found


def layered(tree: LowerTree, source: random.Random) -> Stratum:
    """The tree with changes that nobody takes back any more."""
    overlay = Overlay(tree, RamStore(1 << 28))
    move_around(overlay, source, 60)
    for ino in list(overlay.held):
        overlay.forget(ino, 1000)
    assert overlay.store is not None
    return Stratum(tree, overlay.tree, overlay.store)


@pytest.mark.parametrize(("seed", "layers"), [*((seed, 0) for seed in range(6)), (10, 1), (11, 1), (12, 1)])
def test_one_object_is_the_lowers_and_no_other_is_lost(seed: int, layers: int) -> None:
    source = random.Random(seed)
    tree = forest(case_sensitive=bool(seed % 2))
    below = layered(tree, source) if layers else tree
    overlay, lower = Overlay(below, RamStore(1 << 28)), Overlay(below)
    there = walk(lower)
    before_all = {path: facts(lower, ino) for path, ino in there.items()}
    candidates = [path for path in there if path]
    done = 0
    for step in range(60):
        move_around(overlay, source, 8)
        sound(overlay, tree)
        copy = overlay.freeze()
        was, then = everything(overlay), walk(overlay)
        path = source.choice(candidates)
        back = inside(lower, path)
        try:
            stale = run(overlay.restore(path))
        except OSError:
            assert everything(overlay) == was
            overlay.thaw(copy)
            continue
        done += 1
        now = walk(overlay)
        if not tree.case_sensitive:
            now, then = respelt(now, path), respelt(then, path)
        was = {one: was[old] for one, old in zip(then, was, strict=True)}
        for one, ino in back.items():
            assert now.get(one) == ino, one
            assert facts(overlay, ino) == before_all[one], one
        assert {one for one in now if one.startswith(path + b"/")} == back.keys() - {path}
        returned = set(back.values())
        for one, ino in then.items():
            if ino < below.end_ino and ino not in returned:
                assert ino in now.values(), one
                assert facts(overlay, ino)[4:7] == was[one][1][4:7]
            parts = one.split(b"/")
            above = {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
            covered = tree.fold(path) in map(tree.fold, above)
            if ino not in returned and not covered and not any(then[each] in returned for each in above):
                assert now.get(one) == ino, one
            if now.get(one) != ino:
                assert ino in stale.inodes or any(then[each] in stale.inodes for each in above), one
        sound(overlay, tree)
        assert list(everything(copy.view).values()) == list(was.values())
        overlay.thaw(copy)
        if step % 20 == 19:
            for ino in list(overlay.held):
                overlay.forget(ino, 1000)
            overlay.reset()
    assert done > 20
    overlay.reset()
    for ino in list(overlay.held):
        overlay.forget(ino, 1000)
    assert overlay.store.used == 0


# -- one by one ---------------------------------------------------------------------------------------------------------


def small() -> tuple[Overlay, LowerTree]:
    lower = LowerTree()
    first = lower.add_directory(lower.root, b"first")
    inner = lower.add_directory(first, b"inner")
    text = lower.add_file(inner, b"text", b"text")
    lower.link(lower.root, b"again", text)
    lower.add_file(lower.root, b"other", b"other")
    return Overlay(lower, RamStore(1 << 20)), lower


def at(overlay: Overlay, path: bytes) -> int:
    return walk(overlay)[path]


def test_a_file_that_was_changed_renamed_and_replaced() -> None:
    overlay, lower = small()
    root = overlay.root
    other = at(overlay, b"other")
    was = everything(overlay)
    run(overlay.setattr(other, mode=0o600))
    run(overlay.restore(b"other"))
    assert overlay.store.used == 0
    run(overlay.write(other, 0, b"OTHER"))
    run(overlay.rename(root, b"other", root, b"moved"))
    run(overlay.mkdir(root, b"other", 0o755, CALLER))
    stale = run(overlay.restore(b"/other/"))
    assert everything(overlay) == was
    assert {(root, b"other"), (root, b"moved")} <= set(stale.names)
    assert other in stale.inodes
    run(overlay.unlink(root, b"other"))
    run(overlay.restore(b"./other"))
    assert everything(overlay) == was
    sound(overlay, lower)


def test_open_files() -> None:
    overlay, _ = small()
    other = at(overlay, b"other")
    run(overlay.open(other, os.O_RDWR))
    run(overlay.write(other, 0, b"OTHER"))
    new = run(overlay.create(at(overlay, b"first"), b"new", 0o644, os.O_RDWR, CALLER)).ino
    run(overlay.write(new, 0, b"new" * 5000))
    run(overlay.restore(b"other"))
    assert bytes(run(overlay.read(other, 0, 10))) == b"other"
    run(overlay.write(other, 0, b"again"))
    assert bytes(run(overlay.read(other, 0, 10))) == b"again"
    run(overlay.restore(b"first"))
    assert bytes(run(overlay.read(new, 0, 20_000))) == b"new" * 5000
    assert run(overlay.getattr(new)).nlink == 0
    overlay.release(new)
    overlay.forget(new)
    with refused(errno.ESTALE):
        run(overlay.getattr(new))


def test_hard_links_of_which_one_comes_back() -> None:
    overlay, lower = small()
    inner = at(overlay, b"first/inner")
    text = at(overlay, b"again")
    run(overlay.unlink(overlay.root, b"again"))
    run(overlay.unlink(inner, b"text"))
    run(overlay.restore(b"again"))
    assert run(overlay.getattr(text)).nlink == 1
    sound(overlay, lower)
    run(overlay.restore(b"first"))
    assert run(overlay.getattr(text)).nlink == 2
    sound(overlay, lower)


def test_what_it_refuses_says_what_to_do() -> None:
    overlay, lower = small()
    root, first = overlay.root, at(overlay, b"first")

    def because(number: int, why: str, path: bytes) -> None:
        was = everything(overlay)
        with pytest.raises(OSError, match=re.escape(why), check=lambda error: error.errno == number):
            run(overlay.restore(path))
        assert everything(overlay) == was

    because(errno.ENOENT, "nothing is there now", b"nothing")
    because(errno.ENOENT, "nothing is there now", b"other/nothing")
    because(errno.EINVAL, "without ..", b"first/../other")
    run(overlay.mkdir(root, b"new", 0o755, CALLER))
    because(errno.ENOENT, "remove it with rm", b"new")
    run(overlay.rename(root, b"first", root, b"moved"))
    because(errno.ENOENT, "reset first", b"first/inner/text")
    because(errno.ENOENT, "the image has it as first: reset that", b"moved")
    run(overlay.write(at(overlay, b"again"), 0, b"TEXT"))
    run(overlay.restore(b"moved/inner/text"))
    assert bytes(run(overlay.read(at(overlay, b"again"), 0, 9))) == b"text"
    assert at(overlay, b"moved") == first
    run(overlay.rename(root, b"other", root, b"first"))
    run(overlay.mkdir(root, b"other", 0o755, CALLER))
    because(errno.EBUSY, "other of the image is in the way", b"first")
    run(overlay.rmdir(root, b"other"))
    run(overlay.restore(b"first"))
    assert at(overlay, b"first") == first
    assert b"other" in walk(overlay)
    sound(overlay, lower)


def test_two_that_were_exchanged() -> None:
    overlay, lower = small()
    was = everything(overlay)
    run(overlay.rename(overlay.root, b"first", overlay.root, b"other", 2))
    run(overlay.restore(b"other"))
    assert everything(overlay) == was
    sound(overlay, lower)


def test_a_directory_inside_of_what_was_inside_of_it() -> None:
    overlay, lower = small()
    root, first = overlay.root, at(overlay, b"first")
    was = everything(overlay)
    run(overlay.rename(first, b"inner", root, b"inner"))
    run(overlay.rename(root, b"first", at(overlay, b"inner"), b"first"))
    run(overlay.restore(b"first"))
    assert {path: fact for path, fact in everything(overlay).items() if path} == {
        path: fact for path, fact in was.items() if path
    }
    sound(overlay, lower)


def test_the_root_is_everything() -> None:
    overlay, _ = small()
    was = everything(overlay)
    run(overlay.unlink(overlay.root, b"other"))
    run(overlay.setattr(overlay.root, mode=0o700))
    run(overlay.restore(b"/"))
    assert everything(overlay) == was
    assert overlay.store.used == 0


def test_a_read_only_overlay_has_nothing_to_take_back() -> None:
    _, lower = small()
    with refused(errno.EROFS):
        run(Overlay(lower).restore(b"other"))


@pytest.mark.parametrize("seed", [0, 1])
def test_in_a_file_it_lasts(seed: int) -> None:
    """Also what came back over a name that had been removed."""
    source = random.Random(seed)
    disk, lower = FaultDisk(), forest(case_sensitive=True)
    overlay = Overlay(lower, FileStore(disk, {"image": "x"}))
    paths = sorted(path for path in walk(overlay) if path)
    done = 0
    for _ in range(40):
        move_around(overlay, source, 6)
        try:
            run(overlay.restore(source.choice(paths)))
            done += 1
        except OSError:
            continue
    assert done > 10
    for ino in list(overlay.held):
        overlay.forget(ino, 1000)
    before = state(overlay)
    overlay.close()
    store = FileStore(FaultDisk(bytes(disk.data)), {"image": "x"})
    assert state(Overlay(lower, store)) == before
    assert store.verify() == []


def test_a_file_of_the_first_version_becomes_one_of_the_second(tmp_path) -> None:
    """And may hold the new kinds of items then; an older program refuses it by name."""
    path = tmp_path / "old"
    _, lower = small()
    overlay = Overlay(lower, FileStore.open_file(path, {"image": "x"}))
    run(overlay.unlink(overlay.root, b"other"))
    was = state(overlay)
    overlay.close()
    data = bytearray(path.read_bytes())
    for place in range(2):
        data[place * 4096 : (place + 1) * 4096] = _as_first_version(bytes(data[place * 4096 : (place + 1) * 4096]))
    path.write_bytes(data)
    overlay = Overlay(lower, FileStore.open_file(path, {"image": "x"}, read_only=True))
    assert state(overlay) == was
    overlay.close()
    assert path.read_bytes()[:14] == b"dmgfs shadow 1"
    overlay = Overlay(lower, FileStore.open_file(path, {"image": "x"}))
    assert state(overlay) == was
    run(overlay.restore(b"other"))
    overlay.close()
    assert {path.read_bytes()[at : at + 14] for at in (0, 4096)} == {b"dmgfs shadow 2"}
    overlay = Overlay(lower, FileStore.open_file(path, {"image": "x"}))
    assert b"other" in walk(overlay)


def _as_first_version(block: bytes) -> bytes:
    import struct
    import zlib

    body = block[:13] + b"1" + block[14:4092]
    return body + struct.pack("<I", zlib.crc32(body))
