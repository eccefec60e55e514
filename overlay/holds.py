"""How often the kernel holds each inode. One count per inode that the kernel ever saw since it forgot it, so this must be
small: blocks of 64 counts, 9 bytes per inode in a dense range where a dict takes 100.
"""

from array import array
from collections.abc import Iterator

_BITS = 6
_BLOCK = 1 << _BITS
_EMPTY = array("Q", bytes(8 * _BLOCK))


class Holds:
    """inode → count, 0 for all that are not mentioned."""

    def __init__(self) -> None:
        self._blocks: dict[int, array[int]] = {}

    def __getitem__(self, ino: int) -> int:
        block = self._blocks.get(ino >> _BITS)
        return 0 if block is None else block[ino & (_BLOCK - 1)]

    def __iter__(self) -> Iterator[int]:
        """All inodes with a count."""
        for number, block in self._blocks.items():
            yield from ((number << _BITS) + index for index, count in enumerate(block) if count)

    def take(self, ino: int, count: int = 1) -> None:
        block = self._blocks.get(ino >> _BITS)
        if block is None:
            block = self._blocks[ino >> _BITS] = _EMPTY[:]
        block[ino & (_BLOCK - 1)] += count

    def drop(self, ino: int, count: int = 1) -> int:
        """The count that is left. More is never dropped than was taken."""
        block = self._blocks.get(ino >> _BITS)
        if block is None:
            return 0
        index = ino & (_BLOCK - 1)
        left = max(0, block[index] - count)
        block[index] = left
        if not left and block == _EMPTY:
            del self._blocks[ino >> _BITS]
        return left
