"""Read-only overlays, late shadows, damaged lowers, holds, refusals that change nothing."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller, Pair
from builders.refusal import refused

from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.vfs import Steps, run

CALLER = Caller()


def small() -> LowerTree:
    lower = LowerTree()
    directory = lower.add_directory(2, b"d")
    lower.add_file(directory, b"f", b"content" * 2000)
    lower.add_file(2, b"other", b"x")
    return lower


CHANGES: dict[str, Callable[[Overlay], Steps[Any]]] = {
    "create": lambda o: o.create(2, b"new", 0o644, os.O_RDWR, CALLER),
    "mknod": lambda o: o.mknod(2, b"new", 0o100644, 0, CALLER),
    "mkdir": lambda o: o.mkdir(2, b"new", 0o755, CALLER),
    "symlink": lambda o: o.symlink(2, b"new", b"t", CALLER),
    "link": lambda o: o.link(4, 2, b"new"),
    "unlink": lambda o: o.unlink(3, b"f"),
    "rmdir": lambda o: o.rmdir(2, b"d"),
    "rename": lambda o: o.rename(2, b"d", 2, b"e"),
    "write": lambda o: o.write(4, 5, b"x"),
    "truncate": lambda o: o.setattr(4, size=3),
    "chmod": lambda o: o.setattr(4, mode=0o600),
    "open to write": lambda o: o.open(4, os.O_RDWR),
    "open and truncate": lambda o: o.open(4, os.O_TRUNC),
    "setxattr": lambda o: o.setxattr(4, b"user.x", b"1"),
    "removexattr": lambda o: o.removexattr(4, b"user.x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_without_a_store_every_change_is_refused(change: Callable[[Overlay], Steps[Any]]) -> None:
    overlay = Overlay(small())
    assert not overlay.writable
    with refused(errno.EROFS):
        run(change(overlay))
    assert run(overlay.statfs()).free_blocks == 0
    assert not overlay._state.tree.nodes


def test_a_store_can_come_later() -> None:
    overlay = Overlay(small())
    ino = run(overlay.lookup(3, b"f")).ino
    run(overlay.open(ino))
    store = RamStore(1 << 20)
    overlay.attach(store)
    assert overlay.writable
    run(overlay.write(ino, 0, b"CON"))
    assert bytes(run(overlay.read(ino, 0, 7))) == b"CONtent"
    with refused(errno.EBUSY):
        overlay.attach(RamStore(1 << 20))
    assert run(overlay.statfs()).free_blocks == (store.budget - store.used) // 4096


def test_reading_leaves_no_trace() -> None:
    lower = small()
    overlay = Overlay(lower, RamStore(1 << 20))
    for ino in (run(overlay.lookup(2, b"d")).ino, run(overlay.lookup(3, b"f")).ino):
        overlay.forget(ino)
    run(overlay.open(4))
    assert run(overlay.read(4, 13_990, 100)) == b"ontentcontent"[-10:]
    assert run(overlay.read(4, 14_000, 100)) == b""
    overlay.release(4)
    handle = run(overlay.opendir(3))
    run(overlay.readdir(handle, 0))
    overlay.releasedir(handle)
    assert not overlay._state.tree.nodes
    assert not overlay._state.opened
    assert not overlay._handles
    assert not overlay._state.holds._blocks


@pytest.mark.parametrize("change", ["write", "truncate", "chmod", "unlink", "rename", "link", "setxattr"])
def test_damage_below_passes_through_and_changes_nothing(change: str) -> None:
    lower = small()
    overlay = Overlay(lower, RamStore(1 << 20))
    run(overlay.lookup(3, b"f"))
    for ino in (3, 4):
        lower.things[ino].damaged = True
    with refused(errno.EIO):
        run(CHANGES[change](overlay))
    assert not overlay._state.tree.nodes


def test_a_damaged_object_is_listed_and_cannot_be_had() -> None:
    lower = small()
    lower.things[4].damaged = True
    overlay = Overlay(lower, RamStore(1 << 20))
    handle = run(overlay.opendir(3))
    (entry,) = run(overlay.readdir(handle, 2))
    assert (entry.name, entry.ino, entry.attr) == (b"f", 4, None)
    with refused(errno.EIO):
        run(overlay.lookup(3, b"f"))
    assert not overlay._state.holds[4]


def test_an_object_without_names_lives_while_it_is_held() -> None:
    overlay = Overlay(small(), RamStore(1 << 20))
    run(overlay.lookup(3, b"f"))
    run(overlay.lookup(3, b"f"))
    run(overlay.open(4))
    run(overlay.unlink(3, b"f"))
    assert run(overlay.getattr(4)).nlink == 0
    assert bytes(run(overlay.read(4, 0, 7))) == b"content"
    run(overlay.write(4, 0, b"C"))
    with pytest.raises(FileNotFoundError):
        run(overlay.link(4, 2, b"back"))
    overlay.forget(4)
    assert bytes(run(overlay.read(4, 0, 7))) == b"Content"
    overlay.release(4)
    overlay.forget(4)
    assert 4 not in overlay._state.tree.nodes


def test_nothing_can_be_made_in_a_removed_directory() -> None:
    overlay = Overlay(small(), RamStore(1 << 20))
    run(overlay.lookup(2, b"d"))
    run(overlay.unlink(3, b"f"))
    run(overlay.rmdir(2, b"d"))
    with pytest.raises(FileNotFoundError):
        run(overlay.mkdir(3, b"x", 0o755, CALLER))
    with pytest.raises(FileNotFoundError):
        run(overlay.rename(2, b"other", 3, b"x"))
    with pytest.raises(FileNotFoundError):
        run(overlay.lookup(3, b"f"))
    handle = run(overlay.opendir(3))
    assert [entry.name for entry in run(overlay.readdir(handle, 0))] == [b".", b".."]


def test_create_opens_what_is_there_unless_it_must_not() -> None:
    overlay = Overlay(small(), RamStore(1 << 20))
    attr = run(overlay.create(2, b"other", 0o600, os.O_RDWR, CALLER))
    assert (attr.ino, attr.mode & 0o777, attr.size) == (5, 0o644, 1)
    assert run(overlay.create(2, b"other", 0o600, os.O_RDWR | os.O_TRUNC, CALLER)).size == 0
    with pytest.raises(FileExistsError):
        run(overlay.create(2, b"other", 0o600, os.O_RDWR | os.O_EXCL, CALLER))
    assert overlay._state.holds[5] == 2
    assert overlay._state.opened[5].count == 2


def fill(pair: Pair) -> None:
    """Pages first, then names, until nothing more goes in."""
    ino = pair.call("create", 2, b"filler", 0o644, 0)
    offset = 0
    for size in (1 << 16, 4096, 100):
        while not isinstance(pair.call("write", ino, offset, os.urandom(size), False), OSError):
            offset += size
    number = 0
    while not isinstance(pair.call("create", 2, b"%d" % number, 0o644, 0), OSError):
        number += 1


def test_a_full_store_refuses_whole_operations_and_can_be_emptied() -> None:
    lower = small()
    pair = Pair(lower, RamStore(1 << 20))
    for parent, name in ((2, b"d"), (3, b"f"), (2, b"other")):
        pair.call("lookup", parent, name)
    fill(pair)
    pair.compare()
    assert pair.store.budget - 20_000 < pair.store.used <= pair.store.budget
    for operation in (
        ("write", 4, 100, b"x" * 9000, False),
        ("mkdir", 2, b"n", 0o755, 0),
        ("symlink", 2, b"n", b"t" * 500),
        ("link", 4, 2, b"n" * 100),
        ("setxattr", 4, b"user.x", b"v" * 1000, 0),
        ("rename", 3, b"f", 2, b"moved" * 40, 0),
    ):
        assert pair.call(*operation).errno == errno.ENOSPC, operation
    pair.compare()
    for name in list(pair.model.things[3].children):
        pair.call("unlink", 3, name)
    pair.call("rmdir", 2, b"d")
    for name in [name for name, _ in pair.model.things[2].children.values()]:
        pair.call("unlink", 2, name)
    for ino, count in list(pair.model.held.items()):
        pair.forget(ino, count)
    assert pair.refused < 20
    assert pair.store.used < 2000
    pair.end()


def test_the_budget_can_be_changed_while_in_use() -> None:
    store = RamStore(100_000)
    overlay = Overlay(small(), store)
    with refused(errno.ENOSPC):
        run(overlay.write(4, 0, os.urandom(200_000)))
    store.resize(1 << 20)
    run(overlay.write(4, 0, os.urandom(200_000)))
    with refused(errno.ENOSPC):
        store.resize(100_000)
    assert store.budget == 1 << 20
