"""An overlay and its model side by side: every operation is done on both and must end alike, also when it was suspended
at a question to the lower while others ran. `compare` looks at everything there is.
"""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import Any

from builders.lower_tree import LowerTree
from builders.overlay_model import Model, Thing
from overlay.overlay import Overlay
from overlay.pages import Run, is_stored, pages_in
from overlay.ram import RamStore
from overlay.squeezed import GROUP_BITS, SqueezedStore
from overlay.store import Store
from overlay.stratum import Stratum
from overlay.tree import File
from overlay.vfs import FIRST_NEW_INODE, Ask, Steps, run

FREEING = {"unlink", "rmdir", "removexattr"}


@dataclass
class Caller:
    umask: int = 0o022
    uid: int = 5
    gid: int = 7
    pid: int = 1


class Pair:
    """now: the clock of both. `call` is an operation at once; `start` begins one, `Pending.go` moves it on."""

    def __init__(self, lower: LowerTree, store: Store | None = None) -> None:
        self.lower = lower
        self.before = lower.checksum()
        self.model = Model(lower)
        self.now = 1 << 60
        self.store = store if store is not None else RamStore(1 << 28)
        self.overlay = Overlay(lower, self.store, clock=lambda: self.now)
        self.opened: dict[int, int] = {}
        self.snapshots: dict[bytes, dict[int, Thing]] = {}
        self.refused = 0

    def stack(self, store: Store) -> None:
        """What was changed so far becomes a layer for reading, changes go to an empty store above it. The kernel is a new
        one that knows nothing."""
        for ino, count in list(self.model.held.items()):
            self.forget(ino, count)
        below = Stratum(self.overlay.lower, self.overlay.tree, self.store)
        self.store = store
        self.overlay = Overlay(below, store, clock=lambda: self.now)
        self.model.next_ino = below.end_ino
        for thing in self.model.things.values():
            thing.below = len(thing.data)
            thing.data.touched.clear()

    def close(self, killed: bool = False) -> None:
        """The process ends, in good order or killed."""
        for ino, count in list(self.model.held.items()):
            self.model.forget(ino, count)
            if not killed:
                self.overlay.forget(ino, count)
        if not killed:
            self.overlay.close()

    def open(self, store: Store) -> None:
        """Another process, with what the last one wrote."""
        self.store = store
        self.overlay = Overlay(self.lower, store, clock=lambda: self.now)

    def snapshot(self, name: bytes) -> None:
        self.overlay.snapshot(name)
        self.snapshots[name] = self.model.keep()

    def rollback(self, name: bytes) -> None:
        """What is of the lower and was deleted then is let go of first: nobody remembers that it was."""
        for ino, count in list(self.model.held.items()):
            if ino not in self.snapshots[name] and ino < FIRST_NEW_INODE:
                self.forget(ino, count)
        self.overlay.rollback(name)
        self.model.go_back(self.snapshots[name])

    def delete_snapshot(self, name: bytes) -> None:
        self.overlay.delete_snapshot(name)
        del self.snapshots[name]

    # -- one operation on both -----------------------------------------------------------------------------------------

    def _steps(self, operation: str, arguments: tuple[Any, ...]) -> Steps[Any]:
        overlay = self.overlay
        match operation:
            case "create":
                parent, name, mode, umask = arguments
                return overlay.mknod(parent, name, mode, 0, Caller(umask))
            case "mknod":
                parent, name, mode, rdev, umask = arguments
                return overlay.mknod(parent, name, mode, rdev, Caller(umask))
            case "mkdir":
                parent, name, mode, umask = arguments
                return overlay.mkdir(parent, name, mode, Caller(umask))
            case "symlink":
                return overlay.symlink(*arguments, Caller())
            case "write":
                *most, clear = arguments
                return overlay.write(*most, clear_setid=clear)
            case "truncate":
                return overlay.setattr(arguments[0], size=arguments[1])
            case "chmod":
                return overlay.setattr(arguments[0], mode=arguments[1])
            case "chown":
                return overlay.setattr(arguments[0], uid=arguments[1], gid=arguments[2])
            case "utimens":
                return overlay.setattr(arguments[0], atime_ns=arguments[1], mtime_ns=arguments[2])
        steps: Steps[Any] = getattr(overlay, operation)(*arguments)
        return steps

    @staticmethod
    def _plain(operation: str, result: Any) -> Any:
        """The overlay's answer in the words of the model."""
        if operation == "lookup":
            return result.name, result.ino
        if operation in ("create", "mknod", "mkdir", "symlink", "link"):
            return result.ino
        if operation == "read":
            return bytes(result)
        if operation == "listxattr":
            assert len(set(result)) == len(result)
            return set(result)
        if operation in ("truncate", "chmod", "chown", "utimens"):
            return None
        return result

    def finish(self, operation: str, arguments: tuple[Any, ...], result: Any) -> Any:
        """The overlay has ended with `result` (an OSError if it failed): the model must say the same."""
        if isinstance(result, OSError) and result.errno == errno.ENOSPC:
            assert operation not in FREEING, f"{operation}{arguments}: no room to free room"
            self.refused += 1
            return result
        try:
            expected = getattr(self.model, operation)(*arguments)
        except OSError as failure:
            expected = failure
        if isinstance(expected, OSError) or isinstance(result, OSError):
            seen = result.errno if isinstance(result, OSError) else result
            wanted = expected.errno if isinstance(expected, OSError) else expected
            assert seen == wanted, f"{operation}{arguments}: {seen} instead of {wanted}"
            return result
        result = self._plain(operation, result)
        assert result == expected, f"{operation}{arguments}: {result!r} instead of {expected!r}"
        return result

    def tick(self) -> None:
        self.now += 1
        self.model.now = self.now

    def call(self, operation: str, *arguments: Any) -> Any:
        self.tick()
        result: Any
        try:
            result = run(self._steps(operation, arguments))
        except OSError as failure:
            result = failure
        return self.finish(operation, arguments, result)

    def start(self, operation: str, *arguments: Any) -> "Pending":
        return Pending(self, operation, arguments)

    def forget(self, ino: int, count: int) -> None:
        self.overlay.forget(ino, count)
        self.model.forget(ino, count)

    # -- everything ----------------------------------------------------------------------------------------------------

    def list(self, ino: int, limit: int = 100) -> dict[bytes, Any]:
        handle = run(self.overlay.opendir(ino))
        entries: dict[bytes, Any] = {}
        after = 0
        while part := run(self.overlay.readdir(handle, after, limit)):
            assert len(part) <= max(limit, 2)
            for entry in part:
                assert entry.next > after
                after = entry.next
                assert entry.name not in entries
                entries[entry.name] = entry
        self.overlay.releasedir(handle)
        return entries

    def compare(self, limit: int = 100) -> None:
        model = self.model
        for ino, thing in model.things.items():
            attr = run(self.overlay.getattr(ino))
            assert attr.ino == ino
            assert (attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev) == (
                thing.mode, thing.nlink, thing.uid, thing.gid, thing.rdev,
            ), f"inode {ino}"  # fmt: skip
            assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (thing.atime, thing.mtime, thing.ctime), (
                f"inode {ino}"
            )
            names = run(self.overlay.listxattr(ino))
            assert {name: run(self.overlay.getxattr(ino, name)) for name in names} == thing.xattrs
            if S_ISDIR(thing.mode):
                self._compare_directory(ino, limit)
            elif S_ISLNK(thing.mode):
                assert run(self.overlay.readlink(ino)) == thing.target
            elif S_ISREG(thing.mode):
                assert attr.size == len(thing.data)
                for offset, length in thing.data.places():
                    data = bytes(run(self.overlay.read(ino, offset, length)))
                    assert data == thing.data.read(offset, length), f"inode {ino}: content differs at {offset}"
                self._compare_blocks(ino, attr.blocks)
        self.audit()

    def _compare_blocks(self, ino: int, blocks: int) -> None:
        """A file takes what was written, and holes take nothing."""
        thing = self.model.things[ino]
        assert blocks <= pages_in(len(thing.data)) * 8
        if self.overlay._state.tree.file(ino) is not None:
            solid = thing.data.solid
            assert blocks >= (solid * 8 if solid > 1 else solid)
            assert blocks <= (pages_in(thing.below) + len(thing.data.touched)) * 8

    def _compare_directory(self, ino: int, limit: int) -> None:
        thing = self.model.things[ino]
        entries = self.list(ino, limit)
        assert entries.pop(b".").ino == ino
        above = entries.pop(b"..")
        if thing.nlink:
            assert above.ino == thing.parent
        assert {(name, entry.ino) for name, entry in entries.items()} == set(thing.children.values())
        for name, entry in entries.items():
            assert entry.attr == run(self.overlay.getattr(entry.ino)), name
            assert entry.type == entry.attr.mode & 0o170000

    def _kept(self) -> Iterable[Run]:
        """Runs of slots that only copies refer to."""
        return [kept.run for kept in self.overlay._state.history.keeps._kept]

    def audit(self) -> None:
        """The books: weights, slots, and the lower as it was."""
        tree = self.overlay._state.tree
        assert tree.weight == tree.weigh()
        assert not tree.freed
        slots: set[int] = set()
        for node in tree.nodes.values():
            if isinstance(node.body, File) and node.body.pages is not None:
                stored = 0
                for run_ in node.body.pages.walk():
                    if is_stored(run_.slot):
                        stored += run_.length
                        more = set(range(run_.slot, run_.slot + run_.length))
                        assert not more & slots
                        slots |= more
                assert stored == node.body.pages.stored
        if isinstance(self.store, RamStore):
            store = self.store
            kept = {slot for run_ in self._kept() for slot in range(run_.slot, run_.slot + run_.length)}
            assert not kept & slots
            slots |= kept
            assert store._pages == len(slots)
            arena = store.arena
            free = {slot for first, length in arena.slots.extents() for slot in range(first, first + length)}
            stale = {slot for _, first, length in arena.stale for slot in range(first, first + length)}
            dead = _audit_groups(store, slots) if isinstance(store, SqueezedStore) else set()
            assert not free & slots
            assert not stale & (slots | free)
            assert not dead & (slots | free | stale)
            assert len(slots) + len(free) + len(stale) + len(dead) == arena.segments * 16383
            assert self.store.used <= self.store.budget
        assert set(tree.nodes) <= set(self.model.things)

    def end(self) -> None:
        self.compare()
        assert self.lower.checksum() == self.before


def _audit_groups(store: SqueezedStore, slots: set[int]) -> set[int]:
    """The books of a store that packs, beside the slots in use; the slots that nobody can have while others of their group
    are packed."""
    dead: set[int] = set()
    packed = vaulted = 0
    for number, group in store._groups.items():
        members = range(number << GROUP_BITS, (number + 1) << GROUP_BITS)
        alive = {slot for index, slot in enumerate(members) if group.alive >> index & 1}
        assert alive == slots & set(members)
        assert len(alive) * 4096 >= group.slots * 4096
        dead |= set(members) - alive
        packed += len(alive)
        vaulted += group.slots
    assert store.squeezed[0] == packed == store._squeezed
    assert store._vaulted == vaulted
    vault = store._vault
    assert vaulted + vault.slots.free + sum(run.length for run in vault.stale) == vault.segments * 16383
    for number, live in enumerate(store._live):
        if number not in store._groups:
            assert live == sum(slot in slots for slot in range(number << GROUP_BITS, (number + 1) << GROUP_BITS))
    tree = store._tree
    assert store.used == tree.weight + tree.copies + (len(slots) - packed + vaulted) * 4096 + 400 * len(store._groups)
    return dead


class Pending:
    """An operation that waits for the lower. It takes effect when its last answer has come."""

    def __init__(self, pair: Pair, operation: str, arguments: tuple[Any, ...]) -> None:
        self.pair = pair
        self.operation = operation
        self.arguments = arguments
        self.steps = pair._steps(operation, arguments)
        self.ask: Ask | None = None
        self.done = False
        self._advance(lambda: next(self.steps))

    def _advance(self, resume: Callable[[], Ask]) -> None:
        self.pair.tick()
        result: Any
        try:
            self.ask = resume()
            return
        except StopIteration as end:
            result = end.value
        except OSError as failure:
            result = failure
        self.done = True
        self.pair.finish(self.operation, self.arguments, result)

    def go(self) -> None:
        """One answer of the lower."""
        assert self.ask is not None
        answer: Any
        try:
            answer = self.ask.function(*self.ask.arguments)
            resume = self.steps.send
        except OSError as failure:
            answer = failure
            resume = self.steps.throw
        self._advance(lambda: resume(answer))
