"""The attributes tree: named extended attributes of files and folders, inline or with a fork of their own.

A file's attributes are a mapping that finds one by descent and lists all along the leaf chain; nothing is read before
it is asked for. Values have no size limit here; who shows them to Linux applies Linux's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.btree import BadKey, BTree, TreeNode
from dmgfs.hfsplus.extents import ForkSource, lay_out
from dmgfs.hfsplus.header import Fork, read_fork, used_extents
from dmgfs.hfsplus.structs import (
    ATTRIBUTE_KEY,
    EXTENT_RECORD,
    EXTENTS_ATTRIBUTE,
    FORK_ATTRIBUTE,
    FORK_DATA,
    INLINE_ATTRIBUTE,
    INLINE_ATTRIBUTE_HEADER,
)
from dmgfs.hfsplus.unicode import decode, encode
from dmgfs.source import ByteSource, MemorySource, RunSource

LAYER = "HFS+ attributes"
MAX_NAME_UNITS = 127
MAX_NAMES = 1 << 16
"""More attributes of one file are not listed: no listing on Linux could hold their names (threats.md H29)."""

_NAMES_LOOKED_THROUGH = 64
"""How many are read to tell an absent attribute from a lost one: hardly a file has as many, and the kernel asks for absent
ones at every write."""

DECMPFS = "com.apple.decmpfs"

AttributeTreeKey = tuple[int, bytes, int]
"""File number, name in UTF-16BE, first block covered: the order of the tree. Names are compared as they are."""

AttributeLeaf = TreeNode[AttributeTreeKey]


def read_keys(data: bytes, offsets: Sequence[int]) -> list[AttributeTreeKey]:
    """The KeyReader of the attributes tree."""
    keys = []
    size = ATTRIBUTE_KEY.size
    for index, start in enumerate(offsets[:-1]):
        room = offsets[index + 1] - start
        if room < size:
            raise BadKey(index, "the record is shorter than its key")
        length, _, file_id, start_block, units = ATTRIBUTE_KEY.unpack_from(data, start)
        if length < size - 2 + 2 * units or units > MAX_NAME_UNITS or length + 2 > room:
            raise BadKey(index, f"{length} bytes for a name of {units} units in a record of {room}")
        keys.append((file_id, data[start + size : start + size + 2 * units], start_block))
    return keys


class Attributes:
    """The attributes of one volume. lay_out(extents): extents as a source (`extents.lay_out` on this volume)."""

    def __init__(
        self,
        tree: ByteSource,
        volume: ByteSource,
        block_size: int,
        total_blocks: int,
        cache: ChunkCache[Any],
    ) -> None:
        self.tree: BTree[AttributeTreeKey] = BTree(tree, LAYER, read_keys, cache)
        self._block_size = block_size
        self._lay_out: Callable[[Sequence[tuple[int, int]]], RunSource] = lambda extents: lay_out(
            volume, block_size, extents, total_blocks
        )

    def get(self, file_id: int, name: str) -> ByteSource | None:
        """The value of one attribute, None if the file has none of this name. Raises CorruptImage."""
        encoded = encode(name)
        if len(encoded) > 2 * MAX_NAME_UNITS:
            return None
        place = self.tree.find((file_id, encoded, 0))
        if place is None:
            return None
        leaf, index = place
        structure = f"attribute {name!r} of object {file_id}"
        body, room = self._record(leaf, index, structure, 4)
        kind = int.from_bytes(leaf.data[body : body + 4])
        if kind == INLINE_ATTRIBUTE:
            self._record(leaf, index, structure, INLINE_ATTRIBUTE_HEADER.size)
            _, size = INLINE_ATTRIBUTE_HEADER.unpack_from(leaf.data, body)
            start = body + INLINE_ATTRIBUTE_HEADER.size
            if size > room - INLINE_ATTRIBUTE_HEADER.size:
                raise CorruptImage(LAYER, structure, f"{size} bytes in a record of {room}")
            return MemorySource(leaf.data[start : start + size])
        if kind == FORK_ATTRIBUTE:
            self._record(leaf, index, structure, 8 + FORK_DATA.size)
            return self._fork(read_fork(leaf.data, body + 8), leaf, index, structure)
        raise CorruptImage(LAYER, structure, f"a record of type {kind:#x}")

    @staticmethod
    def _record(leaf: AttributeLeaf, index: int, structure: str, least: int) -> tuple[int, int]:
        """Where the data of a record begins and how long it is, at least `least`."""
        body = leaf.body(index)
        room = leaf.offsets[index + 1] - body
        if room < least:
            raise CorruptImage(LAYER, structure, f"a record of {room} bytes, {least} expected")
        return body, room

    def _fork(self, fork: Fork, leaf: AttributeLeaf, index: int, structure: str) -> ByteSource:
        """A value with its own extents, continued by the extents records that follow it in the tree."""
        if fork.logical_size > fork.total_blocks * self._block_size:
            raise CorruptImage(LAYER, structure, f"{fork.logical_size} bytes in {fork.total_blocks} blocks")
        extents = list(fork.extents)
        covered = sum(count for _, count in extents)
        file_id, name, _ = leaf.keys[index]
        while covered < fork.total_blocks:
            place = self._next(leaf, index)
            if place is None:
                break
            leaf, index = place
            if leaf.keys[index] != (file_id, name, covered):
                break
            body, _ = self._record(leaf, index, structure, 8 + EXTENT_RECORD.size)
            more = used_extents(EXTENT_RECORD.unpack_from(leaf.data, body + 8))
            if int.from_bytes(leaf.data[body : body + 4]) != EXTENTS_ATTRIBUTE or not more:
                break
            extents += more
            covered += sum(count for _, count in more)
        return ForkSource(self._lay_out(extents), fork.logical_size, structure)

    def _next(self, leaf: AttributeLeaf, index: int) -> tuple[AttributeLeaf, int] | None:
        if index + 1 < leaf.count:
            return leaf, index + 1
        following = self.tree.following(leaf)
        return None if following is None else (following, 0)

    def names(self, file_id: int, most: int | None = None) -> list[str]:
        """The names of a file's attributes in the tree's order, the first `most` (MAX_NAMES) of them."""
        most = MAX_NAMES if most is None else most
        names: list[str] = []
        place = self.tree.seek((file_id, b"", 0), beyond=False)
        while place is not None and len(names) < most:
            leaf, index = place
            owner, name, start_block = leaf.keys[index]
            if owner != file_id:
                break
            if start_block == 0:
                names.append(decode(name))
            place = self._next(leaf, index)
        return names


class AttributesOf(Mapping[str, ByteSource]):
    """The attributes of one object, without `hidden` ones. Every access may raise CorruptImage or Cold."""

    def __init__(self, attributes: Attributes | None, file_id: int, hidden: frozenset[str]) -> None:
        self._attributes = attributes
        self._file_id = file_id
        self._hidden = hidden

    def __getitem__(self, name: str) -> ByteSource:
        value = None
        if self._attributes is not None and name not in self._hidden:
            value = self._attributes.get(self._file_id, name)
        if value is None:
            if name in self._names(_NAMES_LOOKED_THROUGH):
                raise CorruptImage(LAYER, f"attribute {name!r} of object {self._file_id}", "listed, and not found")
            raise KeyError(name)
        return value

    def _names(self, most: int | None = None) -> list[str]:
        if self._attributes is None:
            return []
        return [name for name in self._attributes.names(self._file_id, most) if name not in self._hidden]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())
