"""B-trees of HFS+ (TN1150 "B-Trees"): nodes checked before use, found by descent, scanned along the leaf chain.

Rules that hold here:
- nothing is read ahead of need: opening reads the header node, finding one key reads one node per level;
- a node is checked in full when it is decoded, and only decoded nodes are used; a damaged one raises CorruptImage each
  time it is needed and hurts nothing else;
- heights fall by one with each level and keys rise from leaf to leaf, so no chain of links can lead in a circle;
- keys are comparable values (bytes or tuples) that a `KeyReader` makes of a node's records, so finding is `bisect`.
Map nodes and the allocation bitmap in node 0 are not read at all.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import reduce
from operator import ge, or_
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.structs import (
    HEADER_NODE,
    INDEX_NODE,
    LEAF_NODE,
    NODE_DESCRIPTOR,
    VARIABLE_INDEX_KEYS,
    HeaderRecord,
)
from dmgfs.source import ByteSource

MIN_NODE_SIZE = 512
MAX_NODE_SIZE = 32768
MAX_DEPTH = 16

_DECODED_RECORD = 400
"""Bytes that a decoded record costs beside its node, for the cache's budget: key, name, Node, numbers (measured)."""


class Ordered(Protocol):
    """Values with an order."""

    def __lt__(self, other: Any, /) -> bool: ...
    def __ge__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Ordered)


class BadKey(Exception):
    """A KeyReader's complaint about record `index`; the tree turns it into CorruptImage with the place."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index
        self.why = why


KeyReader = Callable[[bytes, Sequence[int]], list[K]]
"""(node, offsets of its records and of its free space) → one key per record. Raises BadKey. Every record is at least two
bytes long and lies inside the node; the reader checks the rest."""


class TreeHeader(NamedTuple):
    """What the header record says, checked."""

    depth: int
    root: int
    leaf_records: int
    node_size: int
    max_key_length: int
    total_nodes: int
    free_nodes: int
    key_compare_type: int
    attributes: int


class TreeNode(Generic[K]):
    """One decoded node. offsets[i] is where record i begins in `data`, offsets[count] where free space begins. `memo`
    is for whoever decodes the records: one place each, None at first (of an index node: the numbers of its children)."""

    __slots__ = ("count", "data", "flink", "height", "keys", "memo", "number", "offsets")

    def __init__(
        self, number: int, height: int, flink: int, data: bytes, offsets: tuple[int, ...], keys: list[K]
    ) -> None:
        self.number = number
        self.height = height
        self.flink = flink
        self.data = data
        self.offsets = offsets
        self.keys = keys
        self.count = len(keys)
        self.memo: list[Any] = [None] * self.count

    def __len__(self) -> int:
        """Bytes of memory, about, records decoded: what a cache counts."""
        return len(self.data) + _DECODED_RECORD * self.count

    def body(self, index: int) -> int:
        """Where the data of record `index` of a leaf begins: after its key, on an even offset."""
        start = self.offsets[index]
        data = self.data
        return start + 2 + (((data[start] << 8 | data[start + 1]) + 1) & ~1)


class BTree(Generic[K]):
    """A tree in `source` (its fork). layer: how errors name it. Raises CorruptImage if its header cannot be used."""

    def __init__(self, source: ByteSource, layer: str, read_keys: KeyReader[K], cache: ChunkCache[Any]) -> None:
        self._source = source
        self.layer = layer
        self._read_keys = read_keys
        self._cache = cache
        self._identity = object()
        self.header = self._read_header()

    # -- header node ---------------------------------------------------------------------------------------------------

    def _corrupt(self, structure: str, why: str, offset: int | None = None) -> CorruptImage:
        return CorruptImage(self.layer, structure, why, offset)

    def _read_header(self) -> TreeHeader:
        size = self._source.size
        if size < MIN_NODE_SIZE:
            raise self._corrupt("header node", f"the tree has {size} bytes, a node takes {MIN_NODE_SIZE}", 0)
        first = bytes(self._source.read(0, MIN_NODE_SIZE))
        _, _, kind, height, records, _ = NODE_DESCRIPTOR.unpack_from(first)
        if kind != HEADER_NODE or height != 0 or records < 3:
            raise self._corrupt(
                "header node", f"kind {kind}, height {height}, {records} records; 1, 0, 3 expected", 0
            )
        start = NODE_DESCRIPTOR.size
        record = HeaderRecord.parse(first[start : start + HeaderRecord.sizeof()])
        header = TreeHeader(
            record.treeDepth,
            record.rootNode,
            record.leafRecords,
            record.nodeSize,
            record.maxKeyLength,
            record.totalNodes,
            record.freeNodes,
            record.keyCompareType,
            record.attributes,
        )
        why = self._complaint(header, size)
        for name, link in (("firstLeafNode", record.firstLeafNode), ("lastLeafNode", record.lastLeafNode)):
            if why is None and link >= max(header.total_nodes, 1):
                why = f"{name} {link}, the tree has {header.total_nodes} nodes"
        if why is not None:
            raise self._corrupt("header record", why, start)
        return header

    @staticmethod
    def _complaint(header: TreeHeader, size: int) -> str | None:
        """What is wrong with the header record of a tree of `size` bytes."""
        node_size, total = header.node_size, header.total_nodes
        if node_size & (node_size - 1) or not MIN_NODE_SIZE <= node_size <= MAX_NODE_SIZE:
            return f"node size {node_size}, a power of two from {MIN_NODE_SIZE} to {MAX_NODE_SIZE} expected"
        if total * node_size > size:
            return f"{total} nodes of {node_size} bytes do not fit into the {size} bytes of the tree"
        if header.free_nodes > total:
            return f"{header.free_nodes} free nodes of {total}"
        if header.depth > MAX_DEPTH:
            return f"depth {header.depth}, {MAX_DEPTH} is the limit"
        if (header.depth == 0) != (header.root == 0) or header.root >= max(total, 1):
            return f"root node {header.root} at depth {header.depth}, the tree has {total} nodes"
        return None

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def node(self, number: int, height: int) -> TreeNode[K]:
        """Node `number`, which the caller expects at `height` (1: leaf). Raises CorruptImage."""
        node: TreeNode[K] = self._cache.get_inline((self._identity, number), lambda: self._decode(number))
        if node.height != height:
            raise self._corrupt(
                f"node {number}", f"height {node.height} where {height} belongs", number * self.header.node_size
            )
        return node

    def _decode(self, number: int) -> TreeNode[K]:
        header = self.header
        size = header.node_size
        place = number * size
        if not 0 < number < header.total_nodes:
            raise self._corrupt(f"link to node {number}", f"the tree has {header.total_nodes} nodes")
        data = bytes(self._source.read(place, size))
        flink, blink, kind, height, count, _ = NODE_DESCRIPTOR.unpack_from(data)
        why = None
        if kind not in (LEAF_NODE, INDEX_NODE) or (kind == LEAF_NODE) != (height == 1) or height == 0:
            why = f"kind {kind} at height {height}, a leaf or index node expected"
        elif flink >= header.total_nodes or blink >= header.total_nodes or number in (flink, blink):
            why = f"linked with nodes {flink} and {blink}, the tree has {header.total_nodes}"
        elif count == 0 or NODE_DESCRIPTOR.size + 2 * count + 2 > size:
            why = f"{count} records in {size} bytes"
        if why is not None:
            raise self._corrupt(f"node {number}", why, place)
        table = size - 2 * (count + 1)
        starts = struct.unpack_from(f">{count + 1}H", data, table)[::-1]
        if (
            starts[0] < NODE_DESCRIPTOR.size
            or starts[-1] > table
            or any(map(ge, starts, starts[1:]))
            or reduce(or_, starts) & 1
        ):
            raise self._corrupt(f"node {number}", "record offsets out of order or out of the node", place + table)
        try:
            keys = self._read_keys(data, starts)
        except BadKey as bad:
            raise self._corrupt(
                f"node {number}: key of record {bad.index}", bad.why, place + starts[bad.index]
            ) from None
        if any(map(ge, keys, keys[1:])):
            raise self._corrupt(f"node {number}", "keys out of order", place)
        return TreeNode(number, height, flink, data, starts, keys)

    def child(self, node: TreeNode[K], index: int) -> int:
        """The node that record `index` of an index node leads to."""
        known: int | None = node.memo[index]
        if known is not None:
            return known
        start = node.offsets[index]
        data = node.data
        if self.header.attributes & VARIABLE_INDEX_KEYS:
            body = node.body(index)
        else:
            body = start + 2 + ((self.header.max_key_length + 1) & ~1)
        if body + 4 > node.offsets[index + 1]:
            raise self._corrupt(
                f"node {node.number}: record {index}",
                "too short to hold a node number",
                node.number * self.header.node_size + start,
            )
        number = node.memo[index] = int.from_bytes(data[body : body + 4])
        return number

    # -- finding -------------------------------------------------------------------------------------------------------

    def _leaf(self, key: K) -> TreeNode[K] | None:
        """The leaf where `key` is or would be; None if it is smaller than every key or the tree is empty."""
        number = self.header.root
        if number == 0:
            return None
        for height in range(self.header.depth, 1, -1):
            node = self.node(number, height)
            index = bisect_right(node.keys, key) - 1
            if index < 0:
                return None
            number = self.child(node, index)
        return self.node(number, 1)

    def find(self, key: K) -> tuple[TreeNode[K], int] | None:
        """Leaf and index of the record with exactly this key."""
        leaf = self._leaf(key)
        if leaf is None:
            return None
        index = bisect_left(leaf.keys, key)
        return (leaf, index) if index < leaf.count and leaf.keys[index] == key else None

    def seek(self, key: K, *, beyond: bool) -> tuple[TreeNode[K], int] | None:
        """Leaf and index of the first record whose key is >= `key` (beyond: > `key`); None if there is none."""
        leaf = self._leaf(key) or self._first()
        if leaf is None:
            return None
        index = (bisect_right if beyond else bisect_left)(leaf.keys, key)
        if index < leaf.count:
            return leaf, index
        following = self.following(leaf)
        return None if following is None else (following, 0)

    def _first(self) -> TreeNode[K] | None:
        """The first leaf, found from the root: what the header says of it may be stale."""
        number = self.header.root
        if number == 0:
            return None
        for height in range(self.header.depth, 1, -1):
            number = self.child(self.node(number, height), 0)
        return self.node(number, 1)

    def following(self, leaf: TreeNode[K]) -> TreeNode[K] | None:
        """The next leaf of the chain, None after the last. Raises CorruptImage if its keys do not go on from here."""
        if leaf.flink == 0:
            return None
        following = self.node(leaf.flink, 1)
        if leaf.keys[-1] >= following.keys[0]:
            raise self._corrupt(
                f"node {leaf.number}",
                f"linked with node {leaf.flink}, whose keys do not follow",
                leaf.number * self.header.node_size,
            )
        return following
