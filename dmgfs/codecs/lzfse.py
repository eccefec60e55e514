"""LZFSE streams (`bvx-`, `bvxn`, `bvx1`, `bvx2`, closed by `bvx$`), as UDIF's ULFO images and decmpfs types 11 and 12 have.

The block headers are walked first: sizes must fit the input, and the sum of the blocks' claims must be the expected
length, else nothing is decoded at all. Then liblzfse decodes into a bounded buffer; where it cannot be reached, our own
decoder does, two orders of magnitude slower and as strict. LZFSE has no checksum: damage may decode to wrong bytes.
"""

import struct
from collections.abc import Iterator

from dmgfs.codecs import bvx2, liblzfse, lzvn
from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

_WORD = struct.Struct("<I")
_PAIR = struct.Struct("<II")
_BYTES_PER_BLOCK = 8192  # encoders put far more into a block; bounds the walk


def decode(data: Buffer, expected: int) -> Buffer:
    """`expected` bytes. Raises CorruptImage (layer "LZFSE", offset in the compressed data)."""
    stream = bytes(data)
    claimed = 0
    most = 4 + expected // _BYTES_PER_BLOCK
    for number, (offset, _, _, size) in enumerate(_blocks(stream)):
        claimed += size
        if claimed > expected:
            raise _damage(f"it decodes to more than the expected {expected} bytes", offset)
        if number >= most:
            raise _damage(f"more than {most} blocks for {expected} bytes", offset)
    if claimed != expected:
        raise _damage(f"it decodes to {claimed} bytes, {expected} were expected", 0)
    if not liblzfse.AVAILABLE:
        return decode_slowly(stream, expected)
    out = liblzfse.decode(stream, expected)
    if out is None:
        raise _damage(f"the blocks are damaged: they do not decode to {expected} bytes", 0)
    return out


def decode_slowly(stream: bytes, expected: int) -> bytearray:
    """The same in Python."""
    out = bytearray()
    for offset, kind, header, size in _blocks(stream):
        payload = memoryview(stream)[offset : offset + header]
        limit = len(out) + size
        if limit > expected:
            raise _damage(f"it decodes to more than the expected {expected} bytes", offset)
        if kind == b"bvx-":
            out += payload[8:]
        elif kind == b"bvxn":
            lzvn.expand(bytes(payload[12:]), out, limit)
        else:
            bvx2.expand(bytes(payload), out, limit)
    if len(out) != expected:
        raise _damage(f"it decodes to {len(out)} bytes, {expected} were expected", 0)
    return out


def _blocks(stream: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """(offset, magic, bytes with header, decoded bytes as claimed) of every block up to the end mark."""
    at = 0
    while (kind := stream[at : at + 4]) != b"bvx$":
        try:
            if kind == b"bvx-":
                (size,) = _WORD.unpack_from(stream, at + 4)
                length = 8 + size
            elif kind == b"bvxn":
                size, payload = _PAIR.unpack_from(stream, at + 4)
                length = 12 + payload
            elif kind in (b"bvx1", b"bvx2"):
                size, length = bvx2.measure(stream, at)
            else:
                raise _damage(f"no block starts with {kind.hex(' ') or 'nothing'}", at)
        except struct.error:
            raise _damage("the input ends in a block's header", at) from None
        if at + length > len(stream):
            raise _damage(f"a block of {length} bytes, but the input ends at {len(stream):#x}", at)
        yield at, kind, length, size
        at += length


def _damage(why: str, offset: int) -> CorruptImage:
    return CorruptImage("LZFSE", "compressed data", why, offset)
