"""Partition maps made to hurt (threats P1 to P7): bounded time, bounded memory, and nothing but DmgError or an answer."""

import struct
import time
import zlib
from collections.abc import Callable

import pytest
from builders.partitions import HFS_GUID, Part, apm_disk, gpt_disk, mbr_disk, mbr_entry, put_mbr, signed
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage, DmgError
from dmgfs.partitions import probe, read_map
from dmgfs.partitions.apm import MOST_ENTRIES
from dmgfs.partitions.mbr import MOST_LINKS
from dmgfs.source import MemorySource

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def _in_two_seconds():
    started = time.process_time()
    yield
    assert time.process_time() - started < 2


def fix_gpt(disk: bytearray, at: int = 512) -> None:
    """Makes the header checksum right again after a field was damaged."""
    struct.pack_into("<I", disk, at + 16, 0)
    struct.pack_into("<I", disk, at + 16, zlib.crc32(disk[at : at + 92]))


def only_primary(disk: bytearray) -> bytearray:
    disk[SIZE - 512 : SIZE] = bytes(512)
    return disk


def test_p1_apm_count_of_four_thousand_million_ends_at_the_first_block_that_is_no_entry() -> None:
    disk = apm_disk([Part("Apple_HFS", 64, 10)], SIZE)
    struct.pack_into(">I", disk, 512 + 4, 0xFFFFFFFF)
    found = read_map(MemorySource(disk))
    assert len(found.partitions) == 1
    assert "4294967295 entries" in found.warnings[0]


def test_p1_apm_with_entries_to_the_end_of_the_disk_is_capped() -> None:
    found = read_map(MemorySource(apm_disk([Part("Apple_HFS", 64, 10)] * 1000, SIZE)))
    assert len(found.partitions) == MOST_ENTRIES


@pytest.mark.parametrize("block_size", [0, 1, 513, 65535])
def test_p2_apm_block_size_is_not_believed(block_size: int) -> None:
    disk = apm_disk([Part("Apple_HFS", 64, 10)], SIZE)
    struct.pack_into(">H", disk, 2, block_size)
    found = read_map(MemorySource(disk))
    assert (found.block_size, found.partitions[0].start) == (512, 64 * 512)
    assert f"block size of {block_size}" in found.warnings[0]


def test_p3_partitions_past_the_end_are_clamped_and_said() -> None:
    blocks = SIZE // 512
    parts = [
        Part("Apple_HFS", blocks - 4, 100),
        Part("Apple_HFS", blocks + 4, 100),
        Part("Apple_HFS", 0xFFFFFFFF, 0xFFFFFFFF),
    ]
    tail, beyond, far = read_map(MemorySource(apm_disk(parts, SIZE))).partitions
    assert (tail.length, beyond.length, far.length) == (4 * 512, 0, 0)
    assert "ends at 0x10c000, past the end" in tail.warnings[0]
    assert "begins at 0x100800, past the end" in beyond.warnings[0]
    assert not beyond.may_hold_volume


def test_p4_overlap_and_zero_length_and_a_partition_over_the_map_are_allowed() -> None:
    parts = [
        Part("Apple_HFS", 0, 2000),
        Part("Apple_HFS", 64, 100),
        Part("Apple_HFS", 64, 100),
        Part("Apple_HFS", 9, 0),
    ]
    found = read_map(MemorySource(apm_disk(parts, SIZE)))
    assert [one.length for one in found.partitions] == [2000 * 512, 100 * 512, 100 * 512, 0]


@pytest.mark.parametrize("entry_size", [0, 1, 64, 127, 129, 4104, 0xFFFFFFFF])
def test_p5_gpt_entry_size_is_checked(entry_size: int) -> None:
    disk = only_primary(gpt_disk([Part(HFS_GUID, 40, 100)], SIZE))
    struct.pack_into("<I", disk, 512 + 84, entry_size)
    fix_gpt(disk)
    # Without a usable GPT the protective MBR is what is left.
    assert read_map(MemorySource(disk)).scheme == "MBR"


def test_p5_gpt_count_of_four_thousand_million_is_capped() -> None:
    disk = only_primary(gpt_disk([Part(HFS_GUID, 40, 100)], SIZE))
    struct.pack_into("<I", disk, 512 + 80, 0xFFFFFFFF)
    fix_gpt(disk)
    found = read_map(MemorySource(disk))
    assert found.partitions[0].start == 40 * 512
    assert any("4294967295 entries are claimed, 1024 are read" in warning for warning in found.warnings)


@pytest.mark.parametrize("lba", [0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, SIZE // 512])
def test_p5_gpt_entries_outside_the_disk(lba: int) -> None:
    disk = gpt_disk([Part(HFS_GUID, 40, 100)], SIZE)
    struct.pack_into("<Q", disk, 512 + 72, lba)
    fix_gpt(disk)
    found = read_map(MemorySource(disk))  # from the backup
    assert (found.scheme, found.partitions[0].start) == ("GPT", 40 * 512)


def test_p5_gpt_partition_that_ends_before_it_begins_is_passed_over() -> None:
    disk = only_primary(gpt_disk([Part(HFS_GUID, 40, -9), Part(HFS_GUID, 50, 10)], SIZE))
    found = read_map(MemorySource(disk))
    assert [one.index for one in found.partitions] == [2]


@pytest.mark.parametrize("target", [0, 10, 200, 100000])
def test_p6_extended_chain_that_loops_or_leaves_ends(target: int) -> None:
    disk = mbr_disk([mbr_entry(0x05, 100, 400)], SIZE)
    put_mbr(disk, 100, [mbr_entry(0x0B, 2, 10), mbr_entry(0x05, 200, 60)])
    put_mbr(disk, 300, [mbr_entry(0x0B, 2, 10), mbr_entry(0x05, target, 60)])
    found = read_map(MemorySource(disk))
    assert [one.index for one in found.partitions] == [5, 6]
    assert "leads back or outside" in found.warnings[0]


def test_p6_extended_chain_is_capped() -> None:
    disk = mbr_disk([mbr_entry(0x05, 1, 2000)], SIZE)
    for link in range(1, 1000):
        put_mbr(disk, link, [mbr_entry(0x0B, 1, 1), mbr_entry(0x05, link, 1)])
    assert len(read_map(MemorySource(disk)).partitions) == MOST_LINKS


def test_p7_a_map_inside_a_partition_is_not_followed() -> None:
    inner = signed(apm_disk([Part("Apple_HFS", 64, 100)], SIZE // 2), 64 * 512, b"H+")
    disk = apm_disk([Part("Apple_HFS", 64, SIZE // 1024)], SIZE)
    disk[64 * 512 : 64 * 512 + len(inner)] = inner
    found = read_map(MemorySource(disk))
    assert len(found.partitions) == 1
    assert probe(MemorySource(disk), found.partitions[0].start, found.partitions[0].length).kind == "unknown"


GOOD: list[Callable[[], bytearray]] = [
    lambda: apm_disk([Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 100)], 1 << 17),
    lambda: gpt_disk([Part(HFS_GUID, 70, 100), Part(HFS_GUID, 170, 10)], 1 << 17, entries=8),
    lambda: mbr_disk([mbr_entry(0x05, 1, 200), mbr_entry(0xAF, 10, 10)], 1 << 17),
]


@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), max_size=8),
    st.integers(0, 1 << 17),
)
def test_damage_and_truncation_end_in_an_answer_inside_the_disk(
    build, changes: list[tuple[int, int]], cut: int
) -> None:
    disk = build()
    for at, value in changes:
        disk[at] = value
    disk = disk[: max(cut, 512)]
    try:
        found = read_map(MemorySource(disk))
    except DmgError:
        return
    for one in found.partitions:
        assert 0 <= one.start <= one.start + one.length <= len(disk)
        probe(MemorySource(disk), one.start, one.length)


class Holed(MemorySource):
    """A disk of which some sectors do not decode."""

    def __init__(self, data: bytes | bytearray, bad: range) -> None:
        super().__init__(bytes(data))
        self._bad = bad

    def read(self, offset: int, length: int):
        if offset < self._bad.stop and offset + length > self._bad.start:
            raise CorruptImage("UDIF", "run 3", "does not decode", self._bad.start)
        return super().read(offset, length)


def test_a_damaged_place_hides_no_map_elsewhere_and_is_said() -> None:
    disk = gpt_disk([Part(HFS_GUID, 70, 100)], SIZE)
    for bad in (range(4096, 4608), range(512, 1024), range(1024, 1536)):
        found = read_map(Holed(disk, bad))
        assert [one.start for one in found.partitions] == [70 * 512]
        assert any("UDIF: run 3" in warning for warning in found.warnings)


def test_a_disk_that_cannot_be_read_at_all_is_one_unreadable_partition() -> None:
    disk = Holed(bytes(SIZE), range(SIZE))
    found = read_map(disk)
    assert (found.scheme, len(found.partitions)) == ("none", 1)
    assert probe(disk, 0, SIZE).kind == "unreadable"
