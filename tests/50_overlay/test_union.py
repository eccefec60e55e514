"""BSD's union against a model by paths: the same results and errors for any operations, and the same tree afterwards."""

import errno
import os
from stat import S_ISDIR

from builders.lower_tree import ROOT as BELOW_ROOT
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.bare import ROOT, BareLower
from overlay.ram import RamStore
from overlay.union import Union
from overlay.vfs import Attr, run

CALLER = Caller()
NAMES = [b"a", b"b", b"c"]

Path = tuple[bytes, ...]
Tree = dict[Path, bytes | None]
"""Path → contents, None for a directory. The root is not in it."""


def below_tree() -> tuple[LowerTree, Tree]:
    lower = LowerTree()
    known: Tree = {}

    def directory(path: Path, parent: int) -> int:
        known[path] = None
        return lower.add_directory(parent, path[-1])

    def file(path: Path, parent: int) -> None:
        known[path] = b"below " + b"/".join(path)
        lower.add_file(parent, path[-1], known[path])

    a = directory((b"a",), BELOW_ROOT)
    file((b"a", b"a"), a)
    inner = directory((b"a", b"b"), a)
    file((b"a", b"b", b"a"), inner)
    file((b"b",), BELOW_ROOT)
    return lower, known


class Model:
    """What BSD says, in a few lines: top first, then below by the same path; nothing below changes."""

    def __init__(self, below: Tree) -> None:
        self.below = below
        self.top: Tree = {}

    def _is_top_directory(self, path: Path) -> bool:
        return not path or self.top.get(path, b"") is None

    def sees(self, path: Path) -> tuple[bool, bytes | None] | None:
        """(whether on top, contents) of what a look-up by path finds."""
        for end in range(1, len(path)):
            part = path[:end]
            found = self.top[part] if part in self.top else self.below.get(part, b"")
            if found is not None:
                return None
            if part not in self.top:
                # From here on the look-up is below: nothing of the top lies in a directory that is only below.
                return (False, self.below[path]) if path in self.below else None
        if path in self.top:
            return True, self.top[path]
        parents_below = all(self.below.get(path[:end], b"") is None for end in range(1, len(path)))
        return (False, self.below[path]) if path in self.below and parents_below else None

    def make(self, path: Path, contents: bytes | None) -> int:
        parent = path[:-1]
        if not self._is_top_directory(parent) or (parent and self.sees(parent) is None):
            return errno.EROFS
        if path in self.top:
            return errno.EEXIST
        self.top[path] = contents
        return 0

    def remove(self, path: Path, *, directory: bool) -> int:
        if path not in self.top:
            return errno.EROFS if self.sees(path) is not None else errno.ENOENT
        if (self.top[path] is None) != directory:
            return errno.ENOTDIR if directory else errno.EISDIR
        if any(other[:-1] == path for other in self.top):
            return errno.ENOTEMPTY
        del self.top[path]
        return 0

    def move(self, old: Path, new: Path) -> int:
        from_top, to_top = old in self.top, self._is_top_directory(new[:-1])
        if not from_top and self.sees(old) is None:
            return errno.ENOENT
        if from_top != to_top:
            return errno.EXDEV
        if not from_top:
            return errno.EROFS
        if new == old:
            return 0
        if new[: len(old)] == old:
            return errno.EINVAL
        if new in self.top:
            ours, theirs = self.top[old], self.top[new]
            if (ours is None) != (theirs is None):
                return errno.ENOTDIR if ours is None else errno.EISDIR
            if any(other[:-1] == new for other in self.top):
                return errno.ENOTEMPTY
            del self.top[new]
        for path in [path for path in self.top if path[: len(old)] == old]:
            self.top[new + path[len(old) :]] = self.top.pop(path)
        return 0


def look_up(union: Union, path: Path) -> int | None:
    ino = union.root
    for name in path:
        try:
            ino = run(union.lookup(ino, name)).ino
        except (FileNotFoundError, NotADirectoryError):
            return None
    return ino


def outcome(operation, *arguments) -> int:
    try:
        run(operation(*arguments))
    except OSError as error:
        return error.errno
    return 0


def contents(union: Union, ino: int) -> bytes | None:
    if S_ISDIR(run(union.getattr(ino)).mode):
        return None
    run(union.open(ino))
    data = bytes(run(union.read(ino, 0, 1000)))
    union.release(ino)
    return data


def check(union: Union, model: Model, paths: list[Path]) -> None:
    for path in paths:
        want = model.sees(path)
        ino = look_up(union, path)
        assert (ino is None) == (want is None), path
        if ino is None or want is None:
            continue
        assert union.is_below(ino) != want[0], path
        assert contents(union, ino) == want[1], path
        if want[1] is None:
            handle = run(union.opendir(ino))
            names: list[bytes] = []
            after = 0
            while entries := run(union.readdir(handle, after, 2)):
                names += [entry.name for entry in entries if entry.name not in (b".", b"..")]
                after = entries[-1].next
            union.releasedir(handle)
            assert len(names) == len(set(names)), path
            assert set(names) == {name for name in NAMES if model.sees((*path, name)) is not None}, path


PATHS = (
    [(a,) for a in NAMES]
    + [(a, b) for a in NAMES for b in NAMES]
    + [(a, b, c) for a in NAMES for b in NAMES for c in NAMES]
)
path = st.sampled_from(PATHS)
operation = st.one_of(
    st.tuples(st.sampled_from(["mkdir", "create", "unlink", "rmdir", "write", "mask"]), path, path),
    st.tuples(st.just("rename"), path, path),
)


@given(st.lists(operation, max_size=14))
@settings(max_examples=50, deadline=None)
def test_any_operations_do_what_the_model_says(operations):
    lower, known = below_tree()
    root = Attr(ROOT, 0o40755, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    union = Union(BareLower(root, {}), lower, RamStore(1 << 20))
    model = Model(known)
    for what, one, other in operations:
        parent = look_up(union, one[:-1])
        if parent is None or contents(union, parent) is not None:
            continue  # the kernel would not have got that far
        name = one[-1]
        if what == "mkdir":
            got, want = outcome(union.mkdir, parent, name, 0o755, CALLER), model.make(one, None)
        elif what == "create":
            got = outcome(union.create, parent, name, 0o644, os.O_EXCL, CALLER)
            want = model.make(one, b"")
        elif what == "unlink":
            got, want = outcome(union.unlink, parent, name), model.remove(one, directory=False)
        elif what == "rmdir":
            got, want = outcome(union.rmdir, parent, name), model.remove(one, directory=True)
        elif what in ("write", "mask"):
            ino = look_up(union, one)
            seen = model.sees(one)
            if ino is None or seen is None or seen[1] is None:
                continue
            if what == "mask" and union.is_below(ino):
                got = run(union.mask(ino, CALLER))
                want = model.make(one, b"") == 0
            else:
                got = outcome(union.open, ino, os.O_WRONLY)
                want = 0 if seen[0] else errno.EROFS
                if not got:
                    run(union.write(ino, 0, b"top " + name))
                    union.release(ino)
                    model.top[one] = b"top " + name
        else:
            new_parent = look_up(union, other[:-1])
            if new_parent is None or contents(union, new_parent) is not None:
                continue
            got = outcome(union.rename, parent, name, new_parent, other[-1])
            want = model.move(one, other)
        assert got == want, (what, one, other)
        check(union, model, PATHS)
