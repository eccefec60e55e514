"""What an encoder of another make packed comes back; what is damaged ends in an error or in the right number of bytes."""

import resource
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from builders.packing import LZVN_MOST, lzvn, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.codecs import CODECS, decoder, inflate, liblzfse
from dmgfs.codecs.crc import crc32
from dmgfs.codecs.lzfse import decode_slowly
from dmgfs.codecs.lzvn import expand
from dmgfs.errors import CorruptImage

# Formats whose checksum is always there: damage never passes for data. (zlib's may be missing: its own test is below.)
CHECKED = ("bzip2", "xz")


@st.composite
def texts(draw: st.DrawFn, most: int = 20_000) -> bytes:
    """Data with repetition at many distances, so that every kind of match occurs."""
    alphabet = draw(st.binary(min_size=1, max_size=40))
    out = bytearray()
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(0, 3))
        if kind == 0:
            out += draw(st.binary(max_size=300))
        elif kind == 1:
            out += alphabet * draw(st.integers(1, 60))
        elif kind == 2 and out:
            back = draw(st.integers(1, len(out)))
            length = draw(st.integers(1, 400))
            out += (out[-back:] * (length // back + 1))[:length]
        else:
            out += bytes(draw(st.integers(0, 2000)))
    return bytes(out[:most])


@pytest.mark.parametrize("codec", CODECS)
@given(data=texts())
@settings(max_examples=60, deadline=None)
def test_round_trip(codec: str, data: bytes) -> None:
    data = data or b"x"
    packed = pack(codec, data)
    assert bytes(decoder(codec)(packed, len(data))) == data
    assert bytes(decoder(codec)(memoryview(b"_" + packed)[1:], len(data))) == data


@given(data=texts())
@settings(max_examples=60, deadline=None)
def test_our_lzfse_decoder_agrees_with_the_reference(data: bytes) -> None:
    data = data or b"x"
    assert decode_slowly(pack("lzfse", data), len(data)) == data


@given(data=texts(LZVN_MOST))
@settings(max_examples=60, deadline=None)
def test_our_lzvn_decoder_ignores_what_follows(data: bytes) -> None:
    out = bytearray()
    expand(lzvn(data) + b"\xde\xad\xbe\xef", out, len(data))
    assert out == data


@pytest.mark.parametrize("codec", CODECS)
@given(
    data=texts(3000), edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4), cut=st.integers(0)
)
@settings(max_examples=120, deadline=None)
def test_damage_ends_in_an_error_or_in_the_right_length(
    codec: str, data: bytes, edits: list[tuple[int, int]], cut: int
) -> None:
    data = data or b"x"
    packed = bytearray(pack(codec, data))
    for place, value in edits:
        packed[place % len(packed)] = value
    if cut % 3 == 0:
        del packed[cut % len(packed) :]
    decoders = [decoder(codec)] + ([decode_slowly] if codec == "lzfse" else [])
    for decode in decoders:
        try:
            out = decode(bytes(packed), len(data))
        except CorruptImage:
            continue
        assert len(out) == len(data)
        if codec in CHECKED:
            assert out == data


@pytest.mark.parametrize("codec", CODECS)
@given(junk=st.binary(max_size=400), expected=st.integers(0, 5000))
@settings(max_examples=80, deadline=None)
def test_junk(codec: str, junk: bytes, expected: int) -> None:
    try:
        assert len(decoder(codec)(junk, expected)) == expected
    except CorruptImage:
        pass


@pytest.mark.parametrize("codec", CODECS)
def test_length_is_exact(codec: str) -> None:
    data = bytes(range(256)) * 4
    packed = pack(codec, data)
    for wrong in (1, len(data) - 1, len(data) + 1, 10 * len(data)):
        if codec == "lzvn" and wrong < len(data):
            continue  # LZVN must ignore what follows the expected bytes
        with pytest.raises(CorruptImage):
            decoder(codec)(packed, wrong)


@pytest.mark.parametrize("codec", CODECS)
def test_padding_after_the_stream_is_ignored(codec: str) -> None:
    data = b"Finder " * 500
    assert bytes(decoder(codec)(pack(codec, data) + bytes(512), len(data))) == data


@pytest.fixture
def frugal() -> Iterator[None]:
    """The test may take 2 seconds and 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2
    assert peak < 64 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


@pytest.mark.parametrize("codec", ["zlib", "bzip2", "xz", "lzfse"])
def test_bomb(codec: str, frugal: None, bombs: dict[str, bytes]) -> None:
    with pytest.raises(CorruptImage):
        decoder(codec)(bombs[codec], 1 << 20)


@pytest.fixture(scope="session")
def bombs() -> dict[str, bytes]:
    """20 MB of zeros, packed."""
    zeros = bytes(20_000_000)
    return {codec: pack(codec, zeros) for codec in ("zlib", "bzip2", "xz", "lzfse")}


def test_bomb_of_lzfse_blocks_that_lie(frugal: None) -> None:
    """An entropy-coded block may decode to 23 MB whatever its header claims: the buffer's end is the bound."""
    data = bytes(5_000_000)
    packed = bytearray(pack("lzfse", data))
    at = claimed = 0
    while packed[at : at + 4] == b"bvx2":
        claimed += 1
        n_literals = int.from_bytes(packed[at + 8 : at + 16], "little")
        payload = n_literals >> 20 & 0xFFFFF
        lmd = int.from_bytes(packed[at + 16 : at + 24], "little") >> 40 & 0xFFFFF
        header = int.from_bytes(packed[at + 24 : at + 28], "little")
        packed[at + 4 : at + 8] = (1000).to_bytes(4, "little")
        at += header + payload + lmd
    assert claimed
    for decode in (decoder("lzfse"), decode_slowly):
        with pytest.raises(CorruptImage):
            decode(bytes(packed), 1000 * claimed)


def test_xz_dictionary_of_4_gib(frugal: None) -> None:
    """A header that asks for the largest dictionary is refused by the memory limit."""
    packed = bytearray(pack("xz", b"small"))
    assert packed[12:16] == bytes((2, 0, 0x21, 1))  # block header size, flags, LZMA2, one byte of properties
    packed[16] = 40  # 4 GiB - 1
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = zlib.crc32(packed[12 : 12 + size - 4]).to_bytes(4, "little")
    with pytest.raises(CorruptImage, match=r"[Mm]emory"):
        decoder("xz")(bytes(packed), 5)


def test_zlib_without_its_adler() -> None:
    data = b"resource fork " * 300
    packed = pack("zlib", data)
    for cut in (1, 2, 3, 4):
        assert decoder("zlib")(packed[:-cut], len(data)) == data
    with pytest.raises(CorruptImage, match="Adler"):
        decoder("zlib")(packed[:-4] + b"\0\0\0\0", len(data))


def test_zlib_needs_a_header() -> None:
    for head in (b"", b"\x78", b"\x78\x00", b"\x79\x9c", b"\x78\xbb"):
        with pytest.raises(CorruptImage, match="header"):
            decoder("zlib")(head + bytes(8), 5)


def test_zlib_with_the_standard_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "deflate", None)
    data = b"standard " * 1000
    packed = pack("zlib", data)
    assert inflate.decode(packed, len(data)) == data
    with pytest.raises(CorruptImage):
        inflate.decode(packed, len(data) - 1)


def test_bzip2_in_several_streams() -> None:
    parts = [b"one " * 100, b"two " * 50, b"three"]
    packed = b"".join(pack("bzip2", part) for part in parts)
    assert decoder("bzip2")(packed, sum(map(len, parts))) == b"".join(parts)
    with pytest.raises(CorruptImage):
        decoder("bzip2")(packed, sum(map(len, parts)) + 1)


def test_bzip2_of_empty_streams_ends(frugal: None) -> None:
    with pytest.raises(CorruptImage, match="streams"):
        decoder("bzip2")(pack("bzip2", b"") * 10_000, 5)


def test_lzfse_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liblzfse, "AVAILABLE", False)
    monkeypatch.setattr(liblzfse, "_decode_buffer", None)
    for size in (100, 3000, 40_000):
        data = bytes(i * i >> 3 & 0xFF for i in range(size))
        assert decoder("lzfse")(pack("lzfse", data), size) == data
    assert decoder("lzvn")(pack("lzvn", b"abc" * 500), 1500) == b"abc" * 500


def test_the_library_is_there() -> None:
    """The fast path is the one that runs here; without this test its loss would only show as slowness."""
    assert liblzfse.AVAILABLE
    assert inflate.deflate is not None


def test_unknown_codec() -> None:
    with pytest.raises(KeyError):
        decoder("rar")


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_the_fast_crc_is_the_known_one(parts: list[bytes]) -> None:
    value = 0
    for part in parts:
        value = crc32(memoryview(bytearray(part)), value)
    assert value == zlib.crc32(b"".join(parts))
