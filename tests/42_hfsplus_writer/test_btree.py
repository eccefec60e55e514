"""Trees as they are written: the reader finds every record, in order, whatever the sizes; no more nodes than foreseen."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.hfsplus import attributes, extents
from dmgfs.hfsplus.btree import BTree
from dmgfs.hfsplus.check import check_tree
from dmgfs.hfsplus.structs import ATTRIBUTE_KEY, INLINE_ATTRIBUTE, INLINE_ATTRIBUTE_HEADER
from dmgfs.hfsplus_writer.btree import BIG_KEYS, TreeWriter, map_nodes, nodes_needed, used_bits
from dmgfs.hfsplus_writer.scratch import Scratch

Record = tuple[bytes, bytes]


def attribute_record(cnid: int, name: str, value: bytes) -> Record:
    encoded = name.encode("utf-16-be")
    key = ATTRIBUTE_KEY.pack(12 + len(encoded), 0, cnid, 0, len(name)) + encoded
    return key, INLINE_ATTRIBUTE_HEADER.pack(INLINE_ATTRIBUTE, len(value)) + value


def write(records: list[Record], node_size: int, spare: int = 0) -> Scratch:
    sizes = [len(key) + len(data) + len(data) % 2 for key, data in records]
    longest = max((len(key) for key, _ in records), default=0)
    nodes = nodes_needed(node_size, len(records), sum(sizes), max(sizes, default=0), longest) + spare
    out = Scratch()
    writer = TreeWriter(out, node_size=node_size, nodes=nodes, max_key_length=266)
    for key, data in records:
        writer.add(key, data)
    writer.finish()
    return out


def opened(out: Scratch) -> BTree[attributes.AttributeTreeKey]:
    return BTree(out, "attributes", attributes.read_keys, ChunkCache(1 << 20))


@given(
    st.dictionaries(
        st.tuples(st.integers(16, 40), st.text("abcXYZ", min_size=1, max_size=30)),
        st.binary(max_size=120),
        max_size=90,
    ),
    st.sampled_from((512, 1024, 4096)),
    st.integers(0, 3),
)
def test_everything_is_found(values: dict[tuple[int, str], bytes], node_size: int, spare: int) -> None:
    records = [attribute_record(*key, values[key]) for key in sorted(values)]
    tree = opened(write(records, node_size, spare))
    assert list(check_tree(tree)) == []
    assert tree.header.leaf_records == len(values)
    for cnid, name in values:
        assert tree.find((cnid, name.encode("utf-16-be"), 0)) is not None


def test_many_nodes_need_a_longer_map() -> None:
    """The header's map of a 512-byte node has 2048 bits."""
    records = [attribute_record(16 + number, "name", bytes(300)) for number in range(6000)]
    out = write(records, 512)
    tree = opened(out)
    assert list(check_tree(tree)) == []
    assert tree.header.leaf_records == 6000
    total, free = tree.header.total_nodes, tree.header.free_nodes
    maps = map_nodes(total, 512)
    assert maps >= 1
    used = bytearray(out.read(14 + 106 + 128, 512 - 256))
    number, chain = struct.unpack(">I", out.read(0, 4))[0], []
    while number:
        chain.append(number)
        used += out.read(number * 512 + 14, 512 - 20)
        assert out.read(number * 512 + 8, 2) == b"\x02\x00"
        (number,) = struct.unpack(">I", out.read(number * 512, 4))
    assert chain == list(range(1, maps + 1))
    assert used.count(0xFF) * 8 <= total - free
    assert sum(bin(byte).count("1") for byte in used) == total - free


def test_a_tree_without_records() -> None:
    out = Scratch()
    TreeWriter(out, node_size=1024, nodes=4, max_key_length=10, flags=BIG_KEYS).finish()
    tree = BTree(out, "extents", extents.read_keys, ChunkCache(1 << 20))
    assert (tree.header.depth, tree.header.root, tree.header.free_nodes, tree.header.total_nodes) == (0, 0, 3, 4)
    assert tree.find((16, 0, 0)) is None


@given(st.integers(0, 200), st.integers(0, 20), st.integers(1, 9))
def test_maps_in_parts(used: int, start: int, size: int) -> None:
    whole = bytes(sum(0x80 >> bit for bit in range(8) if byte * 8 + bit < used) for byte in range(40))
    assert used_bits(used, 8 * start, size) == whole[start : start + size]


@pytest.mark.parametrize("sizes", [[500], [100] * 9, [5, 481, 5, 481, 5, 481], [244] * 50])
def test_the_bound_on_nodes_holds(sizes: list[int]) -> None:
    """Records whose sizes waste as much of each node as they can."""
    records = []
    for number, size in enumerate(sizes):
        key, _ = attribute_record(16 + number, "n", b"")
        records.append((key, bytes(max(2, size - len(key) - 8))))
    write(records, 512)
