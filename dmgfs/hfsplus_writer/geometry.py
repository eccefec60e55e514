"""Where everything lies on a new volume: header, map of blocks, extents tree, journal, catalog, attributes, contents, free
space, and the copy of the header in the last kilobyte. Each in one piece, without gaps.

Rule: pure arithmetic; what does not fit is Unwritable, with the size that would.
"""

from typing import NamedTuple

from dmgfs.errors import Unwritable
from dmgfs.hfsplus.structs import HEADER_OFFSET, HEADER_SIZE

MOST_BLOCKS = (1 << 32) - 2
MOST_CLUMP = 2 << 30
"""Bytes: whole blocks and nodes of any size, and the field has 32 bits."""

LEAST_VOLUME = 512 << 10
"""Bytes; macOS makes none that is smaller."""


class Place(NamedTuple):
    """start: the first allocation block, blocks: how many."""

    start: int
    blocks: int

    @property
    def end(self) -> int:
        return self.start + self.blocks


class Needs(NamedTuple):
    """Bytes of each part, and blocks of the contents."""

    extents: int
    catalog: int
    attributes: int
    journal: int
    contents: int


class Geometry(NamedTuple):
    """used: blocks from the first on that have an owner. tail: blocks at the end that hold the copy of the header."""

    block_size: int
    total: int
    bitmap: Place
    extents: Place
    journal_info: Place
    journal: Place
    attributes: Place
    catalog: Place
    contents: Place
    used: int
    tail: int

    @property
    def free(self) -> int:
        return self.total - self.used - self.tail

    @property
    def size(self) -> int:
        return self.total * self.block_size

    def clump(self, place: Place) -> int:
        """What a file of the volume's own grows by, in bytes."""
        return clump_of(place.blocks * self.block_size, self.total, self.block_size)


def clump_of(size: int, total: int, block_size: int) -> int:
    """As much as the file has, but fsck takes more than a quarter of the volume for damage. total: blocks."""
    return min(size, total // 4 * block_size, MOST_CLUMP)


def blocks_of(size: int, block_size: int) -> int:
    return -(-size // block_size)


def lay_out(needs: Needs, block_size: int, size: int | None, around: int = 0) -> Geometry:
    """The volume of `size` bytes (whole blocks of them), or the smallest in which everything fits. around: bytes of a disk
    that are not volume, for the message. Raises Unwritable."""
    least = _smallest(needs, block_size)
    total = least if size is None else size // block_size
    if total < least:
        what, told = ("disk" if around else "volume"), 0 if size is None else size + around
        raise Unwritable(f"a {what} of {told} bytes is too small: at least {least * block_size + around} are needed")
    if total > MOST_BLOCKS:
        raise Unwritable(
            f"{total} blocks of {block_size} bytes are more than HFS+ can count; larger blocks or less is needed"
        )
    return _placed(needs, block_size, total)


def _smallest(needs: Needs, block_size: int) -> int:
    """In blocks. The map of blocks covers itself, so its size is found by trying."""
    total = blocks_of(LEAST_VOLUME, block_size)
    while True:
        placed = _placed(needs, block_size, total)
        if placed.free >= 0:
            return total
        total -= placed.free


def _placed(needs: Needs, block_size: int, total: int) -> Geometry:
    at = blocks_of(HEADER_OFFSET + HEADER_SIZE, block_size)

    def place(size: int) -> Place:
        nonlocal at
        count = blocks_of(size, block_size)
        start, at = at, at + count
        return Place(start if count else 0, count)

    bitmap = place(-(-total // 8))
    extents = place(needs.extents)
    journal_info = place(block_size if needs.journal else 0)
    journal = place(needs.journal)
    attributes = place(needs.attributes)
    catalog = place(needs.catalog)
    contents = Place(at, needs.contents)
    tail = blocks_of(1024, block_size)
    return Geometry(
        block_size, total, bitmap, extents, journal_info, journal, attributes, catalog, contents, contents.end, tail
    )
