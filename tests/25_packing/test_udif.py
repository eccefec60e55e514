"""The UDIF that is written, field by field, read without dmgfs."""

import plistlib
import random
import struct
import zlib
from pathlib import Path

import pytest
from builders.partitions import HFS_GUID, Part, gpt_disk

SECTOR = 512
ZERO, RAW, IGNORE, ZLIB, END = 0, 1, 2, 0x80000005, 0xFFFFFFFF


def koly_of(image: bytes) -> bytes:
    return image[-512:]


def tables_of(image: bytes) -> list[tuple[dict, bytes, list[tuple[int, ...]]]]:
    offset, length = struct.unpack_from(">QQ", koly_of(image), 0xD8)
    tables = []
    for entry in plistlib.loads(image[offset : offset + length])["resource-fork"]["blkx"]:
        data = entry["Data"]
        (count,) = struct.unpack_from(">I", data, 200)
        assert len(data) == 204 + 40 * count
        tables.append((entry, data, [struct.unpack_from(">IIQQQQ", data, 204 + 40 * n) for n in range(count)]))
    return tables


def crc_at(record: bytes) -> int:
    kind, bits, value = struct.unpack_from(">III", record)
    assert (kind, bits) == (2, 32)
    assert not any(record[12:136])
    return value


@pytest.fixture
def disk() -> bytearray:
    """A GPT disk: text, zeros, noise; zeros in the gap before the partition, data in the one behind it."""
    disk = gpt_disk([Part(HFS_GUID, 100, 1000, "disk image")], 1300 * SECTOR)
    disk[100 * SECTOR : 200 * SECTOR] = b"text " * 10240
    disk[900 * SECTOR : 1000 * SECTOR] = random.Random(1).randbytes(100 * SECTOR)
    disk[1150 * SECTOR : 1151 * SECTOR] = b"left over " * 51 + b"!!"
    return disk


def test_trailer_and_checksums(tmp_path: Path, packed, disk: bytearray) -> None:
    packed(tmp_path / "out", bytes(disk), "udzo", chunk=64 * SECTOR)
    image = (tmp_path / "out").read_bytes()
    koly = koly_of(image)
    assert struct.unpack_from(">4sIII", koly) == (b"koly", 4, 512, 1)
    running, fork, fork_length, resource, resource_length, number, count = struct.unpack_from(">QQQQQII", koly, 0x10)
    assert (running, fork, resource, resource_length, number, count) == (0, 0, 0, 0, 1, 1)
    assert any(koly[0x40:0x50])
    assert crc_at(koly[0x50:0xD8]) == zlib.crc32(image[:fork_length])
    xml, xml_length = struct.unpack_from(">QQ", koly, 0xD8)
    assert (xml, xml + xml_length) == (fork_length, len(image) - 512)
    assert struct.unpack_from(">IQ", koly, 0x1E8) == (1, 1300)
    sums = b""
    for _, data, runs in tables_of(image):
        start, _, data_offset = struct.unpack_from(">QQQ", data, 8)
        covered = b"".join(
            bytes(disk[(start + at) * SECTOR : (start + at + sectors) * SECTOR])
            for kind, _, at, sectors, _, _ in runs
            if kind not in (IGNORE, END)
        )
        assert data_offset == 0
        assert crc_at(data[0x40:0xC8]) == zlib.crc32(covered)
        sums += data[0x48:0x4C]
    assert crc_at(koly[0x160:0x1E8]) == zlib.crc32(sums)


def test_runs_lie_end_to_end_and_zeros_are_told_apart(tmp_path: Path, packed, disk: bytearray) -> None:
    result = packed(tmp_path / "out", bytes(disk), "udzo", chunk=64 * SECTOR)
    tables = {entry["Name"]: (data, runs) for entry, data, runs in tables_of((tmp_path / "out").read_bytes())}
    stored = 0
    kinds: dict[int, int] = {}
    for data, runs in tables.values():
        at = 0
        for kind, comment, start, sectors, offset, length in runs:
            assert (start, offset, comment) == (at, stored, 0)
            assert length == (sectors * SECTOR if kind == RAW else length)
            kinds[kind] = kinds.get(kind, 0) + 1
            at += sectors
            stored += length
        assert runs[-1][0] == END
        assert at == struct.unpack_from(">Q", data, 16)[0]
    assert result.runs == {"zlib": kinds[ZLIB], "raw": kinds[RAW], "zero": kinds[ZERO], "ignore": kinds[IGNORE]}
    partition = [kind for kind, *_ in tables["disk image (Apple_HFS : 4)"][1]]
    # Two chunks of text, zeros in one run over many chunks, noise in three, zeros again; a chunk that holds noise and
    # zeros becomes shorter by packing.
    assert partition[:3] == [ZLIB, ZLIB, ZERO]
    assert RAW in partition[3:-2]
    assert partition[-2:] == [ZERO, END]
    assert partition.count(ZERO) == 2
    assert [kind for kind, *_ in tables[" (Apple_Free : 3)"][1]] == [IGNORE, END]
    assert ZLIB in [kind for kind, *_ in tables[" (Apple_Free : 5)"][1]]  # nobody's data is data too


def test_property_list_is_as_apples(tmp_path: Path, packed, disk: bytearray) -> None:
    packed(tmp_path / "out", bytes(disk), "udzo")
    image = (tmp_path / "out").read_bytes()
    offset, length = struct.unpack_from(">QQ", koly_of(image), 0xD8)
    xml = image[offset : offset + length]
    assert xml.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE plist PUBLIC "-//Apple')
    fork = plistlib.loads(xml)["resource-fork"]
    assert list(fork) == ["blkx", "plst"]
    assert [list(entry) for entry in fork["blkx"]] == [["Attributes", "CFName", "Data", "ID", "Name"]] * len(
        fork["blkx"]
    )
    assert all(entry["CFName"] == entry["Name"] and entry["Attributes"] == "0x0050" for entry in fork["blkx"])
    [plst] = fork["plst"]
    assert (plst["ID"], plst["Name"], len(plst["Data"])) == ("0", "", 1032)


def test_a_bare_volume_is_a_partition_image(tmp_path: Path, packed) -> None:
    packed(tmp_path / "out", b"data" * 300, "udzo")
    image = (tmp_path / "out").read_bytes()
    [(entry, data, runs)] = tables_of(image)
    assert (entry["Name"], entry["ID"]) == ("whole disk (unknown partition : 0)", "0")
    assert struct.unpack_from(">i", data, 36) == (-2,)
    assert struct.unpack_from(">IQ", koly_of(image), 0x1E8) == (2, 3)
    assert [kind for kind, *_ in runs] == [ZLIB, END]


@pytest.mark.parametrize(("format_name", "buffers"), [("udzo", 64 + 8), ("udro", 0)])
def test_the_decoders_buffer_is_said(tmp_path: Path, packed, format_name: str, buffers: int) -> None:
    packed(tmp_path / "out", b"data" * 30000, format_name, chunk=64 * SECTOR)
    [(_, data, runs)] = tables_of((tmp_path / "out").read_bytes())
    assert struct.unpack_from(">I", data, 32) == (buffers,)
    assert max(sectors for _, _, _, sectors, _, _ in runs) <= 64


def test_a_zero_disk_is_a_table_of_one_run(tmp_path: Path, packed) -> None:
    packed(tmp_path / "out", bytes(5 << 20), "ulfo")
    image = (tmp_path / "out").read_bytes()
    [(_, data, runs)] = tables_of(image)
    assert [run[:4] for run in runs] == [(ZERO, 0, 0, 10240), (END, 0, 10240, 0)]
    assert crc_at(data[0x40:0xC8]) == zlib.crc32(bytes(5 << 20))
    assert len(image) < 8192
