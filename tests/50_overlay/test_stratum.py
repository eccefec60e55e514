"""An overlay as the lower of another one: what the random runs of `test_stack_model` do not ask."""

import errno
import random
from stat import S_ISDIR

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller, Pair
from builders.overlay_state import state
from builders.random_operations import Choice, build

from overlay import acl
from overlay.check import check
from overlay.compact import compact
from overlay.disk import FileDisk
from overlay.errors import ShadowBase, ShadowDamaged, ShadowInUse
from overlay.file import FileStore
from overlay.fingerprint import fingerprint
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.stratum import Stratum
from overlay.superblock import Base, first_ino, layers_of, over
from overlay.tree import Tree
from overlay.vfs import FIRST_NEW_INODE, LAYER_INODES, run

IMAGE: Base = {"image": "x"}


def shuffled(seed: int, pair: Pair, operations: int) -> None:
    source = random.Random(seed)
    choice = Choice(
        pair,
        source.choice,
        lambda limit: source.randrange(max(1, limit)),
        lambda length: source.choice([bytes(length), source.randbytes(length)]),
    )
    for _ in range(operations):
        pair.call(*choice.operation())


def opened(path, base: Base, lower, **options) -> tuple[Stratum, Tree, FileStore]:
    store = FileStore.open_file(path, base, read_only=True, **options)
    tree = Tree(lower.end_ino)
    store.load(tree)
    return Stratum(lower, tree, store), tree, store


def names_in(lower) -> dict[int, set[tuple[int, bytes]]]:
    """inode → its names, by a walk through everything, a few entries at a time."""
    found: dict[int, set[tuple[int, bytes]]] = {}
    waiting = [lower.root]
    while waiting:
        directory = waiting.pop()
        after = None
        while True:
            listing = lower.readdir(directory, after, 3)
            for entry in listing.entries:
                assert lower.lookup(directory, entry.name) == entry
                assert lower.getattr(entry.ino) == entry.attr
                found.setdefault(entry.ino, set()).add((directory, entry.name))
                if S_ISDIR(entry.type):
                    assert lower.parent(entry.ino) == directory
                    waiting.append(entry.ino)
            after = listing.next
            if after is None:
                break
    return found


@pytest.mark.parametrize("seed", range(4))
def test_places_are_where_things_are(seed: int) -> None:
    pair = Pair(build(case_sensitive=bool(seed % 2)))
    for _ in range(3):
        shuffled(seed, pair, 200)
        pair.stack(RamStore(1 << 28))
        lower = pair.overlay.lower
        names = names_in(lower)
        known = 0
        for ino, places in names.items():
            place = lower.place(ino)
            assert place is None or {place} == places
            known += place is not None
        assert known > len(names) * 0.9
        for ino in pair.lower.things.keys() - names.keys() - {lower.root}:
            assert lower.place(ino) is None  # removed


def test_numbers_belong_to_one_layer_each() -> None:
    pair = Pair(LowerTree())
    made = []
    for number in range(4):
        made.append(pair.call("create", pair.overlay.root, b"file%d" % number, 0o644, 0))
        pair.stack(RamStore(1 << 20))
    assert made == [FIRST_NEW_INODE + number * LAYER_INODES for number in range(4)]
    for ino in (made[-1] + 1, pair.overlay.lower.end_ino):
        with pytest.raises(OSError, match="Stale") as caught:
            run(pair.overlay.getattr(ino))
        assert caught.value.errno == errno.ESTALE


def test_a_directory_whose_listing_is_hidden_is_empty() -> None:
    """Several batches with nothing in them."""
    lower = LowerTree()
    many = lower.add_directory(lower.root, b"many")
    for number in range(1000):
        lower.add_file(many, b"%04d" % number)
    pair = Pair(lower)
    pair.call("lookup", lower.root, b"many")
    for number in range(1000):
        pair.call("unlink", many, b"%04d" % number)
    pair.stack(RamStore(1 << 20))
    pair.compare()
    pair.call("lookup", lower.root, b"many")
    pair.call("rmdir", lower.root, b"many")
    pair.end()


def test_access_lists_show_through_and_can_be_removed() -> None:
    lower = LowerTree()
    file = lower.add_file(lower.root, b"file")
    rules = [acl.Rule(tag, 6, 5 if tag == acl.USER else 0xFFFFFFFF) for tag in (acl.USER_OBJ, acl.USER)]
    rules += [acl.Rule(tag, 4, 0xFFFFFFFF) for tag in (acl.GROUP_OBJ, acl.MASK, acl.OTHER)]
    value = acl.pack(rules)
    pair = Pair(lower)
    run(pair.overlay.setxattr(file, acl.ACCESS, value))
    run(pair.overlay.setxattr(lower.root, acl.DEFAULT, value))
    for store in (RamStore(1 << 20), RamStore(1 << 20)):
        below = Stratum(pair.overlay.lower, pair.overlay.tree, pair.store)
        pair.overlay, pair.store = Overlay(below, store), store
    overlay = pair.overlay
    assert run(overlay.getxattr(file, acl.ACCESS)) == value
    assert run(overlay.listxattr(file)) == [acl.ACCESS]
    made = run(overlay.mknod(lower.root, b"new", 0o100666, 0, Caller()))
    assert acl.USER in [rule.tag for rule in acl.parse(run(overlay.getxattr(made.ino, acl.ACCESS)))]
    run(overlay.setattr(file, mode=0o600))
    assert run(overlay.getxattr(file, acl.ACCESS)) != value
    run(overlay.removexattr(file, acl.ACCESS))
    with pytest.raises(OSError, match="No data") as caught:
        run(overlay.getxattr(file, acl.ACCESS))
    assert caught.value.errno == errno.ENODATA
    assert run(overlay.listxattr(file)) == []
    assert overlay.tree.weight == overlay.tree.weigh()


def test_a_file_of_a_layer_that_is_full_of_holes_stays_so() -> None:
    lower = LowerTree()
    whole = lower.add_file(lower.root, b"whole", b"x" * 40_960)
    pair = Pair(lower)
    holes = pair.call("create", lower.root, b"holes", 0o644, 0)
    pair.call("write", holes, 0, b"x" * 10_000, False)
    pair.call("truncate", holes, 1 << 24)
    pair.call("truncate", whole, 1 << 24)

    def blocks(ino: int) -> int:
        return run(pair.overlay.getattr(ino)).blocks

    for _ in range(3):
        assert (blocks(holes), blocks(whole)) == (3 * 8, 10 * 8)
        pair.call("lookup", lower.root, b"holes")
        pair.call("lookup", lower.root, b"whole")
        for ino in (holes, whole):
            before = blocks(ino)
            pair.call("write", ino, (1 << 25) + 5, b"y" * 4096, False)
            assert blocks(ino) == before + 2 * 8
            pair.call("truncate", ino, 1 << 24)
            assert blocks(ino) == before
        pair.compare()
        pair.stack(RamStore(1 << 20))


# -- in files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_files_on_files(seed: int, tmp_path) -> None:
    """Three files, each over the one before, written and then read."""
    pair = Pair(build(case_sensitive=bool(seed)), FileStore.open_file(tmp_path / "0", IMAGE))
    base = IMAGE
    for number in range(3):
        shuffled(seed, pair, 150)
        for ino, count in list(pair.model.held.items()):
            pair.forget(ino, count)
        pair.store.close()
        path = tmp_path / str(number)
        assert check(path).problems == []
        below, tree, store = opened(path, base, pair.overlay.lower)
        base = over(base, fingerprint(tree, store.sums))
        pair.store = FileStore.open_file(tmp_path / str(number + 1), base)
        pair.overlay = Overlay(below, pair.store, clock=lambda: pair.now)
        pair.model.next_ino = below.end_ino
        pair.end()
    assert len(layers_of(base)) == 3
    assert first_ino(base) == FIRST_NEW_INODE + 3 * LAYER_INODES
    shuffled(seed + 1, pair, 150)
    shown = state(pair.overlay)
    for ino, count in list(pair.model.held.items()):
        pair.forget(ino, count)
    pair.store.close()
    compacted = tmp_path / "compacted"
    compact(str(tmp_path / "3"), FileDisk(compacted, create=True, read_only=False)._fd)
    for path in (tmp_path / "3", compacted):
        assert check(path).problems == []
        top, _, _ = opened(path, base, pair.overlay.lower)
        assert state(Overlay(top)) == shown


def test_a_fingerprint_is_that_of_what_shows(tmp_path) -> None:
    def of(path) -> str:
        _, tree, store = opened(path, IMAGE, LowerTree())
        store.close()
        return fingerprint(tree, store.sums)

    path = tmp_path / "one"
    overlay = Overlay(LowerTree(), FileStore.open_file(path, IMAGE))
    file = run(overlay.create(overlay.root, b"file", 0o644, 0, Caller())).ino
    run(overlay.write(file, 0, b"x" * 20_000))
    overlay.close()
    was = of(path)
    overlay = Overlay(LowerTree(), FileStore.open_file(path, IMAGE))
    gone = run(overlay.mknod(overlay.root, b"gone", 0o100644, 0, Caller())).ino
    overlay.forget(gone)
    run(overlay.unlink(overlay.root, b"gone"))
    overlay.close()
    seen = {was, of(path)}
    assert len(seen) == 2  # the directory's times
    for change in (
        lambda it: run(it.write(file, 10_000, b"y")),
        lambda it: run(it.setattr(file, mode=0o600)),
        lambda it: run(it.setxattr(file, b"user.a", b"")),
        lambda it: run(it.rename(it.root, b"file", it.root, b"FILE")),
        lambda it: run(it.setattr(file, size=100)),
    ):
        overlay = Overlay(LowerTree(), FileStore.open_file(path, IMAGE), clock=lambda: 5)
        change(overlay)
        overlay.close()
        now = of(path)
        assert now not in seen
        seen.add(now)
        overlay = Overlay(LowerTree(), FileStore.open_file(path, IMAGE))
        overlay.close()
        assert of(path) == now  # opened for writing and left as it was


def test_a_layer_belongs_where_it_was_made(tmp_path) -> None:
    path, above = tmp_path / "one", over(IMAGE, "1" * 32)
    FileStore.open_file(path, above).close()
    store = FileStore.open_file(path, above)
    store.load(Tree(first_ino(above)))
    store.close()
    for base, said in (
        (IMAGE, f"made over the read-only layer {'1' * 32}, and here it would be over the image itself"),
        (over(IMAGE, "2" * 32), f"over the read-only layer {'2' * 32}"),
        (over(above, "2" * 32), f"over the read-only layers {'1' * 32}, {'2' * 32}"),
        ({"image": "y"}, "another image"),
        ({"disk": "x", "size": 5}, "of another kind: it records image, layers, and here there are disk, size"),
    ):
        for force in (False, True):
            if force and first_ino(base) == first_ino(above):
                FileStore.open_file(path, base, read_only=True, force_base=True).close()
                continue
            with pytest.raises(ShadowBase, match=said):
                FileStore.open_file(path, base, read_only=True, force_base=force)


def test_readers_share_a_file_and_writers_do_not(tmp_path) -> None:
    path = tmp_path / "one"
    Overlay(LowerTree(), FileStore.open_file(path, IMAGE)).close()
    one, other = (opened(path, IMAGE, LowerTree())[2] for _ in range(2))
    with pytest.raises(ShadowInUse):
        FileStore.open_file(path, IMAGE)
    one.close()
    other.close()
    writer = FileStore.open_file(path, IMAGE)
    with pytest.raises(ShadowInUse):
        opened(path, IMAGE, LowerTree())
    writer.close()


def test_a_layer_with_numbers_of_another_one_is_refused(tmp_path) -> None:
    path = tmp_path / "one"
    store = FileStore.open_file(path, IMAGE)
    tree = Tree()
    tree.next_ino = FIRST_NEW_INODE + LAYER_INODES + 1
    store.load(tree)
    store.close()
    with pytest.raises(ShadowDamaged, match="none of its own"):
        opened(path, IMAGE, LowerTree())
