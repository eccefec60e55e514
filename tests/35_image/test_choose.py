"""Which partition is meant, and what is said when none can be."""

import pytest
from builders.hfs import File, Folder
from builders.hfs import Image as ClassicImage
from builders.hfsplus import HfsPlusBuilder, wrap
from builders.partitions import (
    APFS_GUID,
    BOOT_GUID,
    EFI_GUID,
    HFS_GUID,
    Part,
    apm_disk,
    gpt_disk,
    mbr_disk,
    mbr_entry,
    signed,
)

from dmgfs.errors import CorruptImage, NotAnImage, Unsupported, WhichPartition

SIZE = 1 << 20


def volume(name: str) -> bytes:
    builder = HfsPlusBuilder(name=name)
    builder.file(2, "file", b"content of " + name.encode())
    return bytes(builder.build().data)


def disk_of(*volumes: tuple[str, bytes]) -> bytearray:
    """A GPT disk with these (type GUID, volume) one after the other, named "Part 1", "Part 2" …"""
    disk_blocks = 64 + sum(-(-len(data) // 512) for _, data in volumes) + 64
    parts, place = [], 64
    for number, (guid, data) in enumerate(volumes, 1):
        parts.append(Part(guid, place, -(-len(data) // 512), f"Part {number}"))
        place += parts[-1].count
    disk = gpt_disk(parts, disk_blocks * 512)
    for part, (_, data) in zip(parts, volumes, strict=True):
        disk[part.first * 512 : part.first * 512 + len(data)] = data
    return disk


def fat() -> bytes:
    sector = bytearray(8192)
    sector[:3], sector[54:59], sector[510:512] = b"\xeb\x3c\x90", b"FAT16", b"\x55\xaa"
    return bytes(sector)


def apfs() -> bytes:
    return bytes(signed(bytearray(8192), 0, b"NXSB"))


def test_the_only_volume_is_taken(opened) -> None:
    image = opened(disk_of((EFI_GUID, fat()), (HFS_GUID, volume("One"))))
    assert image.choose().index == 2
    assert image.volume().info.name == "One"
    assert image.volume() is image.volume(2)


def test_a_boot_volume_counts_only_where_there_is_no_other(opened) -> None:
    both = disk_of((BOOT_GUID, volume("Recovery HD")), (HFS_GUID, volume("System")))
    assert opened(both).volume().info.name == "System"
    assert opened(disk_of((BOOT_GUID, volume("Recovery HD")))).volume().info.name == "Recovery HD"


def test_of_several_volumes_none_is_taken_and_all_are_listed(opened) -> None:
    image = opened(disk_of((HFS_GUID, volume("One")), (HFS_GUID, volume("Two"))))
    with pytest.raises(WhichPartition) as caught:
        image.choose()
    assert '1 Apple_HFS "Part 1" 0.0 MiB HFS+; 2 Apple_HFS "Part 2"' in str(caught.value)


@pytest.mark.parametrize("wanted", [2, "2", "Part 2", "part 2", "Two"])
def test_a_partition_is_found_by_number_by_name_and_by_the_name_of_its_volume(opened, wanted) -> None:
    image = opened(disk_of((HFS_GUID, volume("One")), (HFS_GUID, volume("Two"))))
    assert image.volume(wanted).info.name == "Two"


@pytest.mark.parametrize("wanted", [0, 3, "Three", ""])
def test_a_partition_that_is_not_there_is_named_with_those_that_are(opened, wanted) -> None:
    image = opened(disk_of((HFS_GUID, volume("One")), (HFS_GUID, volume("Two"))))
    with pytest.raises(WhichPartition, match=r"there is no partition .*1 Apple_HFS .*2 Apple_HFS"):
        image.choose(wanted)


def test_two_partitions_of_one_name_are_not_told_apart_by_it(opened) -> None:
    disk = apm_disk([Part("Apple_HFS", 64, 100, "disk image"), Part("Apple_HFS", 200, 100, "disk image")], SIZE)
    with pytest.raises(WhichPartition, match="several partitions are called 'disk image'"):
        opened(disk).choose("disk image")


@pytest.mark.parametrize(
    ("data", "feature"),
    [
        (disk_of((EFI_GUID, fat()), (APFS_GUID, apfs())), "APFS, which stands on partition 2 (Apple_APFS),"),
        (apfs(), "APFS, which stands on the disk,"),
        (mbr_disk([mbr_entry(0x0B, 8, 100)], 4096) + fat(), "FAT, which stands on partition 1 (0x0B),"),
        (signed(bytearray(8192), 0, b"\xd2\xd7"), "MFS, which stands on the disk,"),
    ],
)
def test_other_volumes_are_named_with_what_reads_them(opened, data: bytes, feature: str) -> None:
    with pytest.raises(Unsupported) as caught:
        opened(data).choose()
    assert caught.value.feature == feature
    assert "`dmgfs convert --to raw` writes the disk out" in caught.value.advice


def test_core_storage_is_named(opened) -> None:
    partition = bytearray(8192)
    partition[10:12], partition[88:90] = b"\x10\0", b"CS"
    with pytest.raises(Unsupported, match=r"CoreStorage.*fvdemount"):
        opened(disk_of((HFS_GUID, bytes(partition)))).choose()


def test_an_unreadable_volume_can_be_asked_for_and_is_refused_by_name(opened) -> None:
    image = opened(disk_of((EFI_GUID, fat()), (HFS_GUID, volume("One"))))
    with pytest.raises(Unsupported, match="FAT"):
        image.choose(1)


def test_a_partition_outside_the_image_is_damage(opened) -> None:
    disk = apm_disk([Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 100)], 32768)
    with pytest.raises(CorruptImage, match=r"partition 2 \(Apple_HFS\) at offset 0x8000: absent"):
        opened(disk).choose()


def test_nothing_at_all_is_no_image_and_shows_what_is_there(opened) -> None:
    with pytest.raises(NotAnImage, match=r"no volume on the disk: unknown, it begins with 78 78"):
        opened(b"x" * 4096).choose()
    with pytest.raises(NotAnImage, match="no volume on the disk: empty"):
        opened(bytes(4096)).choose()
    with pytest.raises(NotAnImage, match="no volume on partition 1"):
        opened(disk_of((HFS_GUID, b"x" * 4096))).choose()


def test_a_map_of_nothing_but_itself_lists_no_volume(opened) -> None:
    with pytest.raises(NotAnImage, match="the APM partition map lists no volume"):
        opened(apm_disk([Part("Apple_partition_map", 1, 63), Part("Apple_Free", 64, 9)], SIZE)).choose()


def test_a_wrapped_volume_is_opened(opened) -> None:
    image = opened(wrap(volume("Inside")))
    assert image.found(image.partitions[0]).wrapped
    assert image.volume().info.name == "Inside"


def test_a_wrapper_that_leads_nowhere_is_damage(opened) -> None:
    data = wrap(volume("Inside"))
    data[1024 + 126 : 1024 + 128] = b"\xff\xff"
    with pytest.raises(CorruptImage, match="damaged HFS wrapper"):
        opened(data).choose()


def test_a_volume_whose_header_is_gone_is_opened_by_its_copy(opened) -> None:
    data = bytearray(volume("Copy"))
    data[1024:1536] = bytes(512)
    assert opened(disk_of((HFS_GUID, bytes(data)))).volume().info.name == "Copy"


def test_hfs_standard_is_opened(opened) -> None:
    image = opened(ClassicImage(Folder({"file": File(b"old")})).bytes)
    assert image.volume().info.kind == "HFS"
