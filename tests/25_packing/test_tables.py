"""Block tables are those that Apple's tools make of the same disk."""

import plistlib
import struct
from pathlib import Path

import pytest
from builders.partitions import APFS_GUID, EFI_GUID, HFS_GUID, Part, apm_disk, gpt_disk, mbr_disk, mbr_entry, signed
from hypothesis import given
from hypothesis import strategies as st

from dmgfs import open_image
from dmgfs.packing.tables import TablePlan, of_map, whole
from dmgfs.partitions import Partition, PartitionMap, read_map
from dmgfs.source import MemorySource

OLD_WRITERS = ("citruz_dmgwiz__input_non_null_data_offset.dmg", "onekey-sec_unblob__fruits.dmg")
"""Mac OS X 10.1 counted otherwise, and asr did not look for the volume."""


def plans(disk: bytes | bytearray) -> list[TablePlan]:
    source = MemorySource(bytes(disk))
    return of_map(source, read_map(source))


def apples_tables(image: bytes) -> list[TablePlan]:
    """What an image's property list has, read without dmgfs. Free is what has no data but "ignore" and says so."""
    offset, length = struct.unpack_from(">QQ", image, len(image) - 512 + 0xD8)
    tables = []
    for entry in plistlib.loads(image[offset : offset + length])["resource-fork"]["blkx"]:
        start, sectors, _, _, descriptor = struct.unpack_from(">QQQIi", entry["Data"], 8)
        free = "Apple_Free" in entry["Name"]
        tables.append(TablePlan(entry["Name"], int(entry["ID"]), descriptor, start, sectors, free))
    return tables


@pytest.mark.corpus
def test_every_real_image_would_get_the_tables_it_has(corpus_index, corpus_image) -> None:
    compared = 0
    for entry in corpus_index:
        name = Path(entry["file"]).name.removesuffix(".xz")
        if not name.endswith(".dmg") or name in OLD_WRITERS or name.startswith("DERIVED"):
            continue
        data = corpus_image(name).read_bytes()
        if data[-512:-508] != b"koly":
            continue
        with open_image(corpus_image(name)) as image:
            assert of_map(image.disk, image.map) == apples_tables(data), name
        compared += 1
    assert compared >= 35


def test_gpt_with_gaps_and_foreign_types() -> None:
    disk = gpt_disk([Part(EFI_GUID, 40, 8, "EFI System Partition"), Part(HFS_GUID, 64, 20, "a\x07b")], 200 * 512)
    found = plans(disk)
    assert [(one.name, one.start, one.sectors) for one in found] == [
        ("Protective Master Boot Record (MBR : 0)", 0, 1),
        ("GPT Header (Primary GPT Header : 1)", 1, 1),
        ("GPT Partition Data (Primary GPT Table : 2)", 2, 32),
        (" (Apple_Free : 3)", 34, 6),
        (f"EFI System Partition ({EFI_GUID} : 4)", 40, 8),
        (" (Apple_Free : 5)", 48, 16),
        ("a_b (Apple_HFS : 6)", 64, 20),
        (" (Apple_Free : 7)", 84, 83),
        ("GPT Partition Data (Backup GPT Table : 8)", 167, 32),
        ("GPT Header (Backup GPT Header : 9)", 199, 1),
    ]
    assert [one.id for one in found] == list(range(-1, 9))
    assert [one.descriptor for one in found] == list(range(10))
    assert [one.free for one in found].count(True) == 3


def test_apm_with_large_blocks() -> None:
    disk = apm_disk(
        [Part("Apple_partition_map", 1, 3, "Apple"), Part("Apple_HFS", 4, 6, "CD")], 12 * 2048, block=2048
    )
    assert [(one.name, one.descriptor, one.start, one.sectors) for one in plans(disk)] == [
        ("Driver Descriptor Map (DDM : 0)", -1, 0, 4),
        ("Apple (Apple_partition_map : 1)", 0, 4, 12),
        ("CD (Apple_HFS : 2)", 1, 16, 24),
        (" (Apple_Free : 3)", 2, 40, 8),
    ]


def test_mbr_types_have_names() -> None:
    disk = mbr_disk([mbr_entry(0xAF, 1, 4), mbr_entry(0x0B, 5, 2), mbr_entry(0x99, 7, 1)], 10 * 512)
    assert [one.name for one in plans(disk)] == [
        "Master Boot Record (MBR : 0)",
        " (Apple_HFS : 1)",
        " (Windows_FAT_32 : 2)",
        " (0x99 : 3)",
        " (Apple_Free : 4)",
    ]


@pytest.mark.parametrize(("signature", "kind"), [(b"H+", "Apple_HFS"), (b"HX", "Apple_HFS"), (b"NXSB", "Apple_APFS")])
def test_a_bare_volume_is_one_table(signature: bytes, kind: str) -> None:
    disk = signed(bytearray(8192), 0, signature)
    assert plans(disk) == [TablePlan(f"whole disk ({kind} : 0)", 0, -2, 0, 16, False)]


def test_a_disk_of_nothing_known() -> None:
    assert whole(MemorySource(b"x" * 1000)) == [TablePlan("whole disk (unknown partition : 0)", 0, -2, 0, 2, False)]


def test_a_damaged_backup_header_is_no_table_of_its_own() -> None:
    disk = gpt_disk([Part(APFS_GUID, 40, 8)], 200 * 512)
    disk[-512:] = bytes(512)
    assert [one.name for one in plans(disk)][-1] == " (Apple_Free : 5)"


@given(
    st.sampled_from(["GPT", "APM", "MBR"]),
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 60_000), st.booleans()), max_size=8),
    st.integers(1, 50_000),
)
def test_whatever_the_map_says_each_sector_is_in_one_table(scheme: str, parts, size: int) -> None:
    partitions = [
        Partition(index, scheme, "Apple_Free" if free else "X", "n", start, length)
        for index, (start, length, free) in enumerate(parts)
    ]
    found = of_map(MemorySource(bytes(size)), PartitionMap(scheme, 512, partitions))
    at = 0
    for plan in found:
        assert plan.start == at
        assert plan.sectors > 0
        at += plan.sectors
    assert at == -(-size // 512)
    assert len({one.id for one in found}) == len(found)
