"""A disk with a block-level shadow: reads come from the shadow where it was written, else from the base, which is never
written. A library: it knows neither FUSE nor trio; `dmgfs attach` serves the same tree.

    shadow = BlockShadow(disk, RamStore(budget))                             # gone at the end
    shadow = BlockShadow(disk, FileStore.open_file(path, base))              # kept; bound to its base

Rules that hold here:
- a BlockShadow is a ByteSource, so whatever reads disks reads this one, in any number of threads: one changes it at a
  time, and none keeps the others waiting while it decodes or waits for a disk;
- the store is the overlay's, and so are its promises: a write is whole or did nothing (ENOSPC), what was synced survives a
  crash, and no crash shows bytes that were never written (the data are there before the map says so).
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from dmgfs.blockshadow.disklower import DISK, DiskLower, View
from dmgfs.blockshadow.disktree import DiskTree
from dmgfs.blockshadow.zeros import Stretch, joined, stretches_of
from dmgfs.partitions import Partition
from dmgfs.source import Buffer, ByteSource, Load, check_range
from overlay.pages import HOLE, PAGE_BITS, ZERO, is_stored, pages_in
from overlay.pages import Run as Cells
from overlay.store import Store
from overlay.vfs import Steps, run

__all__ = ["BlockShadow", "DiskLower", "DiskTree", "Stretch", "View", "views_of"]

_AT_A_TIME = 4 << 20
"""Bytes of zeros that are written in one operation."""


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
        self._base = base
        self._tree = DiskTree(DiskLower(base, (), uid=0, gid=0, made_ns=0), store)
        self._lock = threading.Lock()
        run(self._tree.open(DISK))

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "block shadow")
        data: Buffer = self._run(self._tree.read(DISK, offset, length))
        return data

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        """Not for threads that must not wait: `dmgfs.fuse` drives the tree itself."""
        return ()

    def write(self, offset: int, data: bytes) -> None:
        """All of it; raises OutOfRange beyond the end, OSError(ENOSPC) with nothing done."""
        check_range(self, offset, len(data), "block shadow")
        self._run(self._tree.write(DISK, offset, data))

    def zero(self, offset: int, length: int) -> None:
        """Zeros, which take no room. Raises as `write`, with some of it done where it is long."""
        check_range(self, offset, length, "block shadow")
        for start in range(offset, offset + length, _AT_A_TIME):
            self._run(self._tree.write(DISK, start, bytes(min(_AT_A_TIME, offset + length - start))))

    def discard(self, offset: int, length: int) -> None:
        """Nobody needs these bytes: pages of the shadow that lie in the range are given back and read as zeros; what was
        never written stays the base's. Raises as `zero`."""
        check_range(self, offset, length, "block shadow")
        end = offset + length
        first, last = pages_in(offset), pages_in(end) if end == self.size else end >> PAGE_BITS
        if first < last:
            for one in self._cells(first, last - first):
                if is_stored(one.slot):
                    start = one.page << PAGE_BITS
                    self.zero(start, min(self.size - start, one.length << PAGE_BITS))

    def stretches(self, offset: int, length: int) -> list[Stretch]:
        """What of the range is known to be zeros, without a look at the bytes. Raises OutOfRange."""
        check_range(self, offset, length, "block shadow")
        return joined(self._stretches(offset, offset + length))

    def _stretches(self, offset: int, end: int) -> Iterator[Stretch]:
        first = offset >> PAGE_BITS
        for one in self._cells(first, pages_in(end) - first):
            start = max(offset, one.page << PAGE_BITS)
            stop = min(end, (one.page + one.length) << PAGE_BITS)
            if one.slot == HOLE:
                yield from stretches_of(self._base, start, stop - start)
            else:
                yield Stretch(start, stop - start, one.slot == ZERO)

    def _cells(self, first: int, count: int) -> list[Cells]:
        with self._lock:
            file = self._tree.tree.file(DISK)
            pages = file.pages if file is not None else None
            return [Cells(first, HOLE, count)] if pages is None else pages.runs(first, count)

    def sync(self) -> None:
        """What was written is safe now; what the store holds for nothing is given back if it is worth it."""
        self._run(self._tree.fsync())
        self._run(self._tree.reclaim())

    def close(self) -> None:
        """After a last sync. The base stays open."""
        with self._lock:
            self._tree.release(DISK)
            self._tree.close()

    def _run(self, steps: Steps[Any]) -> Any:
        """Drives an operation. The lock is let go of while the base is read or a medium is waited for, so others go on
        meanwhile; the operation looks again at what it assumed (see `overlay.vfs`)."""
        answer: Any = None
        failure: Exception | None = None
        while True:
            with self._lock:
                try:
                    ask = steps.send(answer) if failure is None else steps.throw(failure)
                except StopIteration as end:
                    # A view of the store is good until the next change.
                    return bytes(end.value) if isinstance(end.value, memoryview | bytearray) else end.value
            answer = failure = None
            try:
                answer = ask.function(*ask.arguments)
            except Exception as error:
                failure = error
