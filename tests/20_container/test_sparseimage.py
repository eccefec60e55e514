"""Sparse images: bands in any order, several index nodes, bands that are missing or cut, and indexes that lie."""

import hashlib
import struct

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v1, encrypt_v2
from builders.sparse import NODE, sparse_image
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.container import open_container, open_source, sparseimage
from dmgfs.errors import CorruptImage, DmgError, OutOfRange, Unsupported
from dmgfs.source import Cold, Load, MemorySource, forbid_blocking


def disk_of(bands: int, band: int = 1024, holes: frozenset[int] = frozenset()) -> bytes:
    """A disk whose every band differs; those in `holes` are zeros."""
    noise = hashlib.shake_128(b"bands").digest(bands * band)
    pieces = [bytes(band) if n in holes else noise[n * band : n * band + band] for n in range(bands)]
    return b"".join(pieces)


def opened(image: bytes) -> sparseimage.SparseImageSource:
    disk = sparseimage.open_sparseimage(MemorySource(image), None).disk
    assert isinstance(disk, sparseimage.SparseImageSource)
    return disk


@pytest.mark.corpus
def test_foreign_image_reads_as_libmodi_reads_it(corpus_image) -> None:
    container = open_container(corpus_image("SecurityRonin_dmg-forensic__synthetic.sparseimage"), cache=ChunkCache(1))
    try:
        assert container.kind == "sparse image"
        digest = hashlib.sha256(container.disk.read(0, container.disk.size)).hexdigest()
        assert digest == "e39aabdc775e02172773ba64441e05221984b70307e8f728a2b42113c5a15b9a"
    finally:
        container.close()


def test_bands_in_any_order_and_holes() -> None:
    disk = disk_of(9, holes=frozenset({0, 4, 8}))
    source = opened(sparse_image(disk, order=[5, 1, 7, 2, 3, 6]))
    assert source.read(0, len(disk)) == disk
    assert source.read(1000, 100) == disk[1000:1100]
    assert source.bands_stored == 6


def test_several_index_nodes() -> None:
    disk = disk_of(2500, 512, holes=frozenset(range(100, 200)))
    container = open_source(MemorySource(sparse_image(disk, sectors_per_band=1)), cache=ChunkCache(1))
    assert container.details["index_nodes"] == 3
    assert container.details["bands_stored"] == 2400
    assert container.disk.read(0, len(disk)) == disk


def test_disk_that_ends_inside_its_last_band() -> None:
    disk = disk_of(4)[:-512]
    source = opened(sparse_image(disk))
    assert source.size == len(disk)
    assert source.read(0, len(disk)) == disk
    with pytest.raises(OutOfRange):
        source.read(len(disk) - 1, 2)


def test_file_that_ends_inside_its_last_band_is_zeros_from_there() -> None:
    disk = disk_of(3)[:-700] + bytes(700)
    image = sparse_image(disk, order=[0, 1, 2], cut_last=True)
    assert len(image) < NODE + 3 * 1024
    source = opened(image)
    assert source.read(0, len(disk)) == disk
    assert source.read(len(disk) - 600, 600) == bytes(600)


def test_file_that_lacks_whole_bands_is_truncated_there_and_readable_elsewhere() -> None:
    disk = disk_of(4)
    source = opened(sparse_image(disk, order=[3, 2, 1, 0])[: NODE + 2 * 1024])
    assert source.read(2048, 2048) == disk[2048:]
    with pytest.raises(CorruptImage, match=r"band 0.*truncated"):
        source.read(1000, 100)
    assert source.cold(0, 4096) == ()


def test_the_32_bit_size_counts_where_the_64_bit_one_is_empty() -> None:
    disk = disk_of(3)
    assert opened(sparse_image(disk, sectors=0)).size == len(disk)


def test_sizes_that_differ_are_a_warning() -> None:
    container = sparseimage.open_sparseimage(MemorySource(sparse_image(disk_of(3), sectors_low=5)), None)
    assert any("sector counts differ" in warning for warning in container.details["warnings"])
    assert container.disk.size == 3 * 1024


@pytest.mark.parametrize("encrypt", [encrypt_v1, encrypt_v2])
def test_encrypted(encrypt) -> None:
    disk = disk_of(40, 4096, holes=frozenset({3, 4}))
    image = encrypt(sparse_image(disk, sectors_per_band=8))
    container = open_source(MemorySource(image), passphrase=lambda: PASSPHRASE, cache=ChunkCache(1 << 20))
    assert container.kind == "sparse image"
    assert container.details["encryption"]["block_size"] in (512, 4096)
    assert container.disk.read(0, len(disk)) == disk


def test_cold_is_that_of_the_source_below() -> None:
    disk = disk_of(200, 4096, holes=frozenset({3, 4}))
    image = encrypt_v2(sparse_image(disk, sectors_per_band=8, order=[n for n in range(200) if n not in (3, 4)]))
    source = open_source(MemorySource(image), passphrase=lambda: PASSPHRASE, cache=ChunkCache(1 << 22)).disk
    forbid_blocking()
    try:
        assert source.read(3 * 4096, 8192) == bytes(8192)
        with pytest.raises(Cold) as cold:
            source.read(0, len(disk))
    finally:
        forbid_blocking(False)
    loads: list[Load] = list(cold.value.loads)
    assert len(loads) == len({load.key for load in loads}) == -(-(NODE + 198 * 4096) // (128 << 10))
    for load in loads:
        load.run()
    forbid_blocking()
    try:
        assert source.read(0, len(disk)) == disk
    finally:
        forbid_blocking(False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sectors_per_band": 0}, "bands of 0 sectors"),
        ({"sectors_per_band": 0xFFFFFFFF}, "bands of"),
        ({"sectors": 0, "sectors_low": 0}, "disk of 0 sectors"),
        ({"sectors": 1 << 62}, "disk of"),
        ({"id1": 4}, "band 4 of 3"),
        ({"id1": 0xFFFFFFFF}, "band 4294967295 of 3"),
        ({"id1": 1}, "two places"),
        ({"next": 1}, "not behind its own bands"),
        ({"next": 4096}, "not behind its own bands"),
        ({"next": 4096 + 3 * 1024 - 1}, "not behind its own bands"),
        ({"next": 1 << 63}, "truncated"),
    ],
)
def test_headers_that_lie(fields: dict[str, int], message: str) -> None:
    disk = disk_of(3)
    image = sparse_image(disk, **{key: value for key, value in fields.items() if key != "sectors_per_band"})
    if "sectors_per_band" in fields:
        image = image[:8] + struct.pack(">I", fields["sectors_per_band"]) + image[12:]
    with pytest.raises(CorruptImage, match=message):
        opened(image)


def test_nodes_that_lie() -> None:
    disk = disk_of(1100, 512)
    for fields, message in (
        ({"node_magic": b"SPRS"}, "does not begin"),
        ({"node_next": NODE}, "not behind its own bands"),
        ({"node_next": 1 << 60}, "truncated"),
    ):
        with pytest.raises(CorruptImage, match=message):
            opened(sparse_image(disk, sectors_per_band=1, **fields))


def test_chain_of_empty_nodes_ends() -> None:
    node = (b"sprs" + bytes(8) + struct.pack(">Q", 0) + bytes(36)).ljust(NODE, b"\0")
    image = sparse_image(disk_of(1), next=NODE + 1024)
    chained = b"".join(node[:12] + struct.pack(">Q", NODE + 1024 + (n + 1) * NODE) + node[20:] for n in range(200))
    with pytest.raises(CorruptImage, match="no bands and yet a successor"):
        opened(image + chained)


def test_other_versions_are_named() -> None:
    with pytest.raises(Unsupported, match="version 2"):
        opened(sparse_image(disk_of(1), version=2))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_range_of_any_layout(data: st.DataObject) -> None:
    bands = data.draw(st.integers(1, 40))
    stored = data.draw(st.lists(st.integers(0, bands - 1), unique=True))
    disk = disk_of(bands, 512, holes=frozenset(range(bands)) - frozenset(stored))
    source = opened(sparse_image(disk, sectors_per_band=1, order=stored))
    offset = data.draw(st.integers(0, len(disk)))
    length = data.draw(st.integers(0, len(disk) - offset))
    assert source.read(offset, length) == disk[offset : offset + length]


@given(st.integers(0, NODE + 5000), st.binary(min_size=1, max_size=64), st.integers(0, NODE + 9000))
@settings(max_examples=150, deadline=None)
def test_noise_and_cuts_end_in_our_errors(place: int, noise: bytes, cut: int) -> None:
    image = bytearray(sparse_image(disk_of(6)))
    image[place : place + len(noise)] = noise
    for damaged in (bytes(image), bytes(image[:cut])):
        try:
            source = opened(damaged) if sparseimage.recognise(MemorySource(damaged)) else None
            if source is not None:
                source.read(0, min(source.size, 1 << 16))
        except DmgError:
            pass
