"""Writer of B-trees (TN1150 "B-Trees"): records come in the order of their keys, nodes are filled one after the other, and
each level of index nodes is made of the level below, until one node is left. So every leaf is equally deep.

Rules that hold here:
- the number of nodes is fixed before the first record comes (`nodes_needed` gives a bound); those that stay empty are
  free nodes of the tree, in which a writing driver can go on;
- node 0 is the header, the map nodes follow it, then the leaves in the order of their keys, then the index levels;
- in memory are one node and the first key of every node of one level.
"""

import struct

from dmgfs.hfsplus.structs import HEADER_NODE, INDEX_NODE, LEAF_NODE, NODE_DESCRIPTOR, HeaderRecord
from dmgfs.hfsplus_writer.scratch import Scratch

MAP_NODE = 2
BIG_KEYS, VARIABLE_INDEX_KEYS = 2, 4

_DESCRIPTOR = NODE_DESCRIPTOR.size
_OVERHEAD = _DESCRIPTOR + 2
"""Bytes of a node that no record can take: its descriptor, and the offset of its free space."""
_HEADER_RECORDS = 106 + 128
_MAP_ROOM = 20
"""Bytes of a map node that are not map: Apple leaves two besides descriptor and offsets."""
_POINTER = 4


def map_nodes(nodes: int, node_size: int) -> int:
    """How many map nodes a tree of `nodes` nodes needs besides the map in its header."""
    beyond = nodes - 8 * _header_map(node_size)
    return max(0, -(-beyond // (8 * (node_size - _MAP_ROOM))))


def _header_map(node_size: int) -> int:
    """Bytes of the map in the header node."""
    return node_size - _DESCRIPTOR - _HEADER_RECORDS - 4 * 2


def nodes_needed(node_size: int, records: int, record_bytes: int, largest: int, largest_key: int) -> int:
    """At most so many nodes take `records` records. record_bytes: of all of them with their keys; largest: of one;
    largest_key: with its length field."""
    if not records:
        return 1
    # A node is left when the next record does not fit, so it is full but for less than that.
    least = max(1, node_size - _OVERHEAD - (largest + 2) + 1)
    level = min(records, -(-(record_bytes + 2 * records) // least))
    total = level
    fan_out = (node_size - _OVERHEAD) // (largest_key + _POINTER + 2)
    while level > 1:
        level = -(-level // fan_out)
        total += level
    total += 1
    maps = 0
    while map_nodes(total + maps, node_size) > maps:
        maps += 1
    return total + maps


class TreeWriter:
    """Writes one tree into `out`. key_compare: of HeaderRecord; flags: its attributes. clump: bytes, what its file grows
    by. Trees without variable index keys must have keys of `max_key_length`."""

    def __init__(
        self,
        out: Scratch,
        *,
        node_size: int,
        nodes: int,
        max_key_length: int,
        flags: int = BIG_KEYS | VARIABLE_INDEX_KEYS,
        key_compare: int = 0,
        clump: int = 0,
    ) -> None:
        self._out = out
        self._node_size = node_size
        self._nodes = nodes
        self._maps = map_nodes(nodes, node_size)
        self._header = {
            "nodeSize": node_size,
            "maxKeyLength": max_key_length,
            "totalNodes": nodes,
            "reserved1": 0,
            "clumpSize": clump,
            "btreeType": 0,
            "keyCompareType": key_compare,
            "attributes": flags,
            "reserved3": [0] * 16,
        }
        self._next = 1 + self._maps
        self._first_of_level = self._next
        self._kind, self._height = LEAF_NODE, 1
        self._keys: list[bytes] = []  # the first of every node of this level
        self._rows: list[bytes] = []
        self._room = self._capacity = node_size - _OVERHEAD
        self._first_key = b""
        self._records = 0

    def add(self, key: bytes, data: bytes, room: int = 0) -> None:
        """The next record. key: with its length field, of even length. room: bytes that must be left in its node from the
        beginning of the record on, even if it is shorter."""
        row = key + data if len(data) % 2 == 0 else key + data + b"\0"
        need = len(row) + 2
        if need > self._room or room > self._room:
            self._write_node(last=False)
        if not self._rows:
            self._first_key = key
        self._rows.append(row)
        self._room -= need
        self._records += 1

    def _write_node(self, *, last: bool) -> None:
        number = self._next
        rows = self._rows
        assert rows, "a record is larger than a node"
        assert number < self._nodes, "more nodes than were foreseen"
        offsets = [_DESCRIPTOR]
        at = _DESCRIPTOR
        for row in rows:
            at += len(row)
            offsets.append(at)
        offsets.reverse()
        before = number - 1 if number > self._first_of_level else 0
        node = bytearray(self._node_size)
        NODE_DESCRIPTOR.pack_into(node, 0, 0 if last else number + 1, before, self._kind, self._height, len(rows), 0)
        node[_DESCRIPTOR:at] = b"".join(rows)
        struct.pack_into(f">{len(offsets)}H", node, self._node_size - 2 * len(offsets), *offsets)
        self._out.write(number * self._node_size, node)
        self._keys.append(self._first_key)
        self._next += 1
        self._rows = []
        self._room = self._capacity

    def finish(self) -> None:
        """No more records come."""
        records, first_leaf = self._records, 1 + self._maps
        depth = root = last_leaf = 0
        if records:
            self._write_node(last=True)
            depth, last_leaf = 1, self._next - 1
            while len(self._keys) > 1:
                depth += 1
                self._index_level(depth)
            root = self._next - 1
        self._write_maps()
        record = HeaderRecord.build(
            {
                **self._header,
                "treeDepth": depth,
                "rootNode": root,
                "leafRecords": records,
                "firstLeafNode": first_leaf if records else 0,
                "lastLeafNode": last_leaf,
                "freeNodes": self._nodes - self._next,
            }
        )
        self._write_special(0, HEADER_NODE, 1 if self._maps else 0, [record, bytes(128), self._map_part(0)])
        self._out.extend(self._nodes * self._node_size)

    def _index_level(self, height: int) -> None:
        below, child = self._keys, self._first_of_level
        self._keys, self._first_of_level = [], self._next
        self._kind, self._height = INDEX_NODE, height
        for key in below:
            self.add(key, child.to_bytes(_POINTER))
            child += 1
        self._write_node(last=True)

    def _write_maps(self) -> None:
        for number in range(1, self._maps + 1):
            following = number + 1 if number < self._maps else 0
            self._write_special(number, MAP_NODE, following, [self._map_part(number)])

    def _map_part(self, part: int) -> bytes:
        """The map of the nodes in use, as far as it stands in map node `part` (0: the header)."""
        size = _header_map(self._node_size) if part == 0 else self._node_size - _MAP_ROOM
        skip = 0 if part == 0 else _header_map(self._node_size) + (part - 1) * size
        return used_bits(self._next, 8 * skip, size)

    def _write_special(self, number: int, kind: int, following: int, records: list[bytes]) -> None:
        body = b"".join(records)
        offsets = [_DESCRIPTOR]
        for each in records:
            offsets.append(offsets[-1] + len(each))
        node = bytearray(self._node_size)
        NODE_DESCRIPTOR.pack_into(node, 0, following, 0, kind, 0, len(records), 0)
        node[_DESCRIPTOR : _DESCRIPTOR + len(body)] = body
        struct.pack_into(f">{len(offsets)}H", node, self._node_size - 2 * len(offsets), *reversed(offsets))
        self._out.write(number * self._node_size, node)


def used_bits(used: int, start: int, size: int) -> bytes:
    """`size` bytes of a map in which the first `used` bits are set, from bit `start` (a multiple of 8) on."""
    count = min(max(0, used - start), 8 * size)
    whole, rest = divmod(count, 8)
    return (b"\xff" * whole + (bytes((0xFF00 >> rest & 0xFF,)) if rest else b"")).ljust(size, b"\0")
