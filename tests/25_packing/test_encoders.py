"""The encoders: decoded by our decoders, with every level, and with nothing that a small machine could not decode."""

import lzma
import random

import pytest

from dmgfs.codecs import decoder
from dmgfs.packing.encoders import LEVELS, encoder

DATA = b"".join(random.Random(1).choices([b"abcd", b"efgh" * 9, bytes(700), b"\xff"], k=500))
CODECS = ("zlib", "bzip2", "lzfse", "xz", "adc")


@pytest.mark.parametrize("codec", CODECS)
def test_every_level_decodes(codec: str) -> None:
    levels = [None, *LEVELS[codec][0]] if codec in LEVELS else [None]
    for level in levels:
        packed = encoder(codec, level, 1 << 20)(DATA)
        assert len(packed) < len(DATA)
        assert bytes(decoder(codec)(packed, len(DATA))) == DATA


@pytest.mark.parametrize(("codec", "level"), [("zlib", 13), ("zlib", 0), ("bzip2", 10), ("xz", -1), ("lzfse", 1)])
def test_a_level_that_is_none(codec: str, level: int) -> None:
    with pytest.raises(ValueError, match="levels"):
        encoder(codec, level, 1 << 20)


def test_without_libdeflate_the_standard_library_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deflate", None)
    assert bytes(decoder("zlib")(encoder("zlib", 12, 1 << 20)(DATA), len(DATA))) == DATA


def test_xz_has_a_crc32_and_a_dictionary_no_larger_than_the_chunk() -> None:
    packed = encoder("xz", 9, 1 << 16)(DATA)
    stream = lzma.LZMADecompressor(memlimit=2 << 20)
    assert stream.decompress(packed) == DATA
    assert stream.check == lzma.CHECK_CRC32
