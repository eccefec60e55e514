"""Checksums of UDIFs: what they cover, every algorithm, damage found and named, real images verified."""

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from builders.udif import Piece, Table, build

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container, open_source
from dmgfs.container.checksum import Progress, Verdict
from dmgfs.source import MemorySource

TABLES = [
    Table("MBR", [Piece("zlib", bytes(range(256)) * 2)]),
    Table(
        "volume", [Piece("zero", 5), Piece("lzfse", b"volume! " * 640), Piece("ignore", 9), Piece("raw", b"x" * 5120)]
    ),
    Table("free", [Piece("ignore", 20)]),
]
ALGORITHMS = {2: "CRC-32", 4: "MD5", 6: "SHA-1", 7: "SHA-256", 8: "SHA-384", 9: "SHA-512"}


def opened(image: bytes) -> Container:
    return open_source(MemorySource(image), cache=ChunkCache(1 << 20))


def steps(container: Container) -> list[Progress | Verdict]:
    assert container.verify is not None
    return list(container.verify())


def verdicts(container: Container) -> list[Verdict]:
    return [step for step in steps(container) if isinstance(step, Verdict)]


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm(kind: int) -> None:
    found = verdicts(opened(build(TABLES, checksum_type=kind).bytes))
    assert [verdict.what.split(" (")[0] for verdict in found] == [
        "data fork",
        "block table 0",
        "block table 1",
        "block table 2",
        "master",
    ]
    assert all(verdict.ok and verdict.algorithm == ALGORITHMS[kind] for verdict in found)
    assert all(verdict.expected == verdict.actual != "" for verdict in found)


def test_progress_reaches_the_total() -> None:
    seen = [step for step in steps(opened(build(TABLES).bytes)) if isinstance(step, Progress)]
    assert all(0 < step.done <= step.total for step in seen)
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].total == seen[0].total > 0


def test_giving_up_half_way_leaves_no_thread() -> None:
    before = threading.active_count()
    container = opened(build([Table("t", [Piece("zlib", bytes(1 << 20)) for _ in range(20)])]).bytes)
    assert container.verify is not None
    walk = container.verify()
    assert isinstance(next(walk), Progress)
    walk.close()
    assert threading.active_count() == before


def test_an_image_without_checksums() -> None:
    assert verdicts(opened(build(TABLES, checksum_type=0).bytes)) == []
    found = verdicts(opened(build(TABLES, data_checksum=False).bytes))
    assert found[0].what.startswith("block table")


def test_damage_is_found_where_it_is() -> None:
    image = build(TABLES)
    damaged = bytearray(image.bytes)
    at = damaged.rindex(b"x" * 100, 0, image.koly["DataForkLength"])
    damaged[at] ^= 1
    failed = [verdict for verdict in verdicts(opened(bytes(damaged))) if not verdict.ok]
    assert [verdict.what for verdict in failed] == ["data fork", "block table 1 ('volume')"]
    assert all(verdict.expected != verdict.actual for verdict in failed)


def test_a_run_that_does_not_decode_fails_its_table_only() -> None:
    image = build(TABLES)
    damaged = bytearray(image.bytes)
    at = damaged.index(b"bvx")
    damaged[at : at + 4] = b"XXXX"
    failed = [verdict for verdict in verdicts(opened(bytes(damaged))) if not verdict.ok]
    assert [verdict.what for verdict in failed] == ["data fork", "block table 1 ('volume')"]
    assert failed[1].ok is False
    assert "run 1" in failed[1].why


@pytest.mark.parametrize("kind", [1, 3, 5, 77])
def test_an_algorithm_that_is_not_known(kind: int) -> None:
    record = kind.to_bytes(4, "big") + (32).to_bytes(4, "big") + b"\1\2\3\4" + bytes(124)
    found = verdicts(opened(build(TABLES, koly={"DataChecksum": record, "MasterChecksum": record}).bytes))
    unknown = [verdict for verdict in found if verdict.ok is None]
    assert [verdict.what for verdict in unknown] == ["data fork", "master"]
    assert all(verdict.why == "the algorithm is not known" for verdict in unknown)


@pytest.mark.parametrize("bits", [0, 31, 2000, 0xFFFFFFFF])
def test_a_record_of_impossible_size_is_none(bits: int) -> None:
    record = (2).to_bytes(4, "big") + bits.to_bytes(4, "big") + bytes(128)
    container = opened(build(TABLES, koly={"DataChecksum": record}).bytes)
    assert container.details["checksums"]["data_fork"] is None
    assert verdicts(container)[0].what != "data fork"


def test_a_table_of_2_to_the_58_bytes_is_not_read() -> None:
    run = {"sectors": 1 << 49}
    image = build([Table("huge", [Piece("zero", 1, run=run)], mish=run)], data_checksum=False)
    found = verdicts(opened(image.bytes))
    assert found[0].ok is None
    assert "too many to read" in found[0].why


def udif_images(index: list[dict[str, Any]]) -> list[str]:
    damaged = ("mul_overflow", "oversized_alloc")
    return [
        entry["name"]
        for entry in index
        if ("fl=0x" in entry["features"])
        and "enc-" not in entry["features"]
        and not any(d in entry["name"] for d in damaged)
    ]


@pytest.mark.corpus
def test_every_real_image_decodes_and_verifies(corpus_index, corpus_image) -> None:
    names = udif_images(corpus_index)
    assert len(names) > 35
    carried = 0
    for name in names:
        container = open_container(corpus_image(name), cache=ChunkCache(1 << 20))
        size = container.disk.size
        assert sum(len(container.disk.read(at, min(1 << 20, size - at))) for at in range(0, size, 1 << 20)) == size
        found = verdicts(container)
        assert all(verdict.ok for verdict in found), (name, found)
        assert any(verdict.what == "master" for verdict in found)
        carried += sum(verdict.what == "data fork" for verdict in found)
        container.close()
    assert carried > 15


@pytest.mark.corpus
def test_every_real_image_as_7zip_reads_it(corpus_index, corpus_image) -> None:
    """7-Zip writes the tables one after the other; where they cover the disk in order, that is the disk."""
    seven_zip = shutil.which("7z") or shutil.which("7zz")
    if seven_zip is None:
        pytest.skip("7z is not installed (apt install 7zip)")
    compared = 0
    for name in udif_images(corpus_index):
        path: Path = corpus_image(name)
        container = open_container(path, cache=ChunkCache(1 << 20))
        ours = bytes(container.disk.read(0, container.disk.size))
        tables = container.details["tables"]
        container.close()
        theirs = subprocess.run([seven_zip, "x", "-so", "-tdmg", str(path)], capture_output=True, check=False).stdout
        expected = b"".join(ours[t["start"] * 512 : (t["start"] + t["sectors"]) * 512] for t in tables)
        if len(theirs) == len(expected):
            assert theirs == expected, name
            compared += 1
    assert compared > 30
