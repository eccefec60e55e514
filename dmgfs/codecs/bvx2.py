"""The entropy-coded blocks of LZFSE: `bvx2` (packed header) and `bvx1` (the same with plain tables).

A block is a header with four frequency tables (L: literal counts, M: match lengths, D: distances, and literals), the
literals as an FSE bit stream, and the (L, M, D) triples as another. Both streams are read from their end backwards.
Written for correctness: it serves where liblzfse cannot be reached, and as a second opinion in tests.
"""

import struct
from dataclasses import dataclass
from itertools import accumulate

from dmgfs.errors import CorruptImage

_PACKED = struct.Struct("<4sIQQQ")
_PLAIN = struct.Struct("<4sIIIIIIi4HiHHH")
_PLAIN_SIZE = 772

_SYMBOLS = (20, 20, 64, 256)
_STATES = (64, 64, 256, 1024)
_MOST_LITERALS = 40_000
_MOST_MATCHES = 10_000

_L_BITS = [0] * 16 + [2, 3, 5, 8]
_M_BITS = [0] * 16 + [3, 5, 8, 11]
_D_BITS = [symbol // 4 for symbol in range(64)]


def _bases(bits: list[int]) -> list[int]:
    return list(accumulate((1 << extra for extra in bits), initial=0))[:-1]


_L_BASE, _M_BASE, _D_BASE = _bases(_L_BITS), _bases(_M_BITS), _bases(_D_BITS)


@dataclass(frozen=True, slots=True)
class _Header:
    """size: bytes of the header with its tables. n_raw: bytes the block decodes to. The rest as in lzfse_internal.h."""

    size: int
    n_raw: int
    n_literals: int
    n_matches: int
    literal_payload: int
    lmd_payload: int
    literal_bits: int
    lmd_bits: int
    literal_states: tuple[int, ...]
    lmd_states: tuple[int, ...]


def measure(stream: bytes, at: int) -> tuple[int, int]:
    """(decoded bytes as claimed, bytes in the stream) of the block at `at`. struct.error: the header is cut off."""
    header = _header(stream, at)
    return header.n_raw, header.size + header.literal_payload + header.lmd_payload


def _header(stream: bytes, at: int) -> _Header:
    if stream[at : at + 4] == b"bvx1":
        plain = _PLAIN.unpack_from(stream, at)
        _, n_raw, _, n_literals, n_matches, literal_payload, lmd_payload, literal_bits = plain[:8]
        return _Header(
            _PLAIN_SIZE, n_raw, n_literals, n_matches, literal_payload, lmd_payload,
            literal_bits, plain[12], plain[8:12], plain[13:16],
        )  # fmt: skip
    _, n_raw, v0, v1, v2 = _PACKED.unpack_from(stream, at)
    return _Header(
        size=max(v2 & 0xFFFFFFFF, _PACKED.size),
        n_raw=n_raw,
        n_literals=v0 & 0xFFFFF,
        literal_payload=v0 >> 20 & 0xFFFFF,
        n_matches=v0 >> 40 & 0xFFFFF,
        literal_bits=(v0 >> 60 & 7) - 7,
        literal_states=tuple(v1 >> shift & 0x3FF for shift in (0, 10, 20, 30)),
        lmd_payload=v1 >> 40 & 0xFFFFF,
        lmd_bits=(v1 >> 60 & 7) - 7,
        lmd_states=tuple(v2 >> shift & 0x3FF for shift in (32, 42, 52)),
    )


def expand(block: bytes, out: bytearray, limit: int) -> None:
    """Appends the block to `out`, which must then be `limit` bytes long. Raises CorruptImage."""
    header = _header(block, 0)
    if header.n_literals > _MOST_LITERALS or header.n_literals % 4 or header.n_matches > _MOST_MATCHES:
        raise _damage(f"{header.n_literals} literals and {header.n_matches} matches are not possible")
    if block[:4] == b"bvx1":
        frequencies = list(struct.unpack_from(f"<{sum(_SYMBOLS)}H", block, _PLAIN.size))
    else:
        frequencies = _frequencies(block[_PACKED.size : header.size])
    tables = []
    for symbols, states in zip(_SYMBOLS, _STATES, strict=True):
        if sum(frequencies[:symbols]) > states:
            raise _damage(f"a frequency table sums to {sum(frequencies[:symbols])}, {states} is the most")
        tables.append(_table(frequencies[:symbols], states))
        del frequencies[:symbols]
    middle = header.size + header.literal_payload
    try:
        literals = _literals(header, block[header.size : middle], tables[3])
        _matches(header, block[middle : middle + header.lmd_payload], tables, literals, out, limit)
    except IndexError:
        raise _damage("a state lies outside its table") from None


def _frequencies(packed: bytes) -> list[int]:
    """The 360 frequencies of a bvx2 header: a prefix code, lowest bits first."""
    count = sum(_SYMBOLS)
    if not packed:
        return [0] * count
    bits = int.from_bytes(packed, "little")
    used = 0
    result = []
    for _ in range(count):
        window = bits >> used & 0x3FFF
        if window & 3 in (0, 2):
            value, length = window >> 1 & 1, 2
        elif window & 3 == 1:
            value, length = 2 + (window >> 2 & 1), 3
        elif window & 7 == 3:
            value, length = 4 + (window >> 3 & 3), 5
        elif window & 15 == 7:
            value, length = 8 + (window >> 4 & 15), 8
        else:
            value, length = 24 + (window >> 4), 14
        result.append(value)
        used += length
    if not 0 <= len(packed) * 8 - used < 8:
        raise _damage(f"the frequency tables take {used} bits, the header has {len(packed) * 8}")
    return result


def _table(frequencies: list[int], states: int) -> list[tuple[int, int, int]]:
    """(symbol, bits to read, delta) for every state."""
    table = []
    for symbol, frequency in enumerate(frequencies):
        if frequency == 0:
            continue
        k = states.bit_length() - frequency.bit_length()
        first = (2 * states >> k) - frequency
        for j in range(frequency):
            if j < first:
                table.append((symbol, k, (frequency + j << k) - states))
            else:
                table.append((symbol, k - 1, j - first << k - 1))
    return table


class _Bits:
    """A bit stream read from its end."""

    __slots__ = ("at", "number")

    def __init__(self, payload: bytes, spare: int) -> None:
        self.number = int.from_bytes(payload, "little")
        self.at = 8 * len(payload) + spare
        if self.at < 0 or self.number >> self.at:
            raise _damage("the unused bits of a payload are not zero")

    def read(self, count: int) -> int:
        self.at -= count
        if self.at < 0:
            raise _damage("a payload is too short for its symbols")
        return self.number >> self.at & (1 << count) - 1


def _literals(header: _Header, payload: bytes, table: list[tuple[int, int, int]]) -> bytes:
    if not header.n_literals:
        return b""
    bits = _Bits(payload, header.literal_bits)
    states = list(header.literal_states)
    literals = bytearray()
    for index in range(header.n_literals):
        symbol, count, delta = table[states[index & 3]]
        literals.append(symbol)
        states[index & 3] = delta + bits.read(count)
    return bytes(literals)


def _matches(
    header: _Header,
    payload: bytes,
    tables: list[list[tuple[int, int, int]]],
    literals: bytes,
    out: bytearray,
    limit: int,
) -> None:
    bits = _Bits(payload, header.lmd_bits)
    l_table, m_table, d_table, _ = tables
    l_state, m_state, d_state = header.lmd_states
    distance = 0
    used = 0
    for _ in range(header.n_matches):
        symbol, count, delta = l_table[l_state]
        l_state = delta + bits.read(count)
        literal_count = _L_BASE[symbol] + bits.read(_L_BITS[symbol])
        symbol, count, delta = m_table[m_state]
        m_state = delta + bits.read(count)
        length = _M_BASE[symbol] + bits.read(_M_BITS[symbol])
        symbol, count, delta = d_table[d_state]
        d_state = delta + bits.read(count)
        distance = (_D_BASE[symbol] + bits.read(_D_BITS[symbol])) or distance
        if used + literal_count > len(literals):
            raise _damage(f"a match wants {used + literal_count} literals, {len(literals)} were sent")
        out += literals[used : used + literal_count]
        used += literal_count
        if len(out) + length > limit:
            raise _damage(f"it decodes to more than the {limit} bytes its header claims")
        if length:
            start = len(out) - distance
            if distance == 0 or start < 0:
                raise _damage(f"match reaches {distance} bytes back, only {len(out)} were produced")
            if distance >= length:
                out += out[start : start + length]
            else:
                out += (out[start:] * (length // distance + 1))[:length]
    if len(out) != limit:
        raise _damage(f"it decodes to {len(out)} bytes, its header claims {limit}")


def _damage(why: str) -> CorruptImage:
    return CorruptImage("LZFSE", "bvx2 block", why)
