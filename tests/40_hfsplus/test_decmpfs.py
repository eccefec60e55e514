"""decmpfs: files that real compressors made, round trips of every type, and what is left of a damaged file."""

import struct
from pathlib import Path
from typing import Any

import pytest
from builders.decmpfs import BLOCK, FORK_TYPES, INLINE_TYPES, block, header, offsets_fork, pack, zlib_fork
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, DmgError, Unsupported
from dmgfs.hfsplus import decmpfs
from dmgfs.source import Buffer, ByteSource, Cold, Load, MemorySource, forbid_blocking

REAL = [
    (8, "lzvn.rsrc", "lzvn.expected"),
    (8, "tahoe_type8.rsrc", "tahoe_type8.expected"),
    (4, "real_zlib_rsrc.rsrc", "zlib.expected"),
    (12, "real_lzfse_rsrc.rsrc", "zlib.expected"),
    (3, "real_zlib_inline.payload", "real_zlib_inline.expected"),
    (11, "real_lzfse_inline.payload", "real_zlib_inline.expected"),
    (3, "zlib_type3_stored.payload", "zlib_inline.expected"),
]
TEXT = b"".join(b"line %d of a file that compresses\n" % number for number in range(9000))
GROUPS = b"abcdefgh" * 5000 + bytes(range(256)) * 400 + bytes(70000)


class Watched:
    """A fork that remembers what was read of it."""

    def __init__(self, data: bytes) -> None:
        self._source = MemorySource(data)
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> Buffer:
        self.reads.append((offset, length))
        return self._source.read(offset, length)

    def cold(self, offset: int, length: int) -> tuple[Load, ...]:
        return ()


def open_file(attribute: bytes, fork: bytes | ByteSource = b"", cache: ChunkCache[Any] | None = None) -> ByteSource:
    source = MemorySource(fork) if isinstance(fork, bytes) else fork
    return decmpfs.open_compressed(attribute, source, cache or ChunkCache(1 << 20), "file")


def whole(source: ByteSource) -> bytes:
    return bytes(source.read(0, source.size))


@pytest.mark.corpus
@pytest.mark.parametrize(("kind", "stored", "expected"), REAL)
def test_files_that_macos_compressed(corpus: Path, kind: int, stored: str, expected: str) -> None:
    folder = corpus / "images" / "SecurityRonin_hfsplus-forensic__decmpfs"
    content = (folder / expected).read_bytes()
    packed = (folder / stored).read_bytes()
    head = header(kind, len(content))
    source = open_file(head, packed) if kind in FORK_TYPES else open_file(head + packed)
    assert whole(source) == content
    assert source.read(len(content) - 100, 100) == content[-100:]


@pytest.mark.corpus
def test_stored_file_of_macos(corpus: Path) -> None:
    folder = corpus / "images" / "SecurityRonin_hfsplus-forensic__decmpfs"
    attribute = (folder / "tahoe_type9.decmpfs").read_bytes()
    assert whole(open_file(attribute)) == (folder / "tahoe_type9.expected").read_bytes()


@pytest.mark.parametrize("kind", INLINE_TYPES + FORK_TYPES)
@pytest.mark.parametrize("content", [TEXT, GROUPS, b"x", b"12345678" * BLOCK, bytes(BLOCK)], ids=len)
def test_every_type_round_trips(kind: int, content: bytes) -> None:
    source = open_file(*pack(kind, content))
    assert source.size == len(content)
    assert whole(source) == content


@pytest.mark.parametrize("kind", INLINE_TYPES + FORK_TYPES)
def test_the_empty_file(kind: int) -> None:
    assert whole(open_file(header(kind, 0))) == b""


@given(kind=st.sampled_from(INLINE_TYPES + FORK_TYPES), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_range_of_any_content(kind: int, data: st.DataObject) -> None:
    seed = data.draw(st.binary(max_size=60))
    times = data.draw(st.integers(1, 4000))
    content = seed * times
    source = open_file(*pack(kind, content, padding=data.draw(st.sampled_from([0, 8]))))
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - start))
    assert source.read(start, length) == content[start : start + length]


@pytest.mark.parametrize("kind", [4, 8, 12])
def test_junk_behind_a_stream_is_ignored(kind: int) -> None:
    if kind == 12:
        content = TEXT[:BLOCK]
        packed = block(12, content) + b"junk"
        assert whole(open_file(header(12, BLOCK), offsets_fork([packed]))) == content
    else:
        assert whole(open_file(*pack(kind, TEXT, junk=b"\x17junk" * 100))) == TEXT


@pytest.mark.parametrize("kind", FORK_TYPES)
def test_opening_reads_nothing_and_a_read_decodes_only_its_block(kind: int) -> None:
    attribute, fork = pack(kind, TEXT)
    watched = Watched(fork)
    cache: ChunkCache[Any] = ChunkCache(1 << 20)
    source = open_file(attribute, watched, cache)
    assert watched.reads == []
    assert source.read(2 * BLOCK + 5, 10) == TEXT[2 * BLOCK + 5 :][:10]
    assert sum(length for _, length in watched.reads) < 2 * BLOCK
    assert cache.statistics().misses == 2  # one page of the table, one block
    watched.reads.clear()
    assert source.read(2 * BLOCK + 500, 10) == TEXT[2 * BLOCK + 500 :][:10]
    assert watched.reads == []


@pytest.mark.parametrize("kind", [4, 8])
def test_a_far_block_of_a_huge_file_needs_one_page_of_the_table(kind: int) -> None:
    blocks = 20000
    packed = block(kind, bytes(BLOCK))
    if kind == 4:
        table = struct.pack("<I", blocks) + struct.pack("<II", 4 + 8 * blocks, len(packed)) * blocks
        fork = struct.pack(">IIII", 0x100, 0, 0, 50).ljust(0x104, b"\0") + table + packed
    else:
        # The same bytes for all blocks: starts go back, so every odd pair is damaged and every even one is not.
        start = 4 * (blocks + 1)
        fork = struct.pack("<II", start, start + len(packed)) * (blocks // 2) + struct.pack("<I", start) + packed
    watched = Watched(fork)
    source = open_file(header(kind, blocks * BLOCK), watched)
    assert source.read(14000 * BLOCK, 3) == bytes(3)
    assert sum(length for _, length in watched.reads) < 40000


@pytest.mark.parametrize("kind", FORK_TYPES)
def test_a_damaged_block_is_one_damaged_block(kind: int) -> None:
    parts = [block(kind, TEXT[at : at + BLOCK]) for at in range(0, len(TEXT), BLOCK)]
    parts[1] = b"\x70" * len(parts[1])
    source = open_file(header(kind, len(TEXT)), zlib_fork(parts) if kind == 4 else offsets_fork(parts))
    assert source.size == len(TEXT)
    assert source.read(0, BLOCK) == TEXT[:BLOCK]
    assert source.read(2 * BLOCK, BLOCK) == TEXT[2 * BLOCK : 3 * BLOCK]
    for _ in range(2):  # an error is not remembered as anything
        with pytest.raises(CorruptImage, match="decmpfs: block 1 at offset 0x10000") as caught:
            source.read(BLOCK - 1, 2)
    assert caught.value.layer == "decmpfs"


@pytest.mark.parametrize("kind", FORK_TYPES)
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_block_of_another_length_is_damage(kind: int, wrong: int) -> None:
    packed = block(kind, TEXT[: 1000 + wrong])
    fork = zlib_fork([packed]) if kind == 4 else offsets_fork([packed])
    with pytest.raises(CorruptImage, match="block 0"):
        open_file(header(kind, 1000), fork).read(0, 1)


@pytest.mark.parametrize("kind", [3, 7, 9, 11, 13])
@pytest.mark.parametrize("payload", [b"", b"\x70", b"\x78\x9c", b"bvx", b"ZBM\t", b"\xff", b"\x06", b"\xcc"])
def test_a_short_inline_payload_is_damage(kind: int, payload: bytes) -> None:
    source = open_file(header(kind, 100) + payload)
    assert source.size == 100
    with pytest.raises(CorruptImage, match="inline data"):
        source.read(0, 100)


def test_stored_without_marker_must_be_long_enough() -> None:
    with pytest.raises(CorruptImage, match="3 bytes instead of 4"):
        open_file(header(1, 4) + b"abc")


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ((12, 10**9, 24), "a resource fork of"),
        ((12, 8, 24), "bytes 0xc to 0x8"),
        ((4, 20, 24), "inside the block table"),
        ((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), "a resource fork of"),
        ((12, 12, 12), "no bytes"),
        ((12, 12 + 65538, 12 + 65538), "more than 64 KiB"),
    ],
)
def test_table_entries_of_the_offset_layout(entries: tuple[int, ...], why: str) -> None:
    source = open_file(header(8, BLOCK + 1), struct.pack("<III", *entries) + bytes(70000))
    assert source.size == BLOCK + 1
    with pytest.raises(CorruptImage, match=why):
        source.read(0, 1)


@pytest.mark.parametrize(
    ("at", "field", "why"),
    [
        (0, struct.pack(">I", 0xFFFFFF00), "no room for 1 blocks"),
        (0, struct.pack(">I", 0x200), "no room for 1 blocks|blocks where the size asks for 1"),
        (0x104, struct.pack("<I", 2), "2 blocks where the size asks for 1"),
        (0x108, struct.pack("<I", 0), "inside the block table"),
        (0x108, struct.pack("<I", 0xFFFFFFFF), "a resource fork of"),
        (0x10C, struct.pack("<I", 0xFFFFFFFF), "a resource fork of"),
        (0x10C, struct.pack("<I", 0), "no bytes"),
    ],
)
def test_fields_of_the_zlib_layout(at: int, field: bytes, why: str) -> None:
    attribute, fork = pack(4, TEXT[:1000])
    fork = fork[:at] + field + fork[at + len(field) :]
    with pytest.raises(CorruptImage, match=why):
        open_file(attribute, fork).read(0, 1)


@pytest.mark.parametrize("kind", FORK_TYPES)
def test_a_size_that_its_table_cannot_hold(kind: int) -> None:
    attribute, fork = pack(kind, TEXT)
    huge = header(kind, 1 << 60)
    assert decmpfs.header(huge) == (kind, 1 << 60)
    with pytest.raises(CorruptImage, match="do not fit in a resource fork"):
        open_file(huge, fork)
    with pytest.raises(CorruptImage, match="do not fit in a resource fork of 0"):
        open_file(attribute)


@pytest.mark.parametrize("kind", [3, 7, 9, 11, 13])
def test_an_inline_size_beyond_belief(kind: int) -> None:
    with pytest.raises(CorruptImage, match="cannot come from an attribute"):
        open_file(header(kind, 1 << 40) + b"\xff" * 100)


def test_header() -> None:
    assert decmpfs.header(header(8, 70000)) == (8, 70000)
    assert decmpfs.header(header(8, (1 << 63) - 1)).uncompressed_size == (1 << 63) - 1
    with pytest.raises(CorruptImage, match="no file is so large"):
        decmpfs.header(header(8, 1 << 63))
    with pytest.raises(CorruptImage, match="magic b'cmpf'"):
        decmpfs.header(b"cmpf" + bytes(12))
    with pytest.raises(CorruptImage, match="15 bytes, it takes 16"):
        decmpfs.header(header(8, 1)[:15])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (5, "de-duplicated"),
        (0x80000001, "dataless files"),
        (0x80000002, "dataless packages"),
        (2, "type 0x2"),
        (99, "0x63"),
    ],
)
def test_content_that_cannot_be_had_is_named(kind: int, name: str) -> None:
    assert decmpfs.header(header(kind, 10)).uncompressed_size == 10
    with pytest.raises(Unsupported, match=name):
        open_file(header(kind, 10))


def test_a_thread_that_must_not_block_learns_all_it_needs_at_once() -> None:
    source = open_file(*pack(8, TEXT))
    forbid_blocking()
    try:
        with pytest.raises(Cold) as caught:
            source.read(10, 2 * BLOCK)
        assert len(caught.value.loads) == 3
        assert list(caught.value.loads) == list(source.cold(10, 2 * BLOCK))
        forbid_blocking(False)
        for load in caught.value.loads:
            load.run()
        forbid_blocking()
        assert source.cold(10, 2 * BLOCK) == ()
        assert source.read(10, 2 * BLOCK) == TEXT[10 : 10 + 2 * BLOCK]
    finally:
        forbid_blocking(False)


@given(
    kind=st.sampled_from(INLINE_TYPES + FORK_TYPES), flips=st.lists(st.integers(0, 1 << 30), min_size=1, max_size=6)
)
@settings(max_examples=300, deadline=None)
def test_flipped_bits_end_in_bytes_or_in_an_error_of_ours(kind: int, flips: list[int]) -> None:
    content = TEXT[: BLOCK + 3000]
    attribute, fork = pack(kind, content)
    damaged = bytearray(attribute + fork)
    for flip in flips:
        damaged[flip // 8 % len(damaged)] ^= 1 << flip % 8
    try:
        source = open_file(bytes(damaged[: len(attribute)]), bytes(damaged[len(attribute) :]))
        for at in range(0, min(source.size, 4 * BLOCK), BLOCK):
            length = min(BLOCK, source.size - at)
            assert len(source.read(at, length)) == length
    except DmgError:
        pass


@given(attribute=st.binary(max_size=40), fork=st.binary(max_size=400), kind=st.sampled_from(FORK_TYPES))
@settings(max_examples=200, deadline=None)
def test_noise_ends_in_an_error_of_ours(attribute: bytes, fork: bytes, kind: int) -> None:
    for value in (attribute, header(kind, len(fork) * 3 + 1) + attribute):
        try:
            whole(open_file(value, fork))
        except DmgError:
            pass
