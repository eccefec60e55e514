"""Damaged and hostile volumes: a clear error, or one object lost and the rest served; never a hang."""

import struct
from collections.abc import Callable, Iterator

import pytest
from builders.hfs import File, Folder, Image, extent_record
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage, DmgError
from dmgfs.hfs.volume import HfsVolume, open_volume
from dmgfs.source import MemorySource
from dmgfs.volume import ROOT_FOLDER, Node

Walk = Callable[..., Iterator[tuple[str, Node]]]
SHORT = b"0123456789" * 30


def tree() -> Folder:
    children: dict[str, File | Folder] = {f"file {number:03d}": File(SHORT) for number in range(60)}
    children["scattered"] = File(bytes(10000), SHORT, fragments=12, thread=True)
    children["folder"] = Folder({"inside": File(b"inside")})
    return Folder(children)


@pytest.fixture
def image() -> Image:
    return Image(tree())


def patched(image: Image, at: int, data: bytes) -> MemorySource:
    return MemorySource(image.bytes[:at] + data + image.bytes[at + len(data) :])


def node_at(image: Image, number: int) -> int:
    return image.catalog + 512 * number


def record_at(image: Image, name: bytes) -> int:
    """Where the catalog record of a name begins (its key); the name must occur once."""
    return image.bytes.index(bytes([len(name)]) + name, image.catalog) - 6


def data_at(image: Image, name: bytes) -> int:
    start = record_at(image, name)
    return start + (image.bytes[start] + 2 & ~1)


@pytest.mark.parametrize(
    ("at", "data", "why"),
    [
        (20, struct.pack(">I", 0), "allocation blocks of 0 bytes"),
        (20, struct.pack(">I", 1000), "allocation blocks of 1000 bytes"),
        (146, struct.pack(">I", 100), "the tree has 100 bytes"),
        (146, struct.pack(">I", 0), "the tree has 0 bytes"),
        (150, bytes(12), "only 0 have a place"),
        (150, extent_record([(65535, 65535)]), "only 0 have a place"),
    ],
)
def test_master_directory_block(image: Image, at: int, data: bytes, why: str) -> None:
    damaged = bytearray(image.bytes)
    for start in (1024, len(damaged) - 1024):
        damaged[start + at : start + at + len(data)] = data
    with pytest.raises(CorruptImage, match=why):
        open_volume(MemorySource(damaged))


@pytest.mark.parametrize(
    ("at", "data", "why"),
    [
        (8, b"\xff", "kind -1"),
        (10, b"\0\0", "0 records"),
        (14, struct.pack(">H", 17), "depth 17"),
        (14, struct.pack(">H", 0), "root node"),
        (16, struct.pack(">I", 0), "root node 0"),
        (16, struct.pack(">I", 10**9), "root node 1000000000"),
        (32, struct.pack(">H", 0), "node size 0"),
        (32, struct.pack(">H", 1024), "node size 1024"),
        (36, struct.pack(">I", 0xFFFFFFFF), "do not fit"),
        (36, struct.pack(">I", 0), "root node"),
    ],
)
@pytest.mark.parametrize("fork", ["catalog", "extents"])
def test_tree_header(image: Image, fork: str, at: int, data: bytes, why: str) -> None:
    with pytest.raises(CorruptImage, match=f"HFS {fork}.*{why}"):
        open_volume(patched(image, getattr(image, fork) + at, data))


def leaf_of(volume: HfsVolume, image: Image, name: bytes) -> int:
    """Number of the leaf that holds a name's record."""
    return (record_at(image, name) - image.catalog) // 512


@pytest.mark.parametrize(
    ("at", "data", "why"),
    [
        (0, struct.pack(">I", 0xFFFFFFFF), "linked with node"),
        (8, b"\x02", "kind 2"),
        (9, b"\x02", "kind -1 at height 2"),
        (10, struct.pack(">H", 0), "0 records"),
        (10, struct.pack(">H", 0xFFFF), "65535 records"),
        (10, struct.pack(">H", 249), "249 records"),
        (510, struct.pack(">H", 0), "record offsets"),
        (510, struct.pack(">H", 13), "record offsets"),
        (510, struct.pack(">H", 511), "record offsets"),
        (508, struct.pack(">H", 14), "record offsets"),
        (14, b"\xff", "a key of 255 bytes"),
        (14, b"\x05", "a key of 5 bytes"),
        (20, b"\x20", "a key of"),
    ],
)
def test_one_damaged_leaf(image: Image, at: int, data: bytes, why: str) -> None:
    whole = open_volume(MemorySource(image.bytes))
    number = leaf_of(whole, image, b"file 030")
    volume = open_volume(patched(image, node_at(image, number) + at, data))
    for _ in range(2):
        with pytest.raises(CorruptImage, match=why):
            volume.find(ROOT_FOLDER, "file 030")
    assert volume.find(ROOT_FOLDER, "file 001") == whole.find(ROOT_FOLDER, "file 001")
    assert volume.find(ROOT_FOLDER, "scattered") == whole.find(ROOT_FOLDER, "scattered")
    first = volume.children(ROOT_FOLDER, None, 5)
    assert [node.name for node in first.nodes][:2] == ["file 000", "file 001"]
    with pytest.raises(CorruptImage, match=why):
        volume.children(ROOT_FOLDER, None, 100)
    # By number, a file in front of the damage is found, one behind it is not; both say so in finite time.
    one = whole.find(ROOT_FOLDER, "file 001")
    assert one is not None
    assert volume.node(one.cnid) == one
    assert "behind the damage" in volume.info.warnings[0]


def test_leaves_in_a_circle(image: Image, walk: Walk) -> None:
    number = (record_at(image, b"file 030") - image.catalog) // 512
    for back in (1, number - 1):
        volume = open_volume(patched(image, node_at(image, number), struct.pack(">I", back)))
        with pytest.raises(CorruptImage, match="keys do not follow"):
            list(walk(volume))
        assert volume.find(ROOT_FOLDER, "scattered") is not None
    volume = open_volume(patched(image, node_at(image, number), struct.pack(">I", number)))
    with pytest.raises(CorruptImage, match=f"linked with node {number}"):
        list(walk(volume))


def test_a_child_that_is_its_own_parent(image: Image) -> None:
    root = struct.unpack_from(">I", image.bytes, image.catalog + 16)[0]
    (height,) = struct.unpack_from(">B", image.bytes, node_at(image, root) + 9)
    assert height > 1
    volume = open_volume(patched(image, node_at(image, root) + 14 + 38, struct.pack(">I", root)))
    with pytest.raises(CorruptImage, match=f"height {height} where {height - 1} belongs"):
        volume.find(ROOT_FOLDER, "file 000")
    volume = open_volume(patched(image, node_at(image, root) + 14 + 38, struct.pack(">I", 0xFFFFFFF0)))
    with pytest.raises(CorruptImage, match="link to node 4294967280"):
        volume.find(ROOT_FOLDER, "file 000")


@pytest.mark.parametrize(
    ("at", "data", "why"),
    [
        (0, b"\x05", "a record of kind 5"),
        (0, b"\x00", "a record of kind 0"),
        (20, struct.pack(">I", 0), "number 0"),
        (20, struct.pack(">I", 2), "number 2"),
        (20, struct.pack(">I", 15), "number 15"),
    ],
)
def test_one_damaged_record(image: Image, walk: Walk, at: int, data: bytes, why: str) -> None:
    whole = dict(walk(open_volume(MemorySource(image.bytes))))
    volume = open_volume(patched(image, data_at(image, b"file 030") + at, data))
    with pytest.raises(CorruptImage, match=f"'file 030' in folder 2: {why}"):
        volume.find(ROOT_FOLDER, "file 030")
    listed = dict(walk(volume))
    assert "file 030" in whole
    del whole["file 030"]
    assert listed == whole


@pytest.mark.parametrize(
    ("extents", "covered"),
    [(bytes(12), 0), (extent_record([(65535, 65535)]), 0), (extent_record([(65000, 1), (0, 1)]), 0)],
)
def test_extents_outside_the_volume(image: Image, extents: bytes, covered: int) -> None:
    volume = open_volume(patched(image, data_at(image, b"file 030") + 74, extents))
    node = volume.find(ROOT_FOLDER, "file 030")
    assert node is not None
    source = volume.data(node)
    assert source.size == len(SHORT)
    assert source.read(covered, 0) == b""
    with pytest.raises(CorruptImage, match=f"data fork of 'file 030'.*only {covered} have a place"):
        source.read(covered, 1)
    other = volume.find(ROOT_FOLDER, "file 031")
    assert other is not None
    assert volume.data(other).read(0, len(SHORT)) == SHORT


def test_a_size_beyond_the_extents(image: Image) -> None:
    volume = open_volume(patched(image, data_at(image, b"file 030") + 26, struct.pack(">I", 0xFFFFFFFF)))
    node = volume.find(ROOT_FOLDER, "file 030")
    assert node is not None
    assert node.data_size == 0xFFFFFFFF
    source = volume.data(node)
    assert source.read(0, len(SHORT)) == SHORT
    with pytest.raises(CorruptImage, match="only 512 have a place"):
        source.read(512, 1)


def test_missing_and_empty_overflow_extents(image: Image) -> None:
    key = image.bytes.index(b"\x07\0" + struct.pack(">I", 76), image.extents)
    assert image.bytes[key + 6 : key + 8] == struct.pack(">H", 6)
    for damage in (patched(image, key + 6, b"\0\7"), patched(image, key + 8, bytes(12))):
        volume = open_volume(damage)
        node = volume.find(ROOT_FOLDER, "scattered")
        assert node is not None
        source = volume.data(node)
        assert source.read(0, 6 * 512) == bytes(6 * 512)
        with pytest.raises(CorruptImage, match="only 3072 have a place"):
            source.read(6 * 512, 1)


def test_a_folder_inside_itself(image: Image, walk: Walk) -> None:
    """Listing follows no threads, so nothing loops; who walks decides."""
    start = data_at(image, b"folder")
    volume = open_volume(patched(image, start + 6, struct.pack(">I", 20)))
    assert dict(walk(volume))["folder"].cnid == 20
    assert volume.children(20, None, 10).nodes == []


def test_threads_that_lie(image: Image) -> None:
    whole = open_volume(MemorySource(image.bytes))
    folder, scattered = whole.find(ROOT_FOLDER, "folder"), whole.find(ROOT_FOLDER, "scattered")
    assert folder is not None
    assert scattered is not None
    thread = image.bytes.index(b"\x06folder", data_at(image, b"folder") + 70) - 5
    volume = open_volume(patched(image, thread + 1, struct.pack(">I", folder.cnid)))
    with pytest.raises(CorruptImage, match=f"object {folder.cnid}"):
        volume.node(folder.cnid)
    # A file is found without its thread.
    thread = image.bytes.index(b"\x09scattered", data_at(image, b"scattered") + 70) - 5
    volume = open_volume(patched(image, thread, b"\xff"))
    assert volume.node(scattered.cnid) == scattered


def test_a_volume_cut_short(image: Image, walk: Walk) -> None:
    """Catalog and extents are at the end of built volumes, so move nothing: cut behind them."""
    data = image.bytes[: image.extents + 2 * 512]
    volume = open_volume(MemorySource(data))
    assert "longer than its partition" in volume.info.warnings[0]
    assert len(dict(walk(volume))) == 63


def use(volume: HfsVolume, walk: Walk) -> None:
    """Everything a mount would do."""
    try:
        for _, node in walk(volume):
            try:
                volume.find(node.parent, node.name)
                volume.node(node.cnid)
                for source in (volume.data(node), volume.resource(node)):
                    length = min(source.size, 1 << 16)
                    assert len(source.read(0, length)) == length
            except DmgError:
                pass
    except DmgError:
        pass


FUZZED = Image(tree())


@given(flips=st.lists(st.tuples(st.sampled_from(["mdb", "catalog", "extents"]), st.integers(0, 1 << 30)), max_size=8))
@settings(max_examples=150, deadline=None)
def test_flipped_bits_end_in_errors_of_ours(walk: Walk, flips: list[tuple[str, int]]) -> None:
    data = bytearray(FUZZED.bytes)
    for where, flip in flips:
        start, size = {"mdb": (1024, 162), "catalog": (FUZZED.catalog, 512 * 40), "extents": (FUZZED.extents, 1024)}[
            where
        ]
        data[start + flip // 8 % min(size, len(data) - start)] ^= 1 << flip % 8
    try:
        volume = open_volume(MemorySource(data))
    except DmgError:
        return
    use(volume, walk)


@given(length=st.integers(0, len(FUZZED.bytes)))
@settings(max_examples=60, deadline=None)
def test_truncation_ends_in_errors_of_ours(walk: Walk, length: int) -> None:
    try:
        volume = open_volume(MemorySource(FUZZED.bytes[:length]))
    except DmgError:
        return
    use(volume, walk)
