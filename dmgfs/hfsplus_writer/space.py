"""Room on a volume that is written anew around what stays where it is.

Rules that hold here: the same requests in the same order get the same places; nothing is given twice; what does not fit
between what stays is put behind it, and the volume grows.
"""

from collections.abc import Iterable

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus_writer.btree import used_bits


class Space:
    """taken: (start, blocks) of what stays, in order. end: where the volume ends now, without the copy of its header."""

    def __init__(self, taken: Iterable[tuple[int, int]], end: int) -> None:
        self.end = end
        self._taken: list[tuple[int, int]] = []
        self._gaps: list[list[int]] = []
        self._next = 0
        at = 0
        for start, blocks in taken:
            if start < at or start + blocks > end:
                why = f"blocks {start} to {start + blocks} belong to two files, or to none of the volume's {end}"
                raise CorruptImage("HFS+", "allocation", why)
            if start > at:
                self._gaps.append([at, start - at])
            self._taken.append((start, blocks))
            at = start + blocks
        self._gaps.append([at, end - at])  # the last one may grow
        self.used = sum(blocks for _, blocks in self._taken)

    def first(self, blocks: int) -> int:
        """The first place that is large enough, from the beginning of the volume."""
        return self._take(0, blocks)[0]

    def next(self, blocks: int) -> int:
        """The first place from where the last of these was given: for many small things, one behind the other."""
        start, self._next = self._take(self._next, blocks)
        return start

    def _take(self, index: int, blocks: int) -> tuple[int, int]:
        last = len(self._gaps) - 1
        while index < last and self._gaps[index][1] < blocks:
            index += 1
        gap = self._gaps[index]
        if gap[1] < blocks:
            self.end += blocks - gap[1]
            gap[1] = blocks
        start = gap[0]
        gap[0] += blocks
        gap[1] -= blocks
        self.used += blocks
        return start, index

    def map(self, total: int, tail: int, size: int) -> bytes:
        """The allocation file of a volume of `total` blocks, `size` bytes of it."""
        bits = bytearray(used_bits(total, 0, size))
        for start, blocks in self._gaps:
            _clear(bits, start, blocks)
        _clear(bits, self.end, total - tail - self.end)
        return bytes(bits)


def _clear(bits: bytearray, start: int, count: int) -> None:
    end = start + count
    while start < end and start % 8:
        bits[start >> 3] &= ~(0x80 >> start % 8)
        start += 1
    whole = (end - start) // 8 if end > start else 0
    bits[start >> 3 : (start >> 3) + whole] = bytes(whole)
    for block in range(start + 8 * whole, end):
        bits[block >> 3] &= ~(0x80 >> block % 8)
