"""LZVN, raw, as decmpfs types 7 and 8 store it and as `bvxn` blocks of an LZFSE stream carry it.

liblzfse decodes it when the payload is exact. Blocks with junk after the end opcode occur in files of current systems and
liblzfse refuses them, so whatever it refuses goes through the decoder below, which stops when the expected bytes are out.
`expand` serves LZFSE streams too: there a match may reach into earlier blocks.
"""

import struct

from dmgfs.codecs import liblzfse
from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

_BLOCK = struct.Struct("<4sII")


def decode(data: Buffer, expected: int) -> Buffer:
    """`expected` bytes. Raises CorruptImage (layer "LZVN", offset in the compressed data)."""
    if liblzfse.AVAILABLE and 0 < expected < 1 << 32 and len(data) < 1 << 32:
        wrapped = _BLOCK.pack(b"bvxn", expected, len(data)) + data + b"bvx$"
        fast = liblzfse.decode(wrapped, expected)
        if fast is not None:
            return fast
    out = bytearray()
    expand(bytes(data), out, expected)
    return out


def expand(source: bytes, out: bytearray, limit: int) -> None:
    """Decodes until `out` is `limit` bytes long. Raises CorruptImage when that is not exactly reached."""
    at = 0
    size = len(out)
    distance = 0
    try:
        while size < limit:
            start = at
            code = source[at]
            low = code & 7
            if code >= 0xF0:  # match of the previous distance
                literals = 0
                if code == 0xF0:
                    length = source[at + 1] + 16
                    at += 2
                else:
                    length = code & 15
                    at += 1
            elif code >= 0xE0:  # literals only
                length = 0
                if code == 0xE0:
                    literals = source[at + 1] + 16
                    at += 2
                else:
                    literals = code & 15
                    at += 1
            elif 0xA0 <= code < 0xC0:  # medium distance
                word = source[at + 1] | source[at + 2] << 8
                literals = code >> 3 & 3
                length = ((code & 7) << 2 | word & 3) + 3
                distance = word >> 2
                at += 3
            elif 0x70 <= code < 0x80 or 0xD0 <= code < 0xE0:
                raise _damage(f"undefined opcode {code:#04x}", start)
            else:
                literals = code >> 6
                length = (code >> 3 & 7) + 3
                if low == 7:
                    distance = source[at + 1] | source[at + 2] << 8
                    at += 3
                elif low < 6:
                    distance = low << 8 | source[at + 1]
                    at += 2
                elif code >= 0x40:  # previous distance
                    at += 1
                elif code in (0x0E, 0x16):
                    at += 1
                    continue
                elif code == 0x06:
                    raise _damage(f"the stream ends after {size} of {limit} bytes", start)
                else:
                    raise _damage(f"undefined opcode {code:#04x}", start)
            if literals:
                out += source[at : at + literals]
                at += literals
                size += literals
            if length:
                if not 0 < distance <= size:
                    raise _damage(f"match reaches {distance} bytes back, only {size} were produced", start)
                first = size - distance
                if distance >= length:
                    out += out[first : first + length]
                else:
                    out += (out[first:size] * (length // distance + 1))[:length]
                size += length
    except IndexError:
        raise _damage(f"the input ends after {len(out)} of {limit} bytes", len(source)) from None
    if at > len(source):
        raise _damage(f"the input ends in a literal run, after {len(out)} of {limit} bytes", len(source))
    if len(out) != limit:
        raise _damage(f"it decodes to {len(out)} bytes or more, {limit} were expected", at)


def _damage(why: str, offset: int) -> CorruptImage:
    return CorruptImage("LZVN", "compressed data", why, offset)
