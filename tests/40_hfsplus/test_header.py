"""Volume header, its copy, and the wrapper."""

import struct

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder, wrap
from builders.walk import names, opened, whole

from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.volume import VolumeInfo

HEADER = 1024


def volume(**options: object) -> bytearray:
    builder = HfsPlusBuilder(**options)  # type: ignore[arg-type]
    builder.file(ROOT, "hello", b"world")
    return builder.build().data


def patched(data: bytearray, offset: int, form: str, *values: object) -> bytearray:
    struct.pack_into(form, data, offset, *values)
    return data


def test_what_the_header_says() -> None:
    assert opened(volume()).info == VolumeInfo(
        kind="HFS+",
        name="Test",
        case_sensitive=False,
        journal=None,
        clean=True,
        block_size=512,
        total_blocks=len(volume()) // 512,
        free_blocks=4,
        files=1,
        folders=0,
        created=1_000_000_000,
        modified=1_000_000_001,
        backed_up=None,
        checked=1_000_000_002,
        last_mounted_by="10.0",
        id="0123456789abcdef",
        attributes=["unmounted cleanly"],
        encodings=1,
        warnings=(),
    )


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096, 65536])
def test_block_sizes(block_size: int) -> None:
    made = opened(volume(block_size=block_size))
    node = made.find(ROOT, "hello")
    assert node is not None
    assert whole(made.data(node)) == b"world"
    assert made.info.block_size == block_size


@pytest.mark.parametrize(("binary", "sensitive"), [(True, True), (False, False)])
def test_hfsx_says_how_it_compares(binary: bool, sensitive: bool) -> None:
    info = opened(volume(hfsx=True, binary=binary)).info
    assert (info.kind, info.case_sensitive) == ("HFSX", sensitive)


def test_hfsx_with_an_unknown_comparison_is_refused() -> None:
    with pytest.raises(Unsupported, match="0x77"):
        opened(volume(hfsx=True, key_compare=0x77))


def test_on_hfs_plus_the_comparison_field_means_nothing() -> None:
    made = opened(volume(key_compare=0xBC))
    assert not made.info.case_sensitive
    assert made.find(ROOT, "HELLO") is not None


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (0, ">H", 0),  # signature
        (2, ">H", 9),  # version
        (40, ">I", 0),  # block size
        (40, ">I", 1000),
        (40, ">I", 256),
        (40, ">I", 1 << 31),
        (44, ">I", 0),  # total blocks
        (272 + 12, ">I", 0),  # no catalog
    ],
)
def test_the_copy_is_used_when_the_header_is_damaged(offset: int, form: str, value: int) -> None:
    data = patched(volume(), HEADER + offset, form, value)
    made = opened(data)
    assert names(made) == ["hello"]
    assert "copy at offset" in made.info.warnings[0]
    struct.pack_into(form, data, len(data) - 1024 + offset, value)
    with pytest.raises((CorruptImage, NotAnImage)):
        opened(data)


def test_the_copy_is_found_at_the_end_of_the_volume_too() -> None:
    data = patched(volume(), HEADER + 2, ">H", 9) + bytes(5000)
    assert names(opened(data)) == ["hello"]


def test_a_sound_header_wins_over_its_copy() -> None:
    data = volume()
    struct.pack_into(">I", data, len(data) - 1024 + 40, 1024)
    assert opened(data).info.warnings == ()


def test_what_is_no_volume() -> None:
    for data in (b"", bytes(1535), bytes(100_000)):
        with pytest.raises(NotAnImage):
            opened(data)


def test_free_blocks_never_exceed_the_volume() -> None:
    info = opened(patched(volume(), HEADER + 48, ">I", 0xFFFFFFFF)).info
    assert info.free_blocks == info.total_blocks


def test_a_volume_longer_than_its_partition_is_read_with_a_warning() -> None:
    data = volume()
    total = struct.unpack_from(">I", data, HEADER + 44)[0]
    made = opened(patched(data, HEADER + 44, ">I", total + 100))
    assert names(made) == ["hello"]
    assert "only" in made.info.warnings[0]


def test_not_unmounted_and_no_journal_is_a_warning() -> None:
    made = opened(patched(volume(), HEADER + 4, ">I", 0))
    assert not made.info.clean
    assert "not unmounted" in made.info.warnings[0]


def test_attribute_bits_have_names() -> None:
    info = opened(patched(volume(), HEADER + 4, ">I", 1 << 31 | 1 << 15 | 0x100)).info
    assert info.attributes == ["unmounted cleanly", "software lock", "unused nodes cleared"]


# -- the wrapper -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allocation_block", "start"), [(512, 16), (1024, 20), (4096, 3), (31744, 7)])
def test_a_wrapped_volume(allocation_block: int, start: int) -> None:
    made = opened(wrap(volume(), allocation_block=allocation_block, start=start))
    node = made.find(ROOT, "hello")
    assert node is not None
    assert whole(made.data(node)) == b"world"


def test_a_wrapper_is_opened_once() -> None:
    with pytest.raises(NotAnImage):
        opened(wrap(wrap(volume())))


def test_a_wrapper_around_itself_ends() -> None:
    data = wrap(volume(), start=0)
    struct.pack_into(">HHH", data, 1024 + 124, 0x482B, 0, 100)
    with pytest.raises(NotAnImage):
        opened(data)


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [(20, ">I", 0), (20, ">I", 1000), (20, ">I", 0xFFFFFE00), (126, ">H", 0xFFFF), (128, ">H", 0)],
)
def test_a_damaged_wrapper_is_named(offset: int, form: str, value: int) -> None:
    with pytest.raises(CorruptImage, match="HFS wrapper"):
        opened(patched(wrap(volume()), 1024 + offset, form, value))


def test_a_truncated_wrapper_keeps_what_is_there() -> None:
    data = patched(wrap(volume()), 1024 + 128, ">H", 0xFFFF)
    made = opened(data)
    assert names(made) == ["hello"]
    assert "longer than the wrapper" in made.info.warnings[0]


# -- the trees ---------------------------------------------------------------------------------------------------------


def test_a_damaged_catalog_header_is_an_error_of_opening() -> None:
    builder = HfsPlusBuilder()
    image = builder.build()
    image.patch(image.catalog.node(0) + 14 + 18, ">H", 3)
    with pytest.raises(CorruptImage, match="HFS\\+ catalog: header record"):
        opened(image.data)


def test_a_catalog_without_a_root_folder_is_an_error_of_opening() -> None:
    image = HfsPlusBuilder().build()
    image.patch(image.catalog.node(0) + 14, ">HI", 0, 0)
    with pytest.raises(CorruptImage, match="object 2"):
        opened(image.data)


def test_a_catalog_size_beyond_its_blocks_is_refused() -> None:
    for size in (1 << 63, (1 << 64) - 1):
        data = patched(volume(), HEADER + 272, ">Q", size)
        with pytest.raises(CorruptImage, match="catalog file"):
            opened(data)


def test_damage_to_the_other_trees_is_a_warning_and_an_error_of_who_needs_them() -> None:
    builder = HfsPlusBuilder()
    plain = builder.file(ROOT, "plain", b"plain", attributes={"com.example": b"1"})
    fragmented = builder.file(ROOT, "fragmented", b"f" * 512 * 12, extent_blocks=1)
    image = builder.build()
    assert image.attributes is not None
    image.patch(image.attributes.node(0) + 14 + 18, ">H", 3)
    image.patch(image.extents.node(0) + 14 + 18, ">H", 3)
    made = opened(image.data)
    assert len(made.info.warnings) == 2
    assert whole(made.data(made.node(plain))) == b"plain"
    assert bytes(made.data(made.node(fragmented)).read(0, 8 * 512)) == b"f" * 512 * 8
    with pytest.raises(CorruptImage):
        made.data(made.node(fragmented)).read(8 * 512, 1)
    for _ in range(2):
        with pytest.raises(CorruptImage, match="attributes"):
            made.attributes(made.node(plain))
