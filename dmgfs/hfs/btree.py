"""B-trees of HFS standard (Inside Macintosh: Files, "B*-Trees"): nodes of 512 bytes, keys with one length byte.

Rules that hold here:
- nothing is read ahead of need; a node is checked in full when it is decoded, and only decoded nodes are used;
- heights fall by one with each level and the first keys of the leaves rise along their chain, so no chain of links can
  lead in a circle;
- keys are tuples made by a `KeyReader`, and finding is `bisect`. Inside a leaf their order is relied on for finding only:
  a folder is listed whole even where some writer sorted names in his own way.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeVar

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.hfs.structs import HEADER_NODE, INDEX_NODE, LEAF_NODE, NODE_DESCRIPTOR, NODE_SIZE, BTHdrRec
from dmgfs.source import ByteSource

MAX_DEPTH = 16

_DECODED_RECORD = 200
"""Bytes that a key costs beside its node, for the cache's budget."""

K = TypeVar("K", bound=tuple[Any, ...])

KeyReader = Callable[[bytes, int, int], K | None]
"""(node, start and end of a key without its length byte) → key, None if it cannot be one."""


class TreeNode(Generic[K]):
    """One decoded node. offsets[i] is where record i begins in `data`, offsets[len(keys)] where free space begins."""

    __slots__ = ("data", "flink", "height", "keys", "number", "offsets")

    def __init__(
        self, number: int, height: int, flink: int, data: bytes, offsets: tuple[int, ...], keys: list[K]
    ) -> None:
        self.number = number
        self.height = height
        self.flink = flink
        self.data = data
        self.offsets = offsets
        self.keys = keys

    def __len__(self) -> int:
        """Bytes of memory, about: what a cache counts."""
        return len(self.data) + _DECODED_RECORD * len(self.keys)

    def record(self, index: int) -> bytes:
        """The data of a leaf's record: after its key, on an even offset."""
        start = self.offsets[index]
        return self.data[start + (self.data[start] + 2 & ~1) : self.offsets[index + 1]]


class Place(NamedTuple):
    """A record in the leaf chain: number of the leaf, slot in it (its record count: behind the last one)."""

    leaf: int
    slot: int


class BTree(Generic[K]):
    """A tree in `source` (its fork). layer: how errors name it. index_key: bytes that a key takes in index nodes, its
    length byte not counted. Raises CorruptImage if the header cannot be used."""

    def __init__(
        self, source: ByteSource, layer: str, index_key: int, read_key: KeyReader[K], cache: ChunkCache[Any]
    ) -> None:
        self._source = source
        self.layer = layer
        self._index_key = index_key
        self._read_key = read_key
        self._cache = cache
        self._identity = object()
        self._read_header()

    def _corrupt(self, structure: str, why: str, offset: int | None = None) -> CorruptImage:
        return CorruptImage(self.layer, structure, why, offset)

    def _read_header(self) -> None:
        if self._source.size < NODE_SIZE:
            raise self._corrupt("header node", f"the tree has {self._source.size} bytes, a node takes {NODE_SIZE}", 0)
        data = bytes(self._source.read(0, NODE_SIZE))
        _, _, kind, _, records, _ = NODE_DESCRIPTOR.unpack_from(data)
        if kind != HEADER_NODE or records < 1:
            raise self._corrupt("header node", f"kind {kind} with {records} records, {HEADER_NODE} expected", 0)
        record = BTHdrRec.parse(data[NODE_DESCRIPTOR.size :])
        why = None
        if record.bthNodeSize != NODE_SIZE:
            why = f"node size {record.bthNodeSize}, {NODE_SIZE} expected"
        elif record.bthNNodes * NODE_SIZE > self._source.size:
            why = f"{record.bthNNodes} nodes do not fit into the {self._source.size} bytes of the tree"
        elif record.bthDepth > MAX_DEPTH:
            why = f"depth {record.bthDepth}, {MAX_DEPTH} is the limit"
        elif (record.bthDepth == 0) != (record.bthRoot == 0) or record.bthRoot >= max(record.bthNNodes, 1):
            why = f"root node {record.bthRoot} at depth {record.bthDepth}, the tree has {record.bthNNodes} nodes"
        if why is not None:
            raise self._corrupt("header record", why, NODE_DESCRIPTOR.size)
        self.depth: int = record.bthDepth
        self.root: int = record.bthRoot
        self.total_nodes: int = record.bthNNodes

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def node(self, number: int, height: int) -> TreeNode[K]:
        """Node `number`, which the caller expects at `height` (1: leaf). Raises CorruptImage."""
        node: TreeNode[K] = self._cache.get_inline((self._identity, number), lambda: self._decode(number))
        if node.height != height:
            why = f"height {node.height} where {height} belongs"
            raise self._corrupt(f"node {number}", why, number * NODE_SIZE)
        return node

    def _decode(self, number: int) -> TreeNode[K]:
        place = number * NODE_SIZE
        if not 0 < number < self.total_nodes:
            raise self._corrupt(f"link to node {number}", f"the tree has {self.total_nodes} nodes")
        data = bytes(self._source.read(place, NODE_SIZE))
        flink, _, kind, height, count, _ = NODE_DESCRIPTOR.unpack_from(data)
        table = NODE_SIZE - 2 * (count + 1)
        why = None
        if kind not in (LEAF_NODE, INDEX_NODE) or (kind == LEAF_NODE) != (height == 1) or height == 0:
            why = f"kind {kind} at height {height}, a leaf or index node expected"
        elif flink >= self.total_nodes or flink == number:
            why = f"linked with node {flink}, the tree has {self.total_nodes}"
        elif count == 0 or NODE_DESCRIPTOR.size > table:
            why = f"{count} records in {NODE_SIZE} bytes"
        if why is not None:
            raise self._corrupt(f"node {number}", why, place)
        offsets = tuple(int.from_bytes(data[at : at + 2]) for at in range(NODE_SIZE - 2, table - 1, -2))
        keys = []
        for index, (start, end) in enumerate(pairwise(offsets)):
            if not NODE_DESCRIPTOR.size <= start < end <= table:
                why = "record offsets out of order or out of the node"
                raise self._corrupt(f"node {number}: record {index}", why, place + start)
            keys.append(self._key(data, number, index, start, end, kind == INDEX_NODE))
        return TreeNode(number, height, flink, data, offsets, keys)

    def _key(self, data: bytes, number: int, index: int, start: int, end: int, in_index: bool) -> K:
        """The key of the record at [start, end)."""
        length = data[start]
        if in_index:
            fits = length <= self._index_key and start + self._body_of_index() + 4 <= end
        else:
            fits = start + 1 + length <= end
        key = self._read_key(data, start + 1, start + 1 + length) if fits else None
        if key is None:
            why = f"a key of {length} bytes in a record of {end - start}"
            raise self._corrupt(f"node {number}: record {index}", why, number * NODE_SIZE + start)
        return key

    def _body_of_index(self) -> int:
        """Where an index record has its node number: behind a key of fixed length, on an even offset."""
        return self._index_key + 2 & ~1

    def _child(self, node: TreeNode[K], index: int) -> int:
        at = node.offsets[index] + self._body_of_index()
        return int.from_bytes(node.data[at : at + 4])

    # -- finding -------------------------------------------------------------------------------------------------------

    def _leaf(self, key: K) -> TreeNode[K] | None:
        """The leaf where `key` is or would be, the first one if it is smaller than every key; None if the tree is
        empty."""
        if self.root == 0:
            return None
        number = self.root
        for height in range(self.depth, 1, -1):
            node = self.node(number, height)
            number = self._child(node, max(0, bisect_right(node.keys, key) - 1))
        return self.node(number, 1)

    def seek(self, key: K) -> Place | None:
        """The first record whose key is not smaller than `key`. It may be behind the last record of its leaf."""
        leaf = self._leaf(key)
        return None if leaf is None else Place(leaf.number, bisect_left(leaf.keys, key))

    def at(self, place: Place) -> tuple[TreeNode[K], Place] | None:
        """The record at `place`, or the next one where a leaf ends: its leaf and its own place. None behind the last
        leaf. Raises CorruptImage where the next leaf does not go on from this one."""
        leaf = self.node(place.leaf, 1)
        if place.slot < len(leaf.keys):
            return leaf, place
        if leaf.flink == 0:
            return None
        following = self.node(leaf.flink, 1)
        if following.keys[0] <= leaf.keys[0]:
            why = f"linked with node {leaf.flink}, whose keys do not follow"
            raise self._corrupt(f"node {leaf.number}", why, leaf.number * NODE_SIZE)
        return following, Place(leaf.flink, 0)

    def find(self, key: K) -> tuple[TreeNode[K], Place] | None:
        """The first record with exactly this key."""
        place = self.seek(key)
        found = None if place is None else self.at(place)
        return found if found is not None and found[0].keys[found[1].slot] == key else None
