"""Forks: from extents to a byte source (TN1150 "Extents Overflow File").

A fork is opened by collecting its extents, eight from beside the file and the rest from the overflow tree, and laying
them end to end. What no extent covers cannot be read (CorruptImage, never zeros); what is covered stays readable.
"""

from collections.abc import Sequence
from typing import Any

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.btree import BadKey, BTree
from dmgfs.hfsplus.header import Fork, used_extents
from dmgfs.hfsplus.structs import EXTENT_KEY, EXTENT_RECORD
from dmgfs.source import Buffer, ByteSource, Load, Run, RunSource, check_range

LAYER = "HFS+ extents"
LARGEST_SIZE = (1 << 63) - 1

ExtentTreeKey = tuple[int, int, int]
"""File number, fork type, first block covered: the order of the tree."""


def read_keys(data: bytes, offsets: Sequence[int]) -> list[ExtentTreeKey]:
    """The KeyReader of the extents overflow tree."""
    keys = []
    for index, start in enumerate(offsets[:-1]):
        if start + EXTENT_KEY.size > offsets[index + 1]:
            raise BadKey(index, "the record is shorter than its key")
        length, fork_type, _, file_id, start_block = EXTENT_KEY.unpack_from(data, start)
        if length != EXTENT_KEY.size - 2:
            raise BadKey(index, f"key of {length} bytes, {EXTENT_KEY.size - 2} expected")
        keys.append((file_id, fork_type, start_block))
    return keys


class ForkSource:
    """The bytes of one fork: `size` of them, of which the first `covered` can be read."""

    def __init__(self, covered: RunSource, size: int, name: str) -> None:
        self._covered = covered
        self._name = name
        self.size = min(size, LARGEST_SIZE)
        self.covered = min(covered.size, self.size)

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        if offset + length > self.covered and length:
            raise CorruptImage(
                LAYER, self._name, f"{self.size} bytes, but only {self.covered} have a place on the volume", offset
            )
        return self._covered.read(offset, length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return self._covered.cold(offset, min(length, self.size - offset))


def lay_out(source: ByteSource, block_size: int, extents: Sequence[tuple[int, int]], total_blocks: int) -> RunSource:
    """The extents end to end. total_blocks: of the volume; the first extent that does not lie within ends the fork, as
    far as the volume goes. Neighbours become one run."""
    runs: list[Run] = []
    for start, count in extents:
        inside = min(count, total_blocks - start)
        if inside <= 0:
            break
        offset, length = start * block_size, inside * block_size
        if runs and runs[-1].offset + runs[-1].length == offset:
            runs[-1] = Run(source, runs[-1].offset, runs[-1].length + length)
        else:
            runs.append(Run(source, offset, length))
        if inside < count:
            break
    return RunSource(runs)


class Extents:
    """Opens the forks of a volume. source: the volume. overflow: its extents tree, None if it has none."""

    def __init__(self, source: ByteSource, block_size: int, total_blocks: int) -> None:
        self._source = source
        self._block_size = block_size
        self._total_blocks = total_blocks
        self.overflow: BTree[ExtentTreeKey] | None = None

    def open_tree(self, fork: Fork, cache: ChunkCache[Any]) -> None:
        """Reads the header of the overflow tree. It has no overflow of its own. Raises CorruptImage."""
        if fork.total_blocks:
            self.overflow = BTree(self.special(fork, "extents file"), LAYER, read_keys, cache)

    def special(self, fork: Fork, name: str, file_id: int | None = None) -> ForkSource:
        """A fork of the volume itself, whose size must fit into its blocks (threats.md H3). file_id: where its overflow
        extents are found, None if it has none."""
        if fork.logical_size > fork.total_blocks * self._block_size:
            raise CorruptImage(
                LAYER, name, f"{fork.logical_size} bytes in {fork.total_blocks} blocks of {self._block_size}"
            )
        if file_id is None:
            return ForkSource(self._lay_out(fork.extents), fork.logical_size, name)
        return self.open(fork, file_id, 0, name)

    def _lay_out(self, extents: Sequence[tuple[int, int]]) -> RunSource:
        return lay_out(self._source, self._block_size, extents, self._total_blocks)

    def open(self, fork: Fork, file_id: int, fork_type: int, name: str) -> ForkSource:
        """The fork of file `file_id`. Raises CorruptImage where the overflow tree cannot be read."""
        return ForkSource(self._lay_out(self.all_of(fork, file_id, fork_type)), fork.logical_size, name)

    def all_of(self, fork: Fork, file_id: int, fork_type: int) -> list[tuple[int, int]]:
        """All extents of the fork, as far as they are recorded. Raises CorruptImage as `open` does."""
        extents = list(fork.extents)
        covered = sum(count for _, count in extents)
        if covered < fork.total_blocks and self.overflow is not None:
            self._add_overflow(extents, covered, fork.total_blocks, file_id, fork_type)
        return extents

    def _add_overflow(
        self, extents: list[tuple[int, int]], covered: int, total: int, file_id: int, fork_type: int
    ) -> None:
        """Appends the extents of the overflow records as long as each begins where the one before ended and adds
        something (H7); the records of one fork lie side by side."""
        tree = self.overflow
        assert tree is not None
        place = tree.find((file_id, fork_type, covered))
        while place is not None and covered < total:
            leaf, index = place
            if leaf.keys[index] != (file_id, fork_type, covered):
                break
            body = leaf.body(index)
            if body + EXTENT_RECORD.size > leaf.offsets[index + 1]:
                raise CorruptImage(LAYER, f"record of file {file_id}, block {covered}", "shorter than eight extents")
            more = used_extents(EXTENT_RECORD.unpack_from(leaf.data, body))
            if not more:
                break
            extents += more
            covered += sum(count for _, count in more)
            if index + 1 < leaf.count:
                place = leaf, index + 1
            else:
                following = tree.following(leaf)
                place = None if following is None else (following, 0)
