"""What a UDIF holds already, in the coding that is wanted: its runs are taken over as they are stored wherever the disk
still has the same bytes there.

Rule: what is the same is found by looking, not by promise: the run is decoded and compared. That costs a small part of what
coding costs, says that the old image is sound, and gives the checksums.
"""

import threading
from collections.abc import Iterator

from dmgfs.container.structs import CODEC_OF
from dmgfs.container.udifdisk import UdifDisk
from dmgfs.packing.pieces import SECTOR, Piece
from dmgfs.source import ByteSource

Stretch = tuple[int, int, int | None]
"""Offset in the table, length, run of the old image (None: none)."""


class Reuse:
    """old: the disk of the image. codec: that is wanted. shift: bytes, from a place on the old disk to the same on the new
    one. largest: run, bytes. kept: runs that were taken over."""

    def __init__(self, old: UdifDisk, codec: str, shift: int) -> None:
        self._old = old
        self._shift = shift
        run_type = next(number for number, name in CODEC_OF.items() if name == codec)
        self.runs = [
            (start + shift, length, index) for start, length, index in old.packed_runs(run_type) if start + shift >= 0
        ]
        self.kept = 0
        self._lock = threading.Lock()
        self.largest = max((length for _, length, _ in self.runs), default=0)

    def piece(self, disk: ByteSource, start: int, length: int, index: int) -> Piece | None:
        """The run as it is stored, if the disk has its bytes; else None."""
        data = bytes(disk.read(start, length))
        if data != self._old.read(start - self._shift, length):
            return None
        packed = self._old.packed(index)
        if len(packed) >= length:
            return None
        with self._lock:
            self.kept += 1
        return Piece(length, data, packed)


def stretches(start: int, size: int, chunk: int, reuse: Reuse | None) -> Iterator[Stretch]:
    """The table at `start` of the disk, cut into runs of the old image and, between them, into chunks."""
    at = 0
    for begin, length, index in () if reuse is None else reuse.runs:
        first = begin - start
        if first < at or first + length > size or begin % SECTOR:
            continue
        yield from _chunks(at, first, chunk)
        yield first, length, index
        at = first + length
    yield from _chunks(at, size, chunk)
    if size == 0:
        yield 0, 0, None


def _chunks(at: int, end: int, chunk: int) -> Iterator[Stretch]:
    """Up to multiples of the chunk, as if nothing lay before."""
    while at < end:
        following = min(end, (at // chunk + 1) * chunk)
        yield at, following - at, None
        at = following
