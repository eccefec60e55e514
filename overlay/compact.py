"""A shadow file written anew: what was freed since, and the history of the log, stay behind."""

from overlay.disk import FileDisk
from overlay.file import FileStore
from overlay.save import save_history
from overlay.superblock import first_ino
from overlay.tree import Tree


def compact(path: str, descriptor: int) -> int:
    """Copies the shadow file at `path` into the new file behind `descriptor`, which is closed. How many objects it has.
    Raises ShadowError, OSError."""
    old = FileStore.open_file(path, None, read_only=True)
    try:
        tree = Tree(first_ino(old.base))
        old.load(tree)
        new = FileStore(FileDisk.of(descriptor, path), old.base)
        try:
            return save_history(old.history(), old, new)
        finally:
            new.close()
    finally:
        old.close()
