"""bzip2: one stream or several in a row (parallel compressors write several), with the standard library."""

import bz2

from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

# Every further stream copies the rest of the input once, so their number is bounded: at 100 kB each, the smallest block
# size of the format, this is still 400 MB.
_MOST_STREAMS = 4096


def decode(data: Buffer, expected: int) -> bytes:
    """`expected` bytes. Raises CorruptImage (layer "bzip2")."""
    parts: list[bytes] = []
    size = 0
    rest: Buffer = data
    for _ in range(_MOST_STREAMS):
        stream = bz2.BZ2Decompressor()
        try:
            out = stream.decompress(rest, expected - size + 1)
        except OSError as error:
            raise _damage(f"damaged after {size} bytes: {error}") from None
        parts.append(out)
        size += len(out)
        if size > expected:
            raise _damage(f"it decodes to more than the expected {expected} bytes")
        if not stream.eof:
            raise _damage(f"the input ends after {size} of {expected} bytes")
        if size == expected:
            return out if len(parts) == 1 else b"".join(parts)
        rest = stream.unused_data
        if not rest.startswith(b"BZh"):
            raise _damage(f"it decodes to {size} bytes, {expected} were expected")
    raise _damage(f"more than {_MOST_STREAMS} streams in one chunk")


def _damage(why: str) -> CorruptImage:
    return CorruptImage("bzip2", "compressed data", why)
