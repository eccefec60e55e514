"""Partition maps as they ought to be: what was built is what is read, in every scheme and block size."""

import pytest
from builders.partitions import (
    APFS_GUID,
    BOOT_GUID,
    EFI_GUID,
    HFS_GUID,
    Part,
    add_apm,
    apm_disk,
    gpt_disk,
    mbr_disk,
    mbr_entry,
    put_mbr,
    signed,
)
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.partitions import PartitionMap, read_map
from dmgfs.source import MemorySource

SIZE = 1 << 20


def rows(found: PartitionMap) -> list[tuple[int, str, str, int, int]]:
    return [(one.index, one.type, one.name, one.start, one.length) for one in found.partitions]


names = st.text(st.sampled_from("abc XYZ éüß™∞09-_"), max_size=31)
extents = st.tuples(st.integers(1, 200), st.integers(1, 50))


@given(
    st.lists(st.tuples(st.sampled_from(["Apple_HFS", "Apple_Free", "Apple_UFS", "Windows_FAT_32"]), extents, names),
             min_size=1, max_size=20),
    st.sampled_from([512, 1024, 2048, 4096]),
    st.booleans(),
)  # fmt: skip
def test_apm_reads_what_was_built(wanted, block: int, descriptor: bool) -> None:
    parts = [Part(type_, first, count, name) for type_, (first, count), name in wanted]
    disk = apm_disk(parts, SIZE, block=block, ddm_block=None if descriptor else 0)
    if parts[0].first == 1 and block > 512:
        parts[0] = Part("Apple_HFS", 2, 1)
        disk = apm_disk(parts, SIZE, block=block, ddm_block=None if descriptor else 0)
    found = read_map(MemorySource(disk))
    assert (found.scheme, found.block_size) == ("APM", block)
    assert rows(found) == [
        (index, part.type, part.name, part.first * block, part.count * block) for index, part in enumerate(parts, 1)
    ]


def test_apm_of_a_hybrid_disc_prefers_the_map_at_512() -> None:
    disk = apm_disk([Part("Apple_HFS", 100, 9, "wrong")], SIZE, block=2048)
    add_apm(disk, [Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 400, "right")], 512)
    found = read_map(MemorySource(disk))
    assert found.block_size == 512
    assert rows(found)[1] == (2, "Apple_HFS", "right", 64 * 512, 400 * 512)


def test_apm_void_between_two_interleaved_maps_is_passed_over() -> None:
    parts = [
        Part("Apple_partition_map", 1, 63),
        Part("Apple_HFS", 64, 4),
        Part("Apple_Void", 0, 0),
        Part("Apple_HFS", 80, 4),
    ]
    assert [row[0] for row in rows(read_map(MemorySource(apm_disk(parts, SIZE))))] == [1, 2, 4]


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.sampled_from([HFS_GUID, APFS_GUID, EFI_GUID, BOOT_GUID]), extents, names)),
             min_size=1, max_size=16).filter(any),
    st.sampled_from([512, 1024, 2048, 4096]),
    st.sampled_from([128, 136, 256]),
)  # fmt: skip
def test_gpt_reads_what_was_built(wanted, block: int, entry_size: int) -> None:
    short = {HFS_GUID: "Apple_HFS", APFS_GUID: "Apple_APFS", EFI_GUID: "EFI", BOOT_GUID: "Apple_Boot"}
    parts = [None if one is None else Part(one[0], one[1][0], one[1][1], one[2]) for one in wanted]
    found = read_map(MemorySource(gpt_disk(parts, SIZE, block=block, entries=16, entry_size=entry_size)))
    assert (found.scheme, found.block_size, list(found.warnings)) == ("GPT", block, [])
    assert rows(found) == [
        (index, short[part.type], part.name, part.first * block, part.count * block)
        for index, part in enumerate(parts, 1)
        if part is not None
    ]


@pytest.mark.parametrize("block", [512, 4096])
def test_gpt_with_a_destroyed_primary_is_read_from_the_backup(block: int) -> None:
    disk = gpt_disk([Part(HFS_GUID, 40, 100, "Volume")], SIZE, block=block)
    disk[block : block + 8] = bytes(8)
    found = read_map(MemorySource(disk))
    assert rows(found) == [(1, "Apple_HFS", "Volume", 40 * block, 100 * block)]


def test_gpt_with_a_wrong_primary_checksum_takes_the_backup_and_says_so() -> None:
    disk = gpt_disk([Part(HFS_GUID, 40, 100)], SIZE)
    disk[1024 + 40] ^= 0xFF  # last LBA of entry 1 in the primary table only
    found = read_map(MemorySource(disk))
    assert rows(found)[0][4] == 100 * 512
    assert list(found.warnings) == [
        "primary GPT header: the checksum of its entries is wrong",
        "the backup GPT header is used",
    ]


def test_gpt_with_both_checksums_wrong_is_used_with_a_warning() -> None:
    disk = gpt_disk([Part(HFS_GUID, 40, 100)], SIZE)
    disk[512 + 16] ^= 1
    disk[SIZE - 512 + 16] ^= 1
    found = read_map(MemorySource(disk))
    assert rows(found)[0][3:] == (40 * 512, 100 * 512)
    assert "used all the same" in found.warnings[-1]


def test_mbr_primary_and_logical_partitions() -> None:
    disk = mbr_disk([mbr_entry(0xAF, 8, 100, 0x80), mbr_entry(0x0F, 200, 400)], SIZE)
    put_mbr(disk, 200, [mbr_entry(0xAF, 2, 10), mbr_entry(0x05, 50, 60)])
    put_mbr(disk, 250, [mbr_entry(0x0B, 3, 20)])
    found = read_map(MemorySource(disk))
    assert rows(found) == [
        (1, "0xAF", "", 8 * 512, 100 * 512),
        (5, "0xAF", "", 202 * 512, 10 * 512),
        (6, "0x0B", "", 253 * 512, 20 * 512),
    ]


def test_an_hfs_volume_in_the_last_mbr_partition_is_not_mistaken_for_the_whole_disk() -> None:
    disk = mbr_disk([mbr_entry(0xAF, 8, SIZE // 512 - 8)], SIZE)
    signed(disk, 8 * 512, b"H+")
    disk[SIZE - 1024 : SIZE - 1022] = b"H+"
    assert read_map(MemorySource(disk)).scheme == "MBR"


@pytest.mark.parametrize("signature", [b"H+", b"HX", b"BD", b"NXSB"])
def test_a_bare_volume_is_one_partition_even_with_55aa(signature: bytes) -> None:
    disk = signed(mbr_disk([mbr_entry(0x0B, 8, 100)], SIZE), 0, signature)
    found = read_map(MemorySource(disk))
    assert (found.scheme, rows(found)) == ("none", [(0, "", "", 0, SIZE)])


def test_apm_and_gpt_together_the_one_that_leads_to_hfs_wins() -> None:
    disk = gpt_disk([Part(HFS_GUID, 200, 100)], SIZE, block=2048)
    add_apm(disk, [Part("Apple_partition_map", 1, 2), Part("Apple_HFS", 1000, 100)], 512)
    assert read_map(MemorySource(disk)).scheme == "GPT"
    assert read_map(MemorySource(signed(bytearray(disk), 1000 * 512, b"H+"))).scheme == "APM"
    assert (
        read_map(MemorySource(signed(signed(bytearray(disk), 1000 * 512, b"H+"), 200 * 2048, b"HX"))).scheme == "GPT"
    )


def test_nothing_at_all_is_one_partition_over_the_whole_disk() -> None:
    for size in (0, 1, 511, 512, 1023, 4096):
        found = read_map(MemorySource(bytes(size)))
        assert (found.scheme, rows(found)) == ("none", [(0, "", "", 0, size)])
