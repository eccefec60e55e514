"""B-trees of any node size and depth: everything found, everything in order, damage named and local."""

import struct
from bisect import bisect_left, bisect_right
from typing import Any

import pytest
from builders.hfsplus import build_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.hfsplus import attributes, catalog, extents
from dmgfs.hfsplus.btree import BTree
from dmgfs.hfsplus.unicode import fold
from dmgfs.source import MemorySource

NODE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768]


def extent_record(key: tuple[int, int, int]) -> tuple[bytes, bytes]:
    file_id, fork_type, block = key
    return struct.pack(">HBBII", 10, fork_type, 0, file_id, block), struct.pack(">II", file_id, block) + bytes(56)


def extent_tree(keys: list[tuple[int, int, int]], node_size: int, **more: Any) -> bytes:
    return build_tree(
        [extent_record(key) for key in sorted(keys)], node_size, max_key_length=10, attributes=2, **more
    )


def open_tree(data: bytes | bytearray, budget: int = 1 << 20) -> BTree[tuple[int, int, int]]:
    return BTree(MemorySource(data), "extents", extents.read_keys, ChunkCache(budget))


def scan(tree: BTree[Any], start: Any) -> list[Any]:
    found = []
    place = tree.seek(start, beyond=False)
    while place is not None:
        leaf, index = place
        found.append(leaf.keys[index])
        if index + 1 < leaf.count:
            place = leaf, index + 1
        else:
            following = tree.following(leaf)
            place = None if following is None else (following, 0)
    return found


KEYS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from([0, 0xFF]), st.integers(0, 1 << 32).map(lambda n: n % (1 << 32))),
    max_size=80,
    unique=True,
)


@given(KEYS, st.sampled_from(NODE_SIZES), st.integers(2, 9) | st.none(), st.integers(0, 3))
@settings(deadline=None)
def test_every_key_is_found_and_the_chain_is_in_order(
    keys: list[tuple[int, int, int]], node_size: int, per_node: int | None, spare: int
) -> None:
    tree = open_tree(extent_tree(keys, node_size, records_per_node=per_node, spare_nodes=spare))
    ordered = sorted(keys)
    assert scan(tree, (0, 0, 0)) == ordered
    for key in ordered:
        place = tree.find(key)
        assert place is not None
        leaf, index = place
        assert leaf.keys[index] == key
        body = leaf.body(index)
        assert struct.unpack_from(">II", leaf.data, body) == (key[0], key[2])
    for missing in [(0, 1, 0), (61, 0, 0), *((a, 1, c) for a, _, c in ordered[:5])]:
        assert tree.find(missing) is None
        assert scan(tree, missing) == ordered[bisect_left(ordered, missing) :]
    for key in ordered[:5]:
        place = tree.seek(key, beyond=True)
        rest = ordered[bisect_right(ordered, key) :]
        assert (place is None) == (not rest)
        if place is not None:
            assert place[0].keys[place[1]] == rest[0]


ATTRIBUTE_KEYS = st.lists(
    st.tuples(st.integers(16, 30), st.text("abcXYZé\0\uffff", max_size=20), st.sampled_from([0, 1, 500])),
    max_size=60,
    unique=True,
)


@given(ATTRIBUTE_KEYS, st.sampled_from(NODE_SIZES), st.booleans())
@settings(deadline=None)
def test_attribute_trees_with_variable_and_with_fixed_index_keys(
    keys: list[tuple[int, str, int]], node_size: int, variable: bool
) -> None:
    def record(key: tuple[int, bytes, int]) -> tuple[bytes, bytes]:
        file_id, name, block = key
        return struct.pack(">HHIIH", 12 + len(name), 0, file_id, block, len(name) // 2) + name, b"body"

    ordered = sorted((file_id, name.encode("utf-16-be"), block) for file_id, name, block in keys)
    data = build_tree(
        [record(key) for key in ordered],
        node_size,
        max_key_length=60,
        attributes=6 if variable else 2,
        records_per_node=3,
    )
    tree = BTree(MemorySource(data), "attributes", attributes.read_keys, ChunkCache(1 << 20))
    assert scan(tree, (0, b"", 0)) == ordered
    for key in ordered:
        place = tree.find(key)
        assert place is not None
        assert place[0].data[place[0].body(place[1]) :][:4] == b"body"


@given(st.lists(st.tuples(st.integers(1, 40), st.text(max_size=20)), max_size=60), st.sampled_from(NODE_SIZES))
@settings(deadline=None)
def test_catalog_keys_of_any_names(names: list[tuple[int, str]], node_size: int) -> None:
    records = {}
    for parent, name in names:
        encoded = name.encode("utf-16-be", "surrogatepass")
        key = struct.pack(">HIH", 6 + len(encoded), parent, len(encoded) // 2) + encoded
        records[parent, fold(encoded)] = (key, b"data")
    ordered = sorted(records)
    data = build_tree([records[key] for key in ordered], node_size, max_key_length=516, attributes=6)
    tree = BTree(MemorySource(data), "catalog", catalog.KeyReader(fold), ChunkCache(1 << 20))
    assert scan(tree, b"") == [catalog.key_of(*key) for key in ordered]
    assert all(tree.find(catalog.key_of(*key)) is not None for key in ordered)


def test_depth_sixteen() -> None:
    keys = [(number, 0, 0) for number in range(40000)]
    tree = open_tree(extent_tree(keys, 512, records_per_node=2), 1 << 16)
    assert tree.header.depth == 16
    assert all(tree.find(key) is not None for key in keys[::997])
    assert scan(tree, (39000, 0, 0)) == keys[39000:]


def test_an_empty_tree_has_no_keys() -> None:
    tree = open_tree(extent_tree([], 512))
    assert tree.find((1, 0, 0)) is None
    assert tree.seek((0, 0, 0), beyond=False) is None


def test_opening_reads_one_node_and_finding_one_per_level() -> None:
    class Counting(MemorySource):
        reads = 0

        def read(self, offset: int, length: int) -> Any:
            self.reads += 1
            return super().read(offset, length)

    source = Counting(extent_tree([(number, 0, 0) for number in range(2000)], 512, records_per_node=4))
    tree = BTree(source, "extents", extents.read_keys, ChunkCache(1 << 20))
    assert source.reads == 1
    tree.find((1234, 0, 0))
    assert source.reads == 1 + tree.header.depth
    tree.find((1234, 0, 0))
    assert source.reads == 1 + tree.header.depth


# -- damage ---------------------------------------------------------------------------------------------------------------

HEADER = 14
SIZE = 512


def sound() -> bytearray:
    """Three leaves (nodes 1-3), the root above them (4)."""
    return bytearray(extent_tree([(number, 0, 0) for number in range(9)], SIZE, records_per_node=3))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (8, ">b", 0),  # kind
        (9, ">B", 1),  # height
        (10, ">H", 2),  # records
        (HEADER + 0, ">H", 17),  # depth beyond the limit
        (HEADER + 0, ">H", 0),  # depth 0 with a root
        (HEADER + 2, ">I", 5),  # root outside
        (HEADER + 10, ">I", 5),  # first leaf outside
        (HEADER + 14, ">I", 1 << 31),  # last leaf outside
        *((HEADER + 18, ">H", size) for size in (0, 3, 256, 513, 1000, 65535)),
        (HEADER + 22, ">I", 6),  # more nodes than the fork holds
        (HEADER + 22, ">I", 0xFFFFFFFF),
        (HEADER + 26, ">I", 6),  # free nodes
    ],
)
def test_a_damaged_header_node_is_named(offset: int, form: str, value: int) -> None:
    data = sound()
    struct.pack_into(form, data, offset, value)
    with pytest.raises(CorruptImage, match="extents: header"):
        open_tree(data)


def test_the_map_of_free_nodes_is_not_read() -> None:
    data = sound()
    bitmap = HEADER + 106 + 128
    data[bitmap : SIZE - 8] = b"\xff" * (SIZE - 8 - bitmap)
    for following in (0, 1, 99):  # of the header node: the next map node
        struct.pack_into(">I", data, 0, following)
        tree = open_tree(data)
        assert tree.find((4, 0, 0)) is not None


def test_a_fork_too_short_for_a_node() -> None:
    with pytest.raises(CorruptImage, match="header node"):
        open_tree(b"short")


def leaf(number: int) -> int:
    return number * SIZE


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (8, ">b", 0),  # an index node among the leaves
        (8, ">b", 2),  # a map node
        (9, ">B", 2),  # wrong height
        (0, ">I", 2),  # fLink to itself
        (0, ">I", 99),  # fLink outside
        (4, ">I", 2),  # bLink to itself
        (4, ">I", 5),  # bLink outside
        (10, ">H", 0),  # no records
        (10, ">H", 65535),  # more than fit
        (10, ">H", 4),  # free space counted as a record
        (SIZE - 2, ">H", 12),  # first record inside the descriptor
        (SIZE - 4, ">H", 14),  # no length
        (SIZE - 4, ">H", 89),  # odd
        (SIZE - 4, ">H", 500),  # out of order
        (SIZE - 8, ">H", 510),  # free space inside the offset table
        (14, ">H", 0xFFFF),  # key longer than the record
        (14, ">H", 11),  # key of the wrong length
        (18, ">I", 8),  # key greater than the one behind it
    ],
)
def test_a_damaged_leaf_hurts_only_itself(offset: int, form: str, value: int) -> None:
    data = sound()
    struct.pack_into(form, data, leaf(2) + offset, value)
    tree = open_tree(data)
    assert tree.find((0, 0, 0)) is not None
    assert tree.find((8, 0, 0)) is not None
    for _ in range(2):  # the complaint is repeated, not remembered as success
        with pytest.raises(CorruptImage, match="node 2"):
            tree.find((4, 0, 0))
    with pytest.raises(CorruptImage):
        scan(tree, (0, 0, 0))


@pytest.mark.parametrize("child", [0, 4, 99, 0xFFFFFFFF])
def test_an_index_record_that_leads_nowhere_up_or_to_itself(child: int) -> None:
    data = sound()
    root = leaf(4)
    body = root + 14 + 12  # the first record's node number
    struct.pack_into(">I", data, body, child)
    tree = open_tree(data)
    with pytest.raises(CorruptImage):
        tree.find((0, 0, 0))
    assert tree.find((8, 0, 0)) is not None


def test_an_index_record_too_short_for_a_node_number() -> None:
    data = sound()
    # The third record of the root loses its node number to free space.
    struct.pack_into(">H", data, leaf(4) + SIZE - 2 * 4, 14 + 2 * 16 + 12)
    with pytest.raises(CorruptImage, match="too short"):
        open_tree(data).find((8, 0, 0))


def test_depth_and_height_must_agree() -> None:
    data = sound()
    struct.pack_into(">H", data, HEADER, 3)
    with pytest.raises(CorruptImage, match="height"):
        open_tree(data).find((0, 0, 0))


@pytest.mark.parametrize("target", [1, 4])
def test_a_leaf_chain_that_turns_back(target: int) -> None:
    data = sound()
    struct.pack_into(">I", data, leaf(3), target)
    tree = open_tree(data)
    with pytest.raises(CorruptImage, match=r"keys do not follow|height"):
        scan(tree, (0, 0, 0))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_bit_flips_end_in_an_error_or_in_rising_keys(data: st.DataObject) -> None:
    tree_bytes = sound()
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, len(tree_bytes) * 8 - 1))
        tree_bytes[bit // 8] ^= 1 << bit % 8
    try:
        tree = open_tree(tree_bytes)
        keys = scan(tree, (0, 0, 0))
        assert keys == sorted(set(keys))
    except CorruptImage:
        pass
