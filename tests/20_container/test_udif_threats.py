"""Hostile UDIF images, one test for each line of the list of threats (U1 to U22). Each ends in a clear error that names
layer and place, or hurts only the range it covers, within 2 seconds and 256 MiB."""

import base64
import bz2
import lzma
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lzfse
import pytest
from builders.udif import SECTOR, Image, Piece, Table, build

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, open_container, open_source
from dmgfs.container.checksum import Verdict
from dmgfs.container.structs import Koly
from dmgfs.container.udif import open_udif
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.source import MemorySource

GOOD = bytes(range(256)) * 16  # 8 sectors


@pytest.fixture(autouse=True)
def _frugal() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    yield
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


def opened(image: Image | bytes) -> Container:
    data = image if isinstance(image, bytes) else image.bytes
    return open_source(MemorySource(data), cache=ChunkCache(1 << 24))


def refused(image: Image | bytes, message: str) -> None:
    with pytest.raises(CorruptImage, match=message) as caught:
        opened(image)
    assert caught.value.layer == "UDIF"


def simple(**how: Any) -> Image:
    return build([Table("t", [Piece("zlib", GOOD)])], **how)


def beside(*pieces: Piece) -> Container:
    """The pieces as block table "bad", and after them 8 good sectors, which must still be readable."""
    container = opened(build([Table("bad", pieces), Table("good", [Piece("zlib", GOOD)])]))
    assert container.disk.read(container.disk.size - len(GOOD), len(GOOD)) == GOOD
    return container


def hurts_only_its_range(container: Container, message: str) -> None:
    """Reads of the first sector fail, and opening gave one warning about it."""
    with pytest.raises(CorruptImage, match=message) as caught:
        container.disk.read(0, 1)
    assert caught.value.layer == "UDIF"
    assert "block table 0 ('bad'): run 0" in str(caught.value)


@pytest.mark.parametrize("name", ["DataFork", "RsrcFork", "XML"])
@pytest.mark.parametrize(("offset", "length"), [(1 << 63, 100), (0, (1 << 64) - 1), ((1 << 64) - 1, (1 << 64) - 1)])
def test_u1_pointers_past_the_end(name: str, offset: int, length: int) -> None:
    image = simple(tables_in="both", koly={f"{name}Offset": offset, f"{name}Length": length})
    refused(image, f"trailer at offset 0x.*{name}Offset {offset:#x} .*{length:#x}")


@pytest.mark.corpus
def test_u1_real_sample(corpus_image) -> None:
    with pytest.raises(CorruptImage, match="XMLLength 0xf9ffffff1e99"):
        open_container(corpus_image("SecurityRonin_dmg-forensic__oversized_alloc.bin"), cache=ChunkCache(1 << 20))


def test_u2_property_list_of_49_mib(tmp_path: Path) -> None:
    trailer = Koly.parse(simple().bytes[-512:])
    trailer.DataForkLength, trailer.XMLOffset, trailer.XMLLength = 0, 0, 49 << 20
    path = tmp_path / "image.dmg"
    with open(path, "wb") as file:
        file.truncate(49 << 20)
        file.seek(49 << 20)
        file.write(Koly.build(trailer))
    with pytest.raises(CorruptImage, match="property list: 51380224 bytes long, at most 50331648"):
        open_container(path, cache=ChunkCache(1 << 20))


DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE plist [%s]>'
DOCTYPE += b"<plist><dict><key>resource-fork</key><string>%s</string></dict></plist>"


def test_u3_external_entity(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("top secret")
    entity = b'<!ENTITY x SYSTEM "file://%s">' % str(secret).encode()
    image = simple(xml=lambda _: DOCTYPE % (entity, b"&x;"))
    with pytest.raises(CorruptImage, match="property list") as caught:
        opened(image)
    assert "top secret" not in str(caught.value) + repr(caught.value.__cause__)


def test_u4_billion_laughs() -> None:
    laughs = b'<!ENTITY a "ha">' + b"".join(b'<!ENTITY %c "&%c;&%c;">' % (n, n - 1, n - 1) for n in range(98, 122))
    refused(simple(xml=lambda _: DOCTYPE % (laughs, b"&y;")), "property list")
    refused(simple(xml=lambda _: DOCTYPE % (b'<!ENTITY % p "<!ENTITY q 1>">%p;', b"&q;")), "property list")
    refused(simple(xml=lambda _: DOCTYPE % (b'<!ATTLIST plist version CDATA "&a;">', b"")), "property list")


def test_u5_nested_200_000_deep() -> None:
    depth = 200_000
    text = b"<?xml version='1.0'?><plist><dict><key>resource-fork</key>" + b"<array>" * depth + b"</array>" * depth
    refused(simple(xml=lambda _: text + b"</dict></plist>"), "resource-fork")


@pytest.mark.parametrize(
    "text",
    [
        b"<?xml version='1.0'?>\0<plist/>",
        b"<?xml version='1.0' encoding='foo-bar'?><plist/>",
        b"<?xml version='1.0'?><plist><integer>" + b"9" * 5000 + b"</integer></plist>",
        b"<?xml version='1.0'?><plist><integer>x</integer></plist>",
        b"<?xml version='1.0'?><plist><date>never</date></plist>",
        b"<?xml version='1.0'?><plist><real>x</real></plist>",
        b"<?xml version='1.0'?><plist><dict><string>no key</string></dict></plist>",
        b"<?xml version='1.0'?><plist><data>A</data></plist>",
        b"<?xml version='1.0'?><plist><dict>",
        b"<?xml version='1.0'?><plist></plist><plist></plist>",
        b"<?xml",
        b"\xff\xfe\xfd",
        b" ",
    ],
    ids=range(13),
)
def test_u6_what_plistlib_raises(text: bytes) -> None:
    refused(simple(xml=lambda _: text), "property list")


def test_u6_padding_is_no_error() -> None:
    image = simple(xml=lambda text: text + b"\n \0\0\0")
    assert opened(image).disk.read(0, len(GOOD)) == GOOD


@pytest.mark.parametrize(
    "tree",
    [
        b"bplist00\xd0\x08" + bytes(30),
        "<?xml version='1.0' encoding='UTF-16'?><plist><dict/></plist>".encode("utf-16"),
        b"<?xml version='1.0'?><plist></plist>",
        b"<?xml version='1.0'?><plist><array/></plist>",
        {},
        {"resource-fork": []},
        {"resource-fork": {}},
        {"resource-fork": {"blkx": {}}},
        {"resource-fork": {"blkx": []}},
        {"resource-fork": {"blkx": ["text"]}},
        {"resource-fork": {"blkx": [{"Name": "x"}]}},
        {"resource-fork": {"blkx": [{"Data": "text"}]}},
        {"resource-fork": {"blkx": [{"Data": 17, "Attributes": 0x50, "ID": []}]}},
    ],
    ids=range(13),
)
def test_u7_another_shape_of_list(tree: Any) -> None:
    refused(simple(plist=lambda _: tree), "property list|resources")


def test_u7_odd_but_harmless_values() -> None:
    def odd(tree: dict[str, Any]) -> None:
        fork = tree["resource-fork"]
        fork["blkx"][0] |= {"Attributes": 0x50, "ID": 5, "Name": ["list"], "CFName": 1.5}
        fork["LPic"] = {"not": "a list"}
        fork["junk"] = [1, "two", {"Data": "three"}]

    assert opened(simple(plist=odd)).disk.read(0, len(GOOD)) == GOOD


def test_u8_base64_garbage() -> None:
    """plistlib drops what is not base64; the table is then too short."""
    table = base64.b64encode(b"mish")

    def garbage(text: bytes) -> bytes:
        start = text.index(b"<data>") + 6
        return text[:start] + b"!!!!" + table + b"%%%%" + text[text.index(b"</data>") :]

    refused(simple(xml=garbage), "block table 0 .*bytes long")


@pytest.mark.parametrize(
    ("mish", "message"),
    [
        ({"magic": b"fish"}, "66 69 73 68, not with `mish`"),
        ({"count": 0xFFFFFFFF}, "4294967295 entries claimed"),
        ({"count": 3}, "3 entries claimed, .* hold 2"),
        ({"start": 1 << 63}, "more than a disk can have"),
        ({"sectors": 1 << 60}, "more than a disk can have"),
    ],
)
def test_u9_header_of_a_table(mish: dict[str, Any], message: str) -> None:
    refused(build([Table("t", [Piece("zlib", GOOD)], mish=mish)]), message)


def test_u9_version_and_length_of_a_table() -> None:
    with pytest.raises(Unsupported, match="block table version 7"):
        opened(build([Table("t", [Piece("zlib", GOOD)], mish={"version": 7})]))
    tail = opened(build([Table("t", [Piece("zlib", GOOD)], tail=b"trailing bytes")]))
    assert tail.disk.read(0, len(GOOD)) == GOOD


def test_u10_sectors_of_a_run() -> None:
    for run in ({"sectors": 1 << 61}, {"start": 1 << 63}, {"sectors": 9}):
        refused(build([Table("t", [Piece("zlib", GOOD, run=run)])]), "run 0: covers sectors .* the table has 8")
    big = opened(build([Table("t", [Piece("zero", 1, run={"sectors": 1 << 50})], mish={"sectors": 1 << 50})]))
    assert big.disk.read((1 << 59) - 7, 7) == bytes(7)


def test_u10_a_compressed_run_too_large_to_decode() -> None:
    sectors = (600 << 20) // SECTOR
    piece = Piece("zlib", GOOD, run={"sectors": sectors})
    container = opened(build([Table("bad", [piece], mish={"sectors": sectors})]))
    hurts_only_its_range(container, "expands to 629145600 bytes, at most 67108864 are decoded .a larger --cache")
    limited = open_udif(MemorySource(simple().bytes), cache=ChunkCache(1 << 20), most_expanded=7 * SECTOR)
    with pytest.raises(CorruptImage, match="at most 3584"):
        limited.disk.read(0, 1)


@pytest.mark.corpus
def test_u10_real_sample(corpus_image) -> None:
    with pytest.raises(CorruptImage, match="5188146770730811392 sectors"):
        open_container(corpus_image("SecurityRonin_dmg-forensic__mul_overflow.bin"), cache=ChunkCache(1 << 20))


@pytest.mark.parametrize("run", [{"offset": 1 << 20}, {"offset": (1 << 64) - 1}, {"length": 9000}])
@pytest.mark.parametrize("codec", ["zlib", "raw"])
def test_u11_a_run_outside_the_file(run: dict[str, int], codec: str) -> None:
    container = beside(Piece(codec, GOOD[:SECTOR], run=run))
    if codec == "raw" and "length" in run:
        assert container.disk.read(0, SECTOR) == GOOD[:SECTOR]  # more bytes than sectors: the rest is ignored
        return
    hurts_only_its_range(container, "past the data|ends at")
    assert any("run 0" in warning for warning in container.details["warnings"])


def test_u11_200_000_runs_outside_the_file() -> None:
    count = 200_000
    entries = b"".join(struct.pack(">II4Q", 0x80000005, 0, n, 1, 1 << 62, 100) for n in range(count))

    def many(tree: dict[str, Any]) -> None:
        entry = tree["resource-fork"]["blkx"][0]
        head = bytearray(entry["Data"][:200] + count.to_bytes(4, "big"))
        head[16:24] = count.to_bytes(8, "big")
        entry["Data"] = bytes(head) + entries

    container = opened(simple(plist=many))
    assert len(container.details["warnings"]) < 30
    with pytest.raises(CorruptImage, match="run 199999"):
        container.disk.read(container.disk.size - 1, 1)


def test_u12_compressed_length_out_of_proportion() -> None:
    packed = zlib.compress(GOOD[:SECTOR]) + bytes(70_000)
    hurts_only_its_range(beside(Piece("zlib", GOOD[:SECTOR], packed=packed)), "takes 7.... compressed bytes for 512")


def test_u13_overlaps_order_and_gaps() -> None:
    overlapping = [Piece("zlib", GOOD), Piece("zlib", GOOD, run={"start": 7})]
    refused(build([Table("t", overlapping)]), r"run 1: begins at sector 7, inside that of .*run 0")
    refused(
        build([Table("a", [Piece("zlib", GOOD)]), Table("b", [Piece("zero", 8)], start=3)]),
        "'b'.* inside that of .*'a'",
    )
    backwards = build(
        [Table("t", [Piece("zlib", GOOD, run={"start": 8}), Piece("zlib", GOOD[::-1], run={"start": 0})])]
    )
    assert opened(backwards).disk.read(0, 16 * SECTOR) == GOOD[::-1] + GOOD
    gap = opened(
        build([Table("t", [Piece("zlib", GOOD, run={"start": 4})], mish={"sectors": 12})], koly={"SectorCount": 12})
    )
    assert gap.disk.read(0, 12 * SECTOR) == bytes(4 * SECTOR) + GOOD
    assert sum("in no block table" in warning for warning in gap.details["warnings"]) == 1


def test_u14_sector_counts_that_differ() -> None:
    fewer = opened(simple(koly={"SectorCount": 3}))
    assert fewer.disk.size == 8 * SECTOR
    assert any("claims 3 sectors, the block tables end at 8" in warning for warning in fewer.details["warnings"])
    assert opened(simple(koly={"SectorCount": 30})).disk.size == 30 * SECTOR
    refused(simple(koly={"SectorCount": 1 << 60}), "more than a disk can have")


BOMBS = {
    "zlib": lambda data: zlib.compress(data),
    "bzip2": lambda data: bz2.compress(data),
    "xz": lambda data: lzma.compress(data, preset=1),
    "lzfse": lambda data: lzfse.compress(data),
    "adc": lambda data: b"\x80\0" + b"\x7f\0\0" * (len(data) // 67),
}


@pytest.mark.parametrize("codec", BOMBS)
def test_u15_decompression_bomb(codec: str) -> None:
    packed = BOMBS[codec](bytes(2_000_000))
    hurts_only_its_range(beside(Piece(codec, GOOD, packed=packed)), "decodes to|takes")
    hurts_only_its_range(beside(Piece(codec, bytes(3_000_320), packed=packed)), "decodes to|input ends")


def test_u16_xz_dictionary_of_4_gib() -> None:
    packed = bytearray(lzma.compress(GOOD, preset=1))
    packed[16] = 40
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = zlib.crc32(packed[12 : 12 + size - 4]).to_bytes(4, "little")
    hurts_only_its_range(beside(Piece("xz", GOOD, packed=bytes(packed))), "[Mm]emory")


def test_u17_wrong_checksums_matter_to_verify_only() -> None:
    wrong = (2).to_bytes(4, "big") + (32).to_bytes(4, "big") + b"\1\2\3\4" + bytes(124)
    container = opened(simple(koly={"DataChecksum": wrong, "MasterChecksum": wrong}))
    assert container.disk.read(0, len(GOOD)) == GOOD
    assert container.verify is not None
    verdicts = {step.what: step for step in container.verify() if isinstance(step, Verdict)}
    assert verdicts["data fork"].ok is False
    assert verdicts["data fork"].expected == "01020304"
    assert verdicts["master"].ok is False
    assert verdicts["block table 0 ('t')"].ok is True


def test_u18_unknown_and_obsolete_codings() -> None:
    hurts_only_its_range(beside(Piece("0x80000009", GOOD)), "is of unknown type 0x80000009")
    for codec in ("kencode", "rle", "lzh"):
        container = beside(Piece(codec, GOOD[:SECTOR], packed=b"x"))
        with pytest.raises(Unsupported, match="compression is not supported"):
            container.disk.read(0, 1)
        assert len(container.details["warnings"]) == 1


def test_u18_many_bad_runs_give_few_warnings() -> None:
    container = beside(*[Piece("0x80000009", GOOD[:SECTOR], packed=b"x") for _ in range(500)])
    assert len(container.details["warnings"]) < 40
    assert any("more runs cannot be read" in warning for warning in container.details["warnings"])


def test_u19_only_the_last_trailer_counts() -> None:
    inner, outer = simple(), build([Table("outer", [Piece("raw", simple().bytes.ljust(16 * SECTOR, b"\0"))])])
    assert opened(outer).disk.read(0, len(inner.bytes)) == inner.bytes
    with pytest.raises(NotAnImage, match="less than one sector"):
        opened(b"koly")
    with pytest.raises(CorruptImage, match="none at the end of the file"):
        opened(simple().bytes + b"trailing junk" * 100)


def test_u20_data_fork_offset_and_polyglots() -> None:
    assert opened(simple(lead=bytes(77))).disk.read(0, len(GOOD)) == GOOD
    assert opened(simple(prefix=b"xar!" + bytes(77))).disk.read(0, len(GOOD)) == GOOD
    assert opened(simple(prefix=b"xar!" + bytes(77), absolute=True)).disk.read(0, len(GOOD)) == GOOD


def test_u21_segments_are_looked_for_beside_the_image_only(tmp_path: Path) -> None:
    image = simple(segments=3, koly={"Reserved1": b"/etc/passwd".ljust(64, b"\0")})
    path = tmp_path / "image.dmg"
    path.write_bytes(image.bytes)
    with pytest.raises(CorruptImage, match=r"missing in .*: image.002.dmgpart, image.003.dmgpart"):
        open_container(path, cache=ChunkCache(1 << 20))
    with pytest.raises(Unsupported, match="segmented image inside another"):
        opened(image)
    refused_count = simple(koly={"SegmentCount": 0xFFFFFFFF})
    path.write_bytes(refused_count.bytes)
    with pytest.raises(CorruptImage, match="claims 4294967295 segments"):
        open_container(path, cache=ChunkCache(1 << 20))


def test_u22_many_tables() -> None:
    def many(tree: dict[str, Any]) -> None:
        tree["resource-fork"]["blkx"] = tree["resource-fork"]["blkx"] * 4097

    refused(simple(plist=many), "4097 of `blkx`, at most 4096")

    def empty(tree: dict[str, Any]) -> None:
        tree["resource-fork"]["blkx"] += [{}] * 100_000

    refused(simple(plist=empty), "100001 of `blkx`")


def test_u22_the_same_id_twice_is_harmless() -> None:
    def twice(tree: dict[str, Any]) -> None:
        for entry in tree["resource-fork"]["blkx"]:
            entry["ID"] = "0"

    image = build([Table("a", [Piece("zlib", GOOD)]), Table("b", [Piece("raw", GOOD)])], plist=twice)
    assert opened(image).disk.read(0, 16 * SECTOR) == GOOD + GOOD
