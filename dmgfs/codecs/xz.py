"""LZMA in .xz containers, as UDIF's ULMO images have it, with the standard library.

An .xz header may ask for a dictionary of 4 GiB, so the decoder's memory has a limit.
"""

import lzma

from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

_MEMORY = 256 << 20


def decode(data: Buffer, expected: int) -> bytes:
    """`expected` bytes. Raises CorruptImage (layer "xz")."""
    stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    try:
        out = stream.decompress(data, expected + 1)
    except (lzma.LZMAError, MemoryError) as error:
        raise _damage(f"damaged: {error}") from None
    if len(out) > expected:
        raise _damage(f"it decodes to more than the expected {expected} bytes")
    if not stream.eof:
        raise _damage(f"the input ends after {len(out)} of {expected} bytes")
    if len(out) < expected:
        raise _damage(f"it decodes to {len(out)} bytes, {expected} were expected")
    return out


def _damage(why: str) -> CorruptImage:
    return CorruptImage("xz", "compressed data", why)
