"""zlib streams (RFC 1950): libdeflate where it succeeds, the standard library where the stream is odd.

libdeflate is three times as fast and all or nothing. Streams in the wild end early: writers left the Adler-32 out, or the
declared size cuts it off. So a stream that libdeflate refuses gets a second look: the expected bytes are accepted if the
Adler-32 is missing, never if it is there and wrong.
"""

import zlib

from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

try:
    import deflate
except ImportError:  # a platform without a wheel: slower, not poorer
    deflate = None  # type: ignore[assignment]

# DEFLATE's best case is 258 bytes for 2 bits; more than that is not worth a buffer of the expected size.
_BEST_RATIO = 1032


def decode(data: Buffer, expected: int) -> Buffer:
    """`expected` bytes. Raises CorruptImage (layer "zlib")."""
    if deflate is not None and 0 < expected <= len(data) * _BEST_RATIO:
        try:
            out: Buffer = deflate.zlib_decompress(data, expected)
        except deflate.DeflateError:
            return _second_look(data, expected)
        if len(out) != expected:
            raise _damage(f"it decodes to {len(out)} bytes, {expected} were expected")
        return out
    return _second_look(data, expected)


def _second_look(data: Buffer, expected: int) -> bytes:
    view = memoryview(data)
    if len(view) < 2 or view[0] & 0x0F != 8 or (view[0] << 8 | view[1]) % 31 or view[1] & 0x20:
        raise _damage(f"no zlib header: {bytes(view[:2]).hex(' ') or 'empty'}")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = inflate.decompress(view[2:], expected + 1)
    except zlib.error as error:
        raise _damage(f"damaged: {str(error).removeprefix('Error -3 while decompressing data: ')}") from None
    if len(out) > expected:
        raise _damage(f"it decodes to more than the expected {expected} bytes")
    if len(out) < expected:
        raise _damage(f"it decodes to {len(out)} bytes, {expected} were expected")
    if not inflate.eof:
        raise _damage(f"the input ends in the middle, after {len(out)} bytes")
    adler = inflate.unused_data[:4]
    if len(adler) == 4 and int.from_bytes(adler, "big") != zlib.adler32(out):
        raise _damage(f"the Adler-32 is {adler.hex()}, {zlib.adler32(out):08x} would be right")
    return out


def _damage(why: str) -> CorruptImage:
    return CorruptImage("zlib", "compressed data", why)
