"""Saved shadows between the image and where changes go: `--shadow-ro FILE`, one over the other.

Rules that hold here:
- each is bound to the image and to the layers below it, as it was when it was made, and is refused over anything else;
- a layer is opened for reading and locked against writers only: any number of mounts may share it;
- its tree is in memory, its pages are read from the file. A page that is not in the page cache is Cold, as a chunk of the
  image is, so the thread that serves never waits for it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from dmgfs.source import Cold, Load, may_block
from overlay.disk import FileDisk
from overlay.errors import ShadowError
from overlay.file import FileStore
from overlay.fingerprint import fingerprint
from overlay.overlay import Overlay
from overlay.stratum import Stratum
from overlay.superblock import Base, over
from overlay.tree import Tree
from overlay.vfs import Lower


class LayerDisk(FileDisk):
    """A shadow file that is only read."""

    def __init__(self, path: str) -> None:
        super().__init__(path, create=False, read_only=True)

    def read(self, offset: int, length: int) -> bytes:
        if (
            may_block() or not self._nowait
        ):  # what cannot say whether it would wait is short enough to be read at once
            return super().read(offset, length)
        data = self.read_now(offset, length)
        if data is None:
            raise Cold([Load(("layer", self.path, offset, length), lambda: FileDisk.read(self, offset, length))])
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Layer:
    """path: of the file. objects: that it changes or adds. used: bytes."""

    path: str
    objects: int
    used: int


class Stack:
    """lower: what all layers together show. layers: lowest first. views: the same as overlays, each over those below it;
    not to be closed."""

    def __init__(self, lower: Lower, base: Base) -> None:
        self.lower = lower
        self.layers: list[Layer] = []
        self._base = base
        self.views: list[Overlay] = []
        self._top: tuple[Tree, FileStore] | None = None  # not yet in the base
        self._lock = threading.Lock()

    def base(self) -> Base:
        """What a shadow above is bound to. The first call goes through the whole tree of the topmost layer: about a second
        for 100,000 objects, and in vain where changes stay in memory, so it is left to who needs it. In any thread."""
        with self._lock:
            if self._top is not None:
                tree, store = self._top
                self._base = over(self._base, fingerprint(tree, store.sums))
                self._top = None
            return self._base

    def add(self, path: str, tree: Tree, store: FileStore) -> None:
        """A layer on top; `tree` is loaded. Raises ShadowDamaged."""
        self.base()
        view = Overlay(self.lower)
        view.attach(store, tree)
        self.views.append(view)
        self.lower = Stratum(self.lower, tree, store)
        self._top = tree, store
        self.layers.append(Layer(path, len(tree.nodes), store.used))


@contextmanager
def stacked(
    lower: Lower,
    base: Base,
    paths: Sequence[str],
    *,
    force_base: bool,
    attempt: Callable[[Callable[[], FileStore]], FileStore] = lambda attempted: attempted(),
) -> Iterator[Stack]:
    """The shadow files `paths`, lowest first, over `lower`, which `base` identifies; closed at the end. attempt: calls what
    opens one, more than once perhaps. Raises ShadowError (with its path) and OSError."""
    stack = Stack(lower, base)
    with ExitStack() as opened:
        for path in paths:
            try:
                below = stack.base()
                store = attempt(partial(_open, path, below, force_base))
                opened.callback(store.close)
                tree = Tree(stack.lower.end_ino)
                store.load(tree)
                stack.add(path, tree, store)
            except ShadowError as error:
                error.path = path
                raise
        yield stack


def _open(path: str, base: Base, force_base: bool) -> FileStore:
    disk = LayerDisk(path)
    try:
        return FileStore(disk, base, read_only=True, force_base=force_base)
    except BaseException:
        disk.close()
        raise
