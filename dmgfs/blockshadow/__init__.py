"""A disk with a block-level shadow: reads come from the shadow where it was written, else from the base, which is never
written. A library: it knows neither FUSE nor trio; `dmgfs attach` serves the same tree.

    shadow = BlockShadow(disk, RamStore(budget))                             # gone at the end
    shadow = BlockShadow(disk, FileStore.open_file(path, base))              # kept; bound to its base

Rules that hold here:
- a BlockShadow is a ByteSource, so whatever reads disks reads this one; one thread at a time is let in;
- the store is the overlay's, and so are its promises: a write is whole or did nothing (ENOSPC), what was synced survives a
  crash, and no crash shows bytes that were never written (the data are there before the map says so).
"""

import threading
from collections.abc import Sequence

from dmgfs.blockshadow.disklower import DISK, DiskLower, View
from dmgfs.blockshadow.disktree import DiskTree
from dmgfs.partitions import Partition
from dmgfs.source import Buffer, ByteSource, Load, check_range
from overlay.store import Store
from overlay.vfs import run

__all__ = ["BlockShadow", "DiskLower", "DiskTree", "View", "views_of"]


def views_of(partitions: Sequence[Partition], size: int) -> list[View]:
    """The partitions that lie on the disk and are not all of it, named as Darwin names them."""
    return [
        View(f"disk0s{partition.index}", partition.start, partition.length)
        for partition in partitions
        if 0 < partition.length < size and 0 <= partition.start <= size - partition.length
    ]


class BlockShadow:
    """`base` as a disk that can be written. size: in bytes, that of the base."""

    def __init__(self, base: ByteSource, store: Store) -> None:
        self.size = base.size
        self._tree = DiskTree(DiskLower(base, (), uid=0, gid=0, made_ns=0), store)
        self._lock = threading.Lock()
        run(self._tree.open(DISK))

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "block shadow")
        with self._lock:
            return bytes(run(self._tree.read(DISK, offset, length)))

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        """Not for threads that must not wait: `dmgfs.fuse` drives the tree itself."""
        return ()

    def write(self, offset: int, data: bytes) -> None:
        """All of it; raises OutOfRange beyond the end, OSError(ENOSPC) with nothing done."""
        check_range(self, offset, len(data), "block shadow")
        with self._lock:
            run(self._tree.write(DISK, offset, data))

    def sync(self) -> None:
        """What was written is safe now."""
        with self._lock:
            run(self._tree.fsync())

    def close(self) -> None:
        """After a last sync. The base stays open."""
        self._tree.release(DISK)
        self._tree.close()
