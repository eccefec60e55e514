"""What a hostile or broken volume may try, item by item: it ends in an error that names the place, soon, and everything
that is not touched by the damage still reads right. Damage to header and single records is in the other files here."""

import struct
import time
from collections.abc import Callable, Iterator

import pytest
from builders.hfsplus import PRIVATE, ROOT, HfsPlusBuilder, Image, name_bytes
from builders.requests import METADATA, SOUND, read_all
from builders.walk import children, names, opened, walk, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.volume import HfsPlusVolume
from dmgfs.volume import Page

SECONDS = 2.0
"""Nothing here may take longer, whatever the volume says."""


@pytest.fixture
def soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def folders_of_files() -> Image:
    """Four folders of six files in small nodes, so that one node's damage cannot reach all of them."""
    builder = HfsPlusBuilder(catalog_node_size=1024, records_per_node=3)
    for number in range(4):
        folder = builder.folder(ROOT, f"folder {number}", cnid=100 + number)
        for inner in range(6):
            builder.file(folder, f"file {inner}", b"%d/%d" % (number, inner), cnid=200 + 10 * number + inner)
    return builder.build()


def readable(volume: HfsPlusVolume) -> set[str]:
    """The files that can still be listed and read, each folder by itself."""
    found = set()
    for number in range(4):
        try:
            nodes = children(volume, 100 + number)
        except CorruptImage:
            continue
        for node in nodes:
            inner = int(node.name[-1])
            assert whole(volume.data(node)) == b"%d/%d" % (number, inner)
            found.add(f"{number}/{inner}")
    return found


def leaf_of(image: Image, volume: HfsPlusVolume, folder: int) -> int:
    """The node where the listing of a folder begins."""
    place = volume._catalog.tree.seek(folder.to_bytes(4), beyond=True)
    assert place is not None
    return place[0].number


ALL = {f"{number}/{inner}" for number in range(4) for inner in range(6)}

DAMAGE: dict[str, Callable[[Image, int], object]] = {
    "chain to itself": lambda image, at: image.patch(at, ">I", (at - image.catalog.node(0)) // 1024),
    "chain back": lambda image, at: image.patch(at, ">I", 1),
    "chain to an index node": lambda image, at: image.patch(at, ">I", image.nodes(image.catalog) - 1),
    "chain outside": lambda image, at: image.patch(at, ">I", 0x7FFFFFFF),
    "kind": lambda image, at: image.patch(at + 8, ">b", 1),
    "height": lambda image, at: image.patch(at + 9, ">B", 200),
    "record count": lambda image, at: image.patch(at + 10, ">H", 0xFFFF),
    "offsets unsorted": lambda image, at: image.patch(at + 1024 - 4, ">H", 15),
    "offsets in the table": lambda image, at: image.patch(at + 1024 - 8, ">H", 1022),
    "key length": lambda image, at: image.patch(at + 14, ">H", 0xFFFE),
    "key longer than the tree allows": lambda image, at: image.patch(at + 14, ">H", 518),
    "name length": lambda image, at: image.patch(at + 20, ">H", 0xFFFF),
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_leaf_leaves_the_rest(damage: str) -> None:
    image = folders_of_files()
    leaf = leaf_of(image, opened(image.data), 102)
    DAMAGE[damage](image, image.catalog.node(leaf))
    volume = opened(image.data)
    left = readable(volume)
    assert {path for path in ALL if path[0] in "03"} <= left, "folders far from the damage are complete"
    assert left != ALL
    with pytest.raises(CorruptImage, match=r"HFS\+ catalog: node \d+"):
        children(volume, 102)


@pytest.mark.usefixtures("soon")
def test_damage_where_the_private_folder_stands_costs_the_links_alone() -> None:
    builder = HfsPlusBuilder(catalog_node_size=1024, records_per_node=2, attributes=0x2100)
    folder = builder.folder(ROOT, "folder")
    builder.file(folder, "file", b"data")
    builder.inode(50, b"linked", 2)
    builder.file_link(folder, "link", 50)
    for number in range(8):
        builder.file(ROOT, f"x {number}")
    image = builder.build()
    place = opened(image.data)._catalog.find(ROOT, name_bytes(PRIVATE))
    assert place is not None
    image.patch(image.catalog.node(place[0].number) + 8, ">b", 1)
    volume = opened(image.data)
    assert any("hard links cannot be followed" in warning for warning in volume.info.warnings)
    file, link = children(volume, folder)
    assert whole(volume.data(file)) == b"data"
    assert "cannot be looked for" in (link.broken or "")
    with pytest.raises(CorruptImage):
        children(volume, ROOT)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("child", [0, 1 << 31])
def test_index_nodes_that_lead_to_themselves_or_nowhere(child: int) -> None:
    image = folders_of_files()
    root = image.get(image.catalog.node(0) + 16, ">I")
    for index in range(image.get(image.catalog.node(root) + 10, ">H")):
        at = image.record(image.catalog, root, index)
        length = image.get(at, ">H")
        image.patch(at + 2 + length, ">I", child or root)
    with pytest.raises(CorruptImage, match="node"):
        opened(image.data)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("offset", "form", "value"), [(44, ">I", 1), (272, ">Q", 0), (272 + 16, ">II", (0, 0))])
def test_a_volume_cut_down_to_nothing_is_refused(offset: int, form: str, value: object) -> None:
    image = folders_of_files()
    values = value if isinstance(value, tuple) else (value,)
    image.patch(image.header + offset, form, *values)
    with pytest.raises(CorruptImage):
        opened(image.data)


@pytest.mark.usefixtures("soon")
def test_a_catalog_that_is_all_one_block() -> None:
    """Every block of the catalog is block 0 of the volume: overlapping extents, no tree in them."""
    image = folders_of_files()
    image.patch(image.header + 272 + 16, ">" + "II" * 8, *(0, 1) * 8)
    with pytest.raises(CorruptImage):
        opened(image.data)


@pytest.mark.usefixtures("soon")
def test_counts_and_valences_are_not_believed() -> None:
    builder = HfsPlusBuilder()
    folder = builder.folder(ROOT, "folder", valence=0xFFFFFFFF, record_flags=0x10, folders=0xFFFFFFFF)
    builder.file(folder, "file")
    image = builder.build()
    image.patch(image.header + 32, ">II", 0xFFFFFFFF, 0xFFFFFFFF)
    image.patch(image.catalog.node(0) + 14 + 6, ">I", 0xFFFFFFFF)
    volume = opened(image.data)
    assert [path for path, _ in walk(volume)] == ["folder", "folder/file"]


def test_a_folder_of_many_is_read_a_page_at_a_time() -> None:
    builder = HfsPlusBuilder(with_attributes=False)
    for number in range(20_000):
        builder.file(ROOT, f"file {number:05}", thread=False)
    volume = opened(builder.build().data, node_cache_bytes=100_000)
    seen = 0
    after = None
    while True:
        page: Page = volume.children(ROOT, after, 500)
        assert len(page.nodes) <= 500
        assert all(node.name == f"file {seen + index:05}" for index, node in enumerate(page.nodes))
        seen += len(page.nodes)
        after = page.next
        if after is None:
            break
    assert seen == 20_000


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("size", [0, 1 << 40, (1 << 64) - 1])
def test_a_symbolic_link_of_any_size_costs_nothing_until_it_is_read(size: int) -> None:
    builder = HfsPlusBuilder()
    fork = struct.pack(">QII", size, 0, 1) + bytes(64)
    cnid = builder.file(ROOT, "link", mode=0o120777, data_fork=fork)
    volume = opened(builder.build().data)
    assert volume.data(volume.node(cnid)).size == min(size, (1 << 63) - 1)


@pytest.mark.usefixtures("soon")
def test_a_million_xattrs_in_the_header_only() -> None:
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "file", attributes={"one": b"1"})
    image = builder.build()
    assert image.attributes is not None
    image.patch(image.attributes.node(0) + 14 + 6, ">I", 1_000_000)
    volume = opened(image.data)
    assert list(volume.attributes(volume.node(cnid))) == ["one"]


# -- fuzz --------------------------------------------------------------------------------------------------------------


def test_the_sound_volume_reads() -> None:
    volume = opened(SOUND.data)
    assert len(names(volume)) == 7
    read_all(SOUND.data)


@given(st.lists(st.tuples(st.sampled_from(METADATA), st.integers(0, 7)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=150)
def test_flipped_bits_in_the_metadata(flips: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND.data)
    for offset, bit in flips:
        data[offset] ^= 1 << bit
    read_all(data)


@given(st.lists(st.tuples(st.sampled_from(METADATA), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3))
@settings(deadline=None, max_examples=150)
def test_overwritten_metadata(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(SOUND.data)
    for offset, value in changes:
        data[offset : offset + len(value)] = value
    read_all(data)


@given(st.integers(0, len(SOUND.data)))
@settings(deadline=None, max_examples=60)
def test_truncated_volumes(length: int) -> None:
    read_all(SOUND.data[:length])


@given(st.integers(0, len(SOUND.data) // 512 - 1), st.integers(0, len(SOUND.data) // 512 - 1))
@settings(deadline=None, max_examples=60)
def test_swapped_sectors(first: int, second: int) -> None:
    data = bytearray(SOUND.data)
    a, b = slice(first * 512, first * 512 + 512), slice(second * 512, second * 512 + 512)
    data[a], data[b] = data[b], data[a]
    read_all(data)
