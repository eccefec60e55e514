"""Extended attributes: inline, in forks, in fragments, and damaged."""

import struct

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder, fork_data
from builders.walk import opened, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus import attributes as module
from dmgfs.hfsplus.volume import HfsPlusVolume
from dmgfs.source import ByteSource

NAMES = st.text("abcABC.é\u6f22\U0001f308", min_size=1, max_size=30)


@given(
    st.lists(st.dictionaries(NAMES, st.tuples(st.integers(0, 6000), st.booleans()), max_size=8), max_size=5),
    st.integers(1, 3),
    st.integers(2, 5) | st.none(),
)
@settings(deadline=None, max_examples=60)
def test_every_attribute_of_every_file(
    files: list[dict[str, tuple[int, bool]]], step: int, per_node: int | None
) -> None:
    builder = HfsPlusBuilder(records_per_node=per_node)
    values: dict[int, dict[str, bytes]] = {}
    for number, wanted in enumerate(files):
        cnid = builder.file(ROOT, f"file {number}")
        values[cnid] = {}
        for name, (size, as_fork) in wanted.items():
            as_fork = as_fork or size > 1000
            values[cnid][name] = value = (name.encode() + b"%d" % number) * 6000
            values[cnid][name] = value = value[:size]
            builder.attribute(cnid, name, value, as_fork=as_fork, extent_blocks=step)
    volume = opened(builder.build().data)
    for cnid, expected in values.items():
        found = volume.attributes(volume.node(cnid))
        assert {name: whole(value) for name, value in found.items()} == expected
        assert list(found) == sorted(expected, key=lambda name: name.encode("utf-16-be"))
        assert len(found) == len(expected)
        assert "not there" not in found
        assert found.get("not there") is None
    assert dict(volume.attributes(volume.node(ROOT))) == {}


def test_the_attributes_tree_itself_may_be_fragmented() -> None:
    builder = HfsPlusBuilder(attributes_node_size=1024, attributes_extent_blocks=1)
    numbers = [builder.file(ROOT, f"file {number}", attributes={"n": b"%d" % number * 50}) for number in range(100)]
    volume = opened(builder.build().data)
    for number, cnid in enumerate(numbers):
        assert whole(volume.attributes(volume.node(cnid))["n"]) == b"%d" % number * 50


def test_folders_and_the_root_have_attributes() -> None:
    builder = HfsPlusBuilder()
    builder.attribute(ROOT, "com.example", b"root")
    cnid = builder.folder(ROOT, "folder")
    builder.attribute(cnid, "com.example", b"folder")
    volume = opened(builder.build().data)
    for number, value in ((ROOT, b"root"), (cnid, b"folder")):
        assert whole(volume.attributes(volume.node(number))["com.example"]) == value


def test_a_volume_without_attributes_tree() -> None:
    builder = HfsPlusBuilder(with_attributes=False)
    cnid = builder.file(ROOT, "file")
    volume = opened(builder.build().data)
    assert list(volume.attributes(volume.node(cnid))) == []
    assert "x" not in volume.attributes(volume.node(cnid))


def test_a_name_longer_than_any_is_not_there() -> None:
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "file", attributes={"x" * 127: b"longest"})
    found = opened(builder.build().data)
    values = found.attributes(found.node(cnid))
    assert whole(values["x" * 127]) == b"longest"
    assert "x" * 128 not in values
    assert "x" * 100_000 not in values


def one(record: bytes, block: int = 0, *more: tuple[int, bytes]) -> tuple[HfsPlusVolume, int]:
    builder = HfsPlusBuilder()
    builder.blocks[8] = b"8" * 512
    builder.blocks[9] = b"9" * 512
    builder.next_block = 10
    cnid = builder.file(ROOT, "file", attributes={"sound": b"1"})
    builder.raw_attribute(cnid, "odd", block, record)
    for at, extra in more:
        builder.raw_attribute(cnid, "odd", at, extra)
    return opened(builder.build().data), cnid


def odd(volume: HfsPlusVolume, cnid: int) -> ByteSource:
    found = volume.attributes(volume.node(cnid))
    assert whole(found["sound"]) == b"1"
    assert list(found) == ["odd", "sound"]
    return found["odd"]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\0\0",
        struct.pack(">II", 0x10, 0),  # no size
        struct.pack(">IIII", 0x10, 0, 0, 5) + b"four",  # longer than the record
        struct.pack(">IIII", 0x10, 0, 0, 0xFFFFFFFF),
        struct.pack(">IIII", 0x40, 0, 0, 0),  # unknown
        struct.pack(">II", 0x30, 0) + bytes(64),  # a continuation of nothing
        struct.pack(">II", 0x20, 0) + bytes(78),  # cut short
        struct.pack(">II", 0x20, 0) + fork_data(1 << 60, 2, [(8, 2)]),
        struct.pack(">II", 0x20, 0) + fork_data(1025, 2, [(8, 2)]),
    ],
)
def test_a_damaged_record_is_an_error_of_that_attribute(record: bytes) -> None:
    volume, cnid = one(record)
    with pytest.raises(CorruptImage, match="'odd' of object 16"):
        odd(volume, cnid)


@pytest.mark.parametrize(
    ("block", "kind", "extents"),
    [(2, 0x30, [(9, 1)]), (1, 0x20, [(9, 1)]), (1, 0x30, [])],
)
def test_extents_that_do_not_continue_the_fork(block: int, kind: int, extents: list[tuple[int, int]]) -> None:
    padded = [*extents, *[(0, 0)] * 8][:8]
    more = struct.pack(">II", kind, 0) + b"".join(struct.pack(">II", *extent) for extent in padded)
    volume, cnid = one(struct.pack(">II", 0x20, 0) + fork_data(1024, 2, [(8, 1)]), 0, (block, more + bytes(16)))
    source = odd(volume, cnid)
    assert source.size == 1024
    assert bytes(source.read(0, 512)) == b"8" * 512
    with pytest.raises(CorruptImage):
        source.read(512, 1)


def test_extents_outside_the_volume() -> None:
    volume, cnid = one(struct.pack(">II", 0x20, 0) + fork_data(1024, 2, [(8, 1), (1 << 30, 1)]))
    with pytest.raises(CorruptImage):
        odd(volume, cnid).read(512, 1)


def test_listing_stops_at_some_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 10)
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "file", attributes={f"attribute {number:02}": b"" for number in range(30)})
    volume = opened(builder.build().data)
    found = volume.attributes(volume.node(cnid))
    assert len(found) == 10
    assert "attribute 29" in found


# -- compressed files --------------------------------------------------------------------------------------------------


def decmpfs(kind: int, size: int, payload: bytes = b"") -> bytes:
    return b"fpmc" + struct.pack("<IQ", kind, size) + payload


def test_a_compressed_file_shows_its_size_and_hides_how() -> None:
    builder = HfsPlusBuilder()
    stored = decmpfs(3, 5, b"\xffhello")
    plain = builder.file(ROOT, "flag clear", b"", attributes={"com.apple.decmpfs": stored})
    cnid = builder.file(
        ROOT, "compressed", flags=0x20, resource=b"packed", attributes={"com.apple.decmpfs": stored, "mine": b"1"}
    )
    volume = opened(builder.build().data)
    node = volume.node(cnid)
    assert (node.compressed, node.data_size, node.flags) == (True, 5, 0x20)
    assert volume.find(ROOT, "compressed") == node
    assert whole(volume.data(node)) == b"hello"
    assert volume.resource(node).size == 0
    assert list(volume.attributes(node)) == ["mine"]
    assert "com.apple.decmpfs" not in volume.attributes(node)
    node = volume.node(plain)
    assert (node.compressed, node.data_size) == (False, 0)
    assert list(volume.attributes(node)) == ["com.apple.decmpfs"]


@pytest.mark.parametrize("value", [None, b"", b"fpmc", b"nope" + bytes(12), decmpfs(3, 1 << 63)])
def test_a_compressed_file_without_a_usable_header_has_a_size_and_no_data(value: bytes | None) -> None:
    builder = HfsPlusBuilder()
    attributes = {} if value is None else {"com.apple.decmpfs": value}
    cnid = builder.file(ROOT, "compressed", b"real data", flags=0x20, attributes=attributes)
    volume = opened(builder.build().data)
    node = volume.node(cnid)
    assert (node.compressed, node.data_size, node.broken) == (True, 9, None)
    with pytest.raises(CorruptImage):
        volume.data(node)


def test_a_compressed_file_behind_hard_links() -> None:
    builder = HfsPlusBuilder()
    inode = builder.inode(50, b"", 2, flags=0x20, attributes={"com.apple.decmpfs": decmpfs(3, 3, b"\xffabc")})
    builder.file_link(ROOT, "link", 50)
    volume = opened(builder.build().data)
    node = volume.find(ROOT, "link")
    assert node is not None
    assert (node.cnid, node.compressed, node.data_size) == (inode, True, 3)
    assert whole(volume.data(node)) == b"abc"


def test_only_regular_files_are_compressed() -> None:
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "link", b"target", mode=0o120755, flags=0x20)
    volume = opened(builder.build().data)
    assert whole(volume.data(volume.node(cnid))) == b"target"


def test_what_is_listed_and_cannot_be_found_is_damage_and_not_absence() -> None:
    builder = HfsPlusBuilder(records_per_node=2)
    cnid = builder.file(ROOT, "file", attributes=dict.fromkeys("abcd", b"value"))
    image = builder.build()
    assert image.attributes is not None
    root = image.get(image.attributes.node(0) + 16, ">I")
    image.patch(
        image.record(image.attributes, root, 1) + 14, ">H", ord("d")
    )  # the index says that leaf begins with d
    volume = opened(image.data)
    found = volume.attributes(volume.node(cnid))
    assert list(found) == ["a", "b", "c", "d"]
    assert whole(found["d"]) == b"value"
    with pytest.raises(CorruptImage, match="listed, and not found"):
        found["c"]
