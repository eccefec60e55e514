"""The catalog: names, folders a page at a time, and what a record says about its file."""

import stat
import struct

import pytest
from builders.hfsplus import CREATED, EPOCH, ROOT, HfsPlusBuilder
from builders.walk import children, names, opened, walk, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.unicode import decompose, encode, exact, fold

NAMES = st.lists(
    st.text(st.characters(max_codepoint=0x1FFFF), min_size=1, max_size=20).filter(
        lambda name: len(encode(decompose(name))) <= 510 and fold(encode(decompose(name)))
    ),
    max_size=40,
)


@given(NAMES, st.booleans(), st.sampled_from([512, 1024, 4096, 32768]), st.integers(2, 6) | st.none())
@settings(deadline=None, max_examples=80)
def test_every_name_is_listed_in_order_and_found(
    typed: list[str], binary: bool, node_size: int, per_node: int | None
) -> None:
    order = exact if binary else fold
    by_key = {order(encode(decompose(name))): decompose(name) for name in typed if decompose(name) not in ("",)}
    builder = HfsPlusBuilder(
        hfsx=binary, binary=binary, catalog_node_size=node_size, records_per_node=per_node, with_attributes=False
    )
    numbers = {name: builder.file(ROOT, name, stored=True) for name in by_key.values()}
    volume = opened(builder.build().data)
    assert names(volume) == [by_key[key] for key in sorted(by_key)]
    for name, number in numbers.items():
        found = volume.find(ROOT, name)
        assert found is not None
        assert (found.cnid, found.name) == (number, name)
        assert volume.node(number) == found
    for name in typed:
        found = volume.find(ROOT, name)
        assert found is not None
        assert volume.fold(name) == volume.fold(found.name)
    assert volume.find(ROOT, "".join(numbers) + "?") is None


@pytest.mark.parametrize("page", [1, 2, 3, 10, 1000])
def test_folders_are_listed_in_pages_of_any_size(page: int) -> None:
    builder = HfsPlusBuilder(records_per_node=3)
    folders = [builder.folder(ROOT, f"folder {number}") for number in range(4)]
    for folder in folders[:3]:
        for number in range(10):
            builder.file(folder, f"file {number}")
    volume = opened(builder.build().data)
    assert [node.name for node in children(volume, ROOT, page)] == [f"folder {number}" for number in range(4)]
    for folder in folders[:3]:
        assert [node.name for node in children(volume, folder, page)] == [f"file {number}" for number in range(10)]
    assert children(volume, folders[3], page) == []
    assert children(volume, 4_000_000_000, page) == []
    assert children(volume, 0xFFFFFFFF, page) == []


def test_a_cursor_outlives_the_cache() -> None:
    builder = HfsPlusBuilder(catalog_node_size=512)
    for number in range(300):
        builder.file(ROOT, f"file {number:03}")
    volume = opened(builder.build().data, node_cache_bytes=1)
    assert names(volume) == [f"file {number:03}" for number in range(300)]


def test_every_field_of_a_file() -> None:
    builder = HfsPlusBuilder()
    finder = b"TEXTttxt\x40\x00" + bytes(range(22))
    cnid = builder.file(
        ROOT,
        "file",
        b"12345",
        resource=b"resource",
        mode=0o106755,
        uid=7,
        gid=8,
        flags=0x0002_0004,
        dates=(EPOCH - 5, EPOCH + 1, 0xFFFFFFFF, 0, 1),
        finder=finder,
    )
    node = opened(builder.build().data).node(cnid)
    assert node._asdict() == {
        "cnid": 16,
        "parent": 2,
        "name": "file",
        "mode": stat.S_IFREG | 0o6755,
        "has_permissions": True,
        "uid": 7,
        "gid": 8,
        "special": 0,
        "nlink": 1,
        "folders": None,
        "valence": 0,
        "data_size": 5,
        "resource_size": 8,
        "data_blocks": 1,
        "created": -5,
        "modified": 1,
        "changed": 0xFFFFFFFF - EPOCH,
        "accessed": None,
        "backed_up": 1 - EPOCH,
        "flags": 0x0002_0004 | 0x8000,
        "finder_info": finder,
        "text_encoding": 0,
        "compressed": False,
        "broken": None,
    }


def test_every_field_of_a_folder() -> None:
    builder = HfsPlusBuilder()
    counted = builder.folder(ROOT, "counted", record_flags=0x10, folders=3, valence=5, mode=0o41777)
    plain = builder.folder(counted, "plain", folders=3, mode=0)
    volume = opened(builder.build().data)
    node = volume.node(counted)
    assert (node.folders, node.valence, node.mode, node.nlink) == (3, 5, stat.S_IFDIR | 0o1777, 1)
    node = volume.node(plain)
    assert (node.folders, node.mode, node.has_permissions) == (None, stat.S_IFDIR | 0o755, False)
    assert volume.node(ROOT).name == "Test"
    assert volume.node(ROOT).parent == 1


@pytest.mark.parametrize(
    ("mode", "shown", "has_permissions"),
    [
        (0o100600, 0o100600, True),
        (0o120777, 0o120777, True),
        (0o010644, 0o010644, True),
        (0o140755, 0o140755, True),
        (0o040755, 0o100755, True),  # a file must not be a folder
        (0o170123, 0o100123, True),  # nor a whiteout
        (0o000777, 0o100644, False),
    ],
)
def test_the_type_of_a_file_agrees_with_its_record(mode: int, shown: int, has_permissions: bool) -> None:
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "file", mode=mode)
    node = opened(builder.build().data).node(cnid)
    assert (node.mode, node.has_permissions) == (shown, has_permissions)


def test_a_folder_is_a_folder_whatever_its_mode_says() -> None:
    builder = HfsPlusBuilder()
    cnid = builder.folder(ROOT, "folder", mode=0o100755)
    assert opened(builder.build().data).node(cnid).mode == stat.S_IFDIR | 0o755


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_device_numbers(kind: int) -> None:
    builder = HfsPlusBuilder()
    cnid = builder.file(ROOT, "device", mode=kind | 0o600, special=0x0E000002)
    node = opened(builder.build().data).node(cnid)
    assert (node.mode, node.special, node.nlink) == (kind | 0o600, 0x0E000002, 1)


def test_expanded_times_count_from_1970() -> None:
    builder = HfsPlusBuilder(attributes=0x100 | 1 << 29)
    expanded = builder.file(ROOT, "expanded", record_flags=0x1002, dates=(4_000_000_000,) * 5)
    plain = builder.file(ROOT, "plain", dates=(CREATED,) * 5)
    volume = opened(builder.build().data)
    assert volume.node(expanded).modified == 4_000_000_000
    assert volume.node(plain).modified == CREATED - EPOCH
    builder = HfsPlusBuilder()
    unannounced = builder.file(ROOT, "file", record_flags=0x1002, dates=(CREATED,) * 5)
    assert opened(builder.build().data).node(unannounced).modified == CREATED - EPOCH


def test_names_are_found_decomposed_composed_and_as_they_are() -> None:
    builder = HfsPlusBuilder()
    usual = builder.file(ROOT, "caf\u00e9")
    odd = builder.file(ROOT, "th\u00e9", stored=True)  # a tool that does not decompose
    volume = opened(builder.build().data)
    for name, cnid in (("caf\u00e9", usual), ("cafe\u0301", usual), ("CAF\u00c9", usual), ("th\u00e9", odd)):
        found = volume.find(ROOT, name)
        assert found is not None, name
        assert found.cnid == cnid
    assert volume.find(ROOT, "the\u0301") is None
    assert volume.fold("CAF\u00c9") == volume.fold("cafe\u0301")
    assert volume.fold("caf\u00e9") != volume.fold("cafe")


def test_a_case_sensitive_volume_keeps_names_apart() -> None:
    builder = HfsPlusBuilder(hfsx=True, binary=True)
    numbers = {name: builder.file(ROOT, name) for name in ("readme", "README", "\0zero")}
    volume = opened(builder.build().data)
    assert names(volume) == ["\0zero", "README", "readme"]
    for name, cnid in numbers.items():
        found = volume.find(ROOT, name)
        assert found is not None
        assert found.cnid == cnid
    assert volume.find(ROOT, "Readme") is None
    assert volume.fold("A") != volume.fold("a")


def test_names_at_the_limit() -> None:
    builder = HfsPlusBuilder()
    long = "\u6f22" * 255
    cnid = builder.file(ROOT, long)
    lone = builder.file(ROOT, "\ud83d", stored=True)
    volume = opened(builder.build().data)
    for name, number in ((long, cnid), ("\ud83d", lone)):
        found = volume.find(ROOT, name)
        assert found is not None
        assert (found.cnid, found.name) == (number, name)
    assert volume.find(ROOT, long + "\u6f22") is None
    assert volume.find(ROOT, "x" * 100_000) is None


@pytest.mark.parametrize("name", ["", "\u200c", "\ufeff\u200d"])
def test_a_name_of_nothing_finds_nothing(name: str) -> None:
    assert opened(HfsPlusBuilder().build().data).find(ROOT, name) is None


@pytest.mark.parametrize("name", [".", "..", "a:b", "a/b", "new\nline", "\u202eevil"])
def test_odd_names_are_the_callers_business(name: str) -> None:
    builder = HfsPlusBuilder()
    builder.file(ROOT, name)
    volume = opened(builder.build().data)
    assert names(volume) == [name]
    assert volume.find(ROOT, name) is not None


def test_there_is_no_such_object() -> None:
    volume = opened(HfsPlusBuilder().build().data)
    for cnid in (0, 1, 3, 15, 16, 0xFFFFFFFF):
        with pytest.raises(CorruptImage, match=f"object {cnid}"):
            volume.node(cnid)
    assert volume.find(16, "x") is None


def test_a_thread_that_leads_to_something_else_is_an_error() -> None:
    builder = HfsPlusBuilder()
    first = builder.file(ROOT, "first")
    builder.file(ROOT, "second", thread=False, cnid=77)
    builder.raw(77, "", struct.pack(">hhIH", 4, 0, ROOT, 5) + encode("first"))
    builder.raw(78, "", struct.pack(">hhIH", 4, 0, ROOT, 5) + encode("ghost"))
    builder.raw(79, "", struct.pack(">hhIH", 4, 0, 78, 0))
    volume = opened(builder.build().data)
    assert volume.node(first).name == "first"
    with pytest.raises(CorruptImage, match="object 16 is in its place"):
        volume.node(77)
    with pytest.raises(CorruptImage, match="object 78"):
        volume.node(78)
    with pytest.raises(CorruptImage, match="object 79"):
        volume.node(79)


def test_a_file_without_a_thread_is_listed_and_read() -> None:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "file", b"data", thread=False)
    volume = opened(builder.build().data)
    (node,) = children(volume, ROOT)
    assert whole(volume.data(node)) == b"data"


def test_a_folder_has_no_data() -> None:
    builder = HfsPlusBuilder()
    cnid = builder.folder(ROOT, "folder")
    volume = opened(builder.build().data)
    with pytest.raises(CorruptImage, match="no file"):
        volume.data(volume.node(cnid))
    assert volume.resource(volume.node(cnid)).size == 0


def test_thread_records_of_any_length_are_read() -> None:
    builder = HfsPlusBuilder()
    builder.folder(ROOT, "padded", cnid=50, thread=False)
    builder.raw(50, "", struct.pack(">hhIH", 3, 0, ROOT, 6) + encode("padded").ljust(510, b"\0"))
    builder.folder(ROOT, "cut", cnid=51, thread=False)
    builder.raw(51, "", struct.pack(">hhIH", 3, 0, ROOT, 6) + encode("cu"))
    volume = opened(builder.build().data)
    assert volume.node(50).name == "padded"
    with pytest.raises(CorruptImage):
        volume.node(51)


def test_damaged_records_are_left_out_of_listings_with_a_warning() -> None:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "sound", b"data")
    builder.raw(ROOT, "cut short", struct.pack(">hHII", 2, 0, 0, 99) + bytes(100))
    builder.raw(ROOT, "empty", b"")
    builder.raw(ROOT, "unknown type", struct.pack(">h", 9) + bytes(246))
    for cnid in (0, 1, 15):
        builder.file(ROOT, f"file {cnid}", cnid=cnid, thread=False)
    for cnid in (0, 2, 5):
        builder.folder(ROOT, f"folder {cnid}", cnid=cnid, thread=False)
    volume = opened(builder.build().data)
    for _ in range(2):
        assert names(volume) == ["sound"]
    assert len(volume.info.warnings) == 9
    for name in ("cut short", "empty", "unknown type", "file 1", "folder 2"):
        with pytest.raises(CorruptImage, match=name):
            volume.find(ROOT, name)


def test_a_folder_may_be_its_own_descendant_and_reading_it_ends() -> None:
    builder = HfsPlusBuilder()
    builder.folder(ROOT, "outer", cnid=20, thread=False)
    builder.folder(20, "inner", cnid=21, thread=False)
    builder.folder(21, "again", cnid=20)
    volume = opened(builder.build().data)
    assert [path for path, _ in walk(volume)] == ["outer", "outer/inner", "outer/inner/again"]


def test_two_files_may_claim_one_number() -> None:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "first", b"1", cnid=30)
    builder.file(ROOT, "second", b"22", cnid=30, thread=False)
    volume = opened(builder.build().data)
    assert [whole(volume.data(node)) for node in children(volume, ROOT)] == [b"1", b"22"]
