"""The trees of a volume, made of their records, and how large their files are.

Rule: what all trees of a volume hold has one sum, which tells volumes apart.
"""

import hashlib
from collections.abc import Callable, Iterable

from dmgfs.hfsplus_writer.btree import TreeWriter, nodes_needed
from dmgfs.hfsplus_writer.records import Record
from dmgfs.hfsplus_writer.scratch import Scratch

MOST_CATALOG_KEY, MOST_ATTRIBUTE_KEY, EXTENT_KEY = 516, 266, 10


def whole(size: int, node_size: int, block_size: int) -> int:
    """At least `size` bytes, in whole nodes and whole blocks."""
    unit = max(node_size, block_size)
    return max(1, -(-size // unit)) * unit


def nodes_for(node_size: int, block_size: int, least: int, records: tuple[int, int, int, int]) -> int:
    return whole(max(nodes_needed(node_size, *records) * node_size, least), node_size, block_size) // node_size


class Trees:
    """Makes the trees, and a sum of all their records."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._sum = hashlib.sha256()
        self._advance = advance

    def make(
        self,
        records: Iterable[Record],
        *,
        node_size: int,
        nodes: int,
        max_key_length: int,
        flags: int | None = None,
        key_compare: int = 0,
        clump: int,
    ) -> Scratch:
        out = Scratch()
        writer = TreeWriter(
            out,
            node_size=node_size,
            nodes=nodes,
            max_key_length=max_key_length,
            key_compare=key_compare,
            clump=clump,
            **({} if flags is None else {"flags": flags}),
        )
        add, update = writer.add, self._sum.update
        for number, (key, data, room) in enumerate(records):
            add(key, data, room)
            update(key)
            update(data)
            if number % 1024 == 1023:
                self._advance(1024)
        writer.finish()
        return out

    def digest(self) -> int:
        return int.from_bytes(self._sum.digest()[:8])
