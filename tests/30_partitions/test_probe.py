"""Volumes are told by their own signatures, and a wrapper leads to exactly one volume."""

import struct

import pytest
from builders.partitions import signed, wrapper_volume
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage
from dmgfs.partitions import probe
from dmgfs.source import MemorySource

SIZE = 256 * 1024


def disk_with(offset: int, magic: bytes) -> MemorySource:
    disk = bytearray(SIZE)
    disk[offset : offset + len(magic)] = magic
    return MemorySource(disk)


FAT_SECTOR = (
    b"\xeb\x3c\x90MSDOS5.0" + struct.pack("<HBHBHHB", 512, 1, 1, 2, 224, 2880, 0xF0) + bytes(488) + b"\x55\xaa"
)


@pytest.mark.parametrize(
    ("offset", "magic", "kind"),
    [
        (1024, b"H+", "HFS+"),
        (1024, b"HX", "HFSX"),
        (1024, b"BD", "HFS"),
        (1024, b"\xd2\xd7", "MFS"),
        (32, b"NXSB", "APFS"),
        (0, bytes(10) + b"\x10\x00" + bytes(76) + b"CS", "CoreStorage"),
        (3, b"EXFAT   ", "exFAT"),
        (3, b"NTFS    ", "NTFS"),
        (32769, b"CD001", "ISO 9660"),
        (32769, b"BEA01", "UDF"),
        (1080, b"\x53\xef", "ext2/3/4"),
        (0, FAT_SECTOR, "FAT"),
        (9564, bytes.fromhex("00011954"), "UFS"),
        (9564, bytes.fromhex("54190100"), "UFS"),
        (66908, bytes.fromhex("19540119"), "UFS"),
        (1024, b"\0\0\3\0\xf4" + bytes(30) + b"\x27\x0d", "ProDOS"),
        (0, b"", "empty"),
        (0, b"xar!", "unknown"),
        (88, b"CS", "unknown"),
    ],
)
def test_kinds(offset: int, magic: bytes, kind: str) -> None:
    assert probe(disk_with(offset, magic), 0, SIZE).kind == kind


def test_a_signature_outside_the_stretch_does_not_count() -> None:
    disk = signed(bytearray(SIZE), 4096, b"H+")
    assert probe(MemorySource(disk), 4096, 1024).kind == "empty"
    assert probe(MemorySource(disk), 4096, 1026).kind == "HFS+"


def test_unknown_content_is_shown() -> None:
    found = probe(disk_with(0, b"xar!\x01"), 0, SIZE)
    assert "78 61 72 21 01" in found.problem
    assert "at 1024 stands 00 00" in found.problem


def test_a_volume_whose_header_is_gone_is_found_by_its_copy() -> None:
    found = probe(disk_with(SIZE - 1024, b"HX"), 0, SIZE)
    assert (found.kind, "copy at the end" in found.problem) == ("HFSX", True)
    assert probe(disk_with(SIZE - 1024, b"HX"), 0, SIZE, alternate=False).kind == "empty"


class Damaged(MemorySource):
    def read(self, offset: int, length: int) -> bytes:
        raise CorruptImage("UDIF", "run 3", "does not decode", 0x200)


def test_damage_is_an_answer_and_not_an_exception() -> None:
    found = probe(Damaged(bytes(SIZE)), 0, SIZE)
    assert (found.kind, found.problem) == ("unreadable", "UDIF: run 3 at offset 0x200: does not decode")


def test_a_wrapper_leads_to_the_volume_inside() -> None:
    found = probe(MemorySource(bytes(4096) + bytes(wrapper_volume(20, 100, size=SIZE))), 4096, SIZE)
    assert found.kind == "HFS+"
    assert (found.wrapped, found.start, found.length) == (True, 4096 + 8 * 512 + 20 * 512, 100 * 512)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"inner_start": 0, "al_bl_st": 0}, "inside"),
        ({"al_blk_siz": 0}, "inside"),
        ({"al_blk_siz": 700}, "inside"),
        ({"inner_start": 65535}, "inside"),
        ({"inner_blocks": 0}, "inside"),
    ],
)
def test_a_wrapper_that_leads_nowhere_is_named(changes: dict[str, int], why: str) -> None:
    wrapper = wrapper_volume(**{"inner_start": 20, "inner_blocks": 100, "size": SIZE, **changes})
    found = probe(MemorySource(wrapper), 0, SIZE)
    assert (found.kind, why in found.problem) == ("damaged HFS wrapper", True)


def test_a_wrapper_in_a_wrapper_is_refused() -> None:
    outer = wrapper_volume(20, 200, size=SIZE)
    at = 8 * 512 + 20 * 512
    outer[at : at + 4096] = wrapper_volume(2, 100, size=4096)
    found = probe(MemorySource(outer), 0, SIZE)
    assert (found.kind, "42 44 stands there" in found.problem) == ("damaged HFS wrapper", True)


@given(st.binary(max_size=2048), st.integers(0, 2048), st.integers(0, 4096))
def test_any_bytes_give_an_answer_inside_the_disk(data: bytes, start: int, length: int) -> None:
    start = min(start, len(data))
    length = min(length, len(data) - start)
    found = probe(MemorySource(data), start, length)
    assert start <= found.start <= found.start + found.length <= start + length


def test_a_stretch_without_bytes_is_absent() -> None:
    assert probe(MemorySource(bytes(SIZE)), SIZE, 0).kind == "absent"
