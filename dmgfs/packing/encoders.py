"""Encoders: what UDIF can compress a chunk with, and how well.

Rules that hold here:
- the same bytes and level give the same result, in any thread;
- every encoder but ADC's releases the GIL, so that threads fill all cores; its memory is a small multiple of the chunk;
- what decodes on a small machine is what counts: an xz dictionary is never larger than the chunk.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

Encoder = Callable[[bytes], bytes]

LEVELS: dict[str, tuple[range, int]] = {
    "zlib": (range(1, 13), 6),
    "bzip2": (range(1, 10), 9),
    "xz": (range(10), 6),
}
"""Codec to its levels, and the one that is taken if nobody asks. The other codecs have none."""

_SMALLEST_DICTIONARY = 4096
_BEST_OF_STDLIB = 9  # libdeflate counts to 12


def encoder(codec: str, level: int | None, chunk: int) -> Encoder:
    """The encoder of a codec of `dmgfs.codecs`, for data of at most `chunk` bytes. Raises ValueError for a level that
    the codec does not have."""
    if codec in LEVELS:
        levels, usual = LEVELS[codec]
        level = usual if level is None else level
        if level not in levels:
            raise ValueError(f"{codec} has the levels {levels[0]} to {levels[-1]}, not {level}")
        return {"zlib": _zlib, "bzip2": _bzip2, "xz": _xz}[codec](level, chunk)
    if level is not None:
        raise ValueError(f"{codec} has no levels")
    if codec == "lzfse":
        lzfse: Encoder = import_module("lzfse").compress
        return lzfse
    from dmgfs.packing.adc import encode

    return {"adc": encode}[codec]


def _zlib(level: int, chunk: int) -> Encoder:
    try:
        deflate = import_module("deflate")
    except ImportError:  # a platform without a wheel: slower, not poorer
        import zlib

        return partial(zlib.compress, level=min(level, _BEST_OF_STDLIB))
    compress = deflate.zlib_compress
    return lambda data: bytes(compress(data, level))


def _bzip2(level: int, chunk: int) -> Encoder:
    import bz2

    return partial(bz2.compress, compresslevel=level)


def _xz(level: int, chunk: int) -> Encoder:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": max(chunk, _SMALLEST_DICTIONARY)}]
    return partial(lzma.compress, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
