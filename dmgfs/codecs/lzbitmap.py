"""LZBITMAP, as decmpfs types 13 and 14 store it: chunks of up to 32 KiB, each a list of 8-byte groups, where a bitmap says
for every byte whether it is a literal or a copy from one period back.

Chunk: u24 length, u24 decoded length, three u24 offsets (periods, bitmaps, operations), literals from byte 15 on, and in
the last 17 bytes a table of twelve 10-bit entries (bitmap, bytes of a new period). Every cursor stays inside its chunk.
"""

from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

_MAGIC = b"ZBM\t"
_MOST = 0x8000
_TABLE = 17
_LITERALS = 15


def decode(data: Buffer, expected: int) -> bytearray:
    """`expected` bytes. Raises CorruptImage (layer "LZBITMAP", offset in the compressed data)."""
    source = bytes(data)
    if source[:4] != _MAGIC:
        raise _damage(f"it starts with {source[:4].hex(' ') or 'nothing'}, not with the magic {_MAGIC.hex(' ')}", 0)
    out = bytearray()
    at = 4
    while True:
        length, size = _u24(source, at), _u24(source, at + 3)
        if length < 6 or at + length > len(source):
            raise _damage(f"a chunk of {length} bytes, but the input ends at {len(source):#x}", at)
        if size == 0:
            break
        if size > _MOST or len(out) + size > expected:
            raise _damage(f"it decodes to more than the expected {expected} bytes", at)
        chunk = source[at : at + length]
        if length == size + 6:
            out += chunk[6:]
        else:
            try:
                _expand(chunk, out, len(out) + size)
            except IndexError:
                raise _damage("a cursor leaves its chunk", at) from None
        at += length
    if len(out) != expected:
        raise _damage(f"it decodes to {len(out)} bytes, {expected} were expected", at)
    return out


def _u24(source: bytes, at: int) -> int:
    return int.from_bytes(source[at : at + 3], "little")


def _expand(chunk: bytes, out: bytearray, limit: int) -> None:
    """Appends one compressed chunk. IndexError where a cursor runs out of the chunk."""
    periods, bitmaps, operations = _u24(chunk, 6), _u24(chunk, 9), 2 * _u24(chunk, 12)
    literal = _LITERALS
    packed = int.from_bytes(chunk[-_TABLE:], "little")
    table = [(packed >> 10 * entry & 0xFF, packed >> 10 * entry + 8 & 3) for entry in range(12)]
    period = 8

    def nibble(at: int) -> int:
        return chunk[at >> 1] >> 4 * (at & 1) & 15

    while len(out) < limit:
        operation = nibble(operations)
        operations += 1
        repeat = 1
        if limit - len(out) > 8 and nibble(operations) == 15:
            operations += 1
            repeat = 4
            more = 15
            while more == 15 and 8 * repeat < limit - len(out) + 8:
                more = nibble(operations)
                operations += 1
                repeat += more
        for _ in range(repeat):
            if len(out) == limit:
                break
            if operation < 3:
                bitmap, width = chunk[bitmaps], operation
                bitmaps += 1
            elif operation < 15:
                bitmap, width = table[operation - 3]
            else:
                raise _damage("operation 15 has no meaning", operations >> 1)
            if width == 1:
                period = chunk[periods]
                periods += 1
            elif width == 2:
                period = chunk[periods] | chunk[periods + 1] << 8
                periods += 2
            elif width == 3:
                raise _damage("a period of three bytes has no meaning", operations >> 1)
            for bit in range(min(8, limit - len(out))):
                if bitmap >> bit & 1:
                    out.append(chunk[literal])
                    literal += 1
                elif 0 < period <= len(out):
                    out.append(out[-period])
                else:
                    raise _damage(f"copy from {period} bytes back, only {len(out)} were produced", operations >> 1)


def _damage(why: str, offset: int) -> CorruptImage:
    return CorruptImage("LZBITMAP", "compressed data", why, offset)
