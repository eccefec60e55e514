"""Forks: any fragmentation, overflow of any depth, and what is left of a damaged one."""

import struct

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder, fork_data
from builders.walk import children, opened, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage, OutOfRange
from dmgfs.source import ByteSource

BLOCK = 512


def pattern(size: int) -> bytes:
    return b"".join(struct.pack(">I", number) for number in range(-(-size // 4)))[:size]


@given(
    sizes=st.lists(st.integers(0, 60 * BLOCK), min_size=1, max_size=6),
    step=st.integers(1, 5),
    per_node=st.integers(2, 6) | st.none(),
    node_size=st.sampled_from([512, 1024, 4096]),
    reads=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=10),
)
@settings(deadline=None, max_examples=60)
def test_fragmented_files_read_right_at_any_offset(
    sizes: list[int], step: int, per_node: int | None, node_size: int, reads: list[tuple[float, float]]
) -> None:
    builder = HfsPlusBuilder(extents_node_size=node_size, records_per_node=per_node)
    files = [
        builder.file(ROOT, f"file {number}", pattern(size), extent_blocks=step) for number, size in enumerate(sizes)
    ]
    volume = opened(builder.build().data)
    for cnid, size in zip(files, sizes, strict=True):
        source = volume.data(volume.node(cnid))
        assert source.size == size
        assert whole(source) == pattern(size)
        for start, length in reads:
            offset = int(start * size)
            count = int(length * (size - offset))
            assert bytes(source.read(offset, count)) == pattern(size)[offset : offset + count]


def test_a_thousand_extents_in_a_deep_overflow_tree() -> None:
    builder = HfsPlusBuilder(extents_node_size=512, records_per_node=2)
    data = pattern(1000 * BLOCK)
    cnid = builder.file(ROOT, "shattered", data, resource=data[::-1], extent_blocks=1)
    volume = opened(builder.build().data)
    node = volume.node(cnid)
    assert whole(volume.data(node)) == data
    assert whole(volume.resource(node)) == data[::-1]


def test_the_catalog_itself_may_be_fragmented() -> None:
    builder = HfsPlusBuilder(catalog_node_size=1024, catalog_extent_blocks=1)
    for number in range(200):
        builder.file(ROOT, f"file {number:03}", b"%d" % number)
    volume = opened(builder.build().data)
    nodes = children(volume, ROOT)
    assert len(nodes) == 200
    assert all(whole(volume.data(node)) == b"%d" % int(node.name[5:]) for node in nodes)


def file_with(fork: bytes) -> HfsPlusBuilder:
    builder = HfsPlusBuilder()
    builder.blocks[8] = b"8" * BLOCK
    builder.blocks[9] = b"9" * BLOCK
    builder.next_block = 10
    builder.file(ROOT, "file", data_fork=fork)
    return builder


def only_file(builder: HfsPlusBuilder) -> tuple[int, ByteSource]:
    volume = opened(builder.build().data)
    node = volume.find(ROOT, "file")
    assert node is not None
    return node.data_size, volume.data(node)


def test_reads_beyond_the_extents_are_errors_and_never_zeros() -> None:
    size, source = only_file(file_with(fork_data(10 * BLOCK, 10, [(8, 2)])))
    assert size == source.size == 10 * BLOCK
    assert bytes(source.read(0, 2 * BLOCK)) == b"8" * BLOCK + b"9" * BLOCK
    for offset, length in ((2 * BLOCK, 1), (BLOCK, BLOCK + 1), (9 * BLOCK, BLOCK)):
        with pytest.raises(CorruptImage, match="only 1024 have a place"):
            source.read(offset, length)
    with pytest.raises(OutOfRange):
        source.read(10 * BLOCK, 1)


def test_an_enormous_size_is_shown_and_costs_nothing() -> None:
    for claimed, shown in ((1 << 62, 1 << 62), ((1 << 64) - 1, (1 << 63) - 1)):
        size, source = only_file(file_with(fork_data(claimed, 2, [(8, 2)])))
        assert size == source.size == shown
        assert bytes(source.read(0, 3)) == b"888"
        with pytest.raises(CorruptImage):
            source.read(shown - 1, 1)


@pytest.mark.parametrize("extent", [(1 << 31, 1), (0xFFFFFFFF, 0xFFFFFFFF), (9, 0xFFFFFFFF)])
def test_extents_outside_the_volume_end_the_fork_there(extent: tuple[int, int]) -> None:
    _, source = only_file(file_with(fork_data(BLOCK * 5000, 5000, [(8, 1), extent])))
    assert bytes(source.read(0, BLOCK)) == b"8" * BLOCK
    with pytest.raises(CorruptImage):
        source.read(4990 * BLOCK, BLOCK)


def test_overlapping_extents_are_read_as_they_are() -> None:
    _, source = only_file(file_with(fork_data(3 * BLOCK, 3, [(8, 2), (8, 1)])))
    assert whole(source) == b"8" * BLOCK + b"9" * BLOCK + b"8" * BLOCK


def test_an_empty_extent_ends_the_list() -> None:
    _, source = only_file(file_with(fork_data(2 * BLOCK, 2, [(8, 1), (0, 0), (9, 1)])))
    with pytest.raises(CorruptImage):
        source.read(BLOCK, 1)


@pytest.mark.parametrize(
    ("block", "extents"),
    [
        (1, []),  # adds nothing
        (2, [(9, 1)]),  # does not begin where the fork ends
    ],
)
def test_an_overflow_record_that_does_not_continue_the_fork_is_not_used(
    block: int, extents: list[tuple[int, int]]
) -> None:
    builder = file_with(fork_data(3 * BLOCK, 3, [(8, 1)]))
    builder.overflow(16, 0, block, extents)
    _, source = only_file(builder)
    with pytest.raises(CorruptImage):
        source.read(BLOCK, 1)


def test_an_overflow_record_cut_short_is_an_error_of_that_file() -> None:
    builder = file_with(fork_data(3 * BLOCK, 3, [(8, 1)]))
    builder.extent_records.append(((16, 0, 1), (struct.pack(">HBBII", 10, 0, 0, 16, 1), b"short!")))
    builder.file(ROOT, "other", b"fine")
    volume = opened(builder.build().data)
    broken, other = volume.find(ROOT, "file"), volume.find(ROOT, "other")
    assert broken is not None
    assert other is not None
    with pytest.raises(CorruptImage, match="shorter than eight extents"):
        volume.data(broken)
    assert whole(volume.data(other)) == b"fine"


def test_the_resource_fork_does_not_take_the_data_forks_overflow() -> None:
    builder = HfsPlusBuilder()
    data = pattern(20 * BLOCK)
    cnid = builder.file(ROOT, "file", data, resource=b"r" * 20 * BLOCK, extent_blocks=1)
    other = builder.file(ROOT, "next", b"n" * 20 * BLOCK, extent_blocks=1)
    volume = opened(builder.build().data)
    assert whole(volume.data(volume.node(cnid))) == data
    assert whole(volume.resource(volume.node(cnid))) == b"r" * 20 * BLOCK
    assert whole(volume.data(volume.node(other))) == b"n" * 20 * BLOCK
