"""Builds compressed files as decmpfs stores them: the attribute's value and the resource fork, for every type that has
content. Blocks that do not shrink are stored behind their marker, as the real compressors do.

Written from the format's description, in the other direction than the reader: it shares no code with it.
"""

import struct
import zlib
from typing import NamedTuple

import lzfse

BLOCK = 0x10000
INLINE_TYPES = (1, 3, 7, 9, 11, 13)
FORK_TYPES = (4, 8, 10, 12, 14)


class Packed(NamedTuple):
    """One file. attribute: value of com.apple.decmpfs."""

    attribute: bytes
    fork: bytes


def header(kind: int, size: int) -> bytes:
    return b"fpmc" + struct.pack("<IQ", kind, size)


def pack(kind: int, data: bytes, *, junk: bytes = b"", padding: int = 0) -> Packed:
    """junk: bytes after every block that is compressed, inside its declared size. padding: bytes between the table and
    the first block (types 8, 10, 12, 14)."""
    head = header(kind, len(data))
    if kind == 1:
        return Packed(head + data, b"")
    if kind in INLINE_TYPES:
        return Packed(head + block(kind, data, junk), b"")
    blocks = [block(kind, data[at : at + BLOCK], junk) for at in range(0, len(data), BLOCK)]
    return Packed(head, zlib_fork(blocks) if kind == 4 else offsets_fork(blocks, padding))


def block(kind: int, data: bytes, junk: bytes = b"") -> bytes:
    """One block with its marker, if it is stored."""
    encode, marker = {
        3: (zlib.compress, 0xFF),
        4: (zlib.compress, 0xFF),
        7: (lzvn, 0x06),
        8: (lzvn, 0x06),
        9: (None, 0xCC),
        10: (None, 0xCC),
        11: (lzfse.compress, 0xFF),
        12: (lzfse.compress, 0xFF),
        13: (lzbitmap, 0xFF),
        14: (lzbitmap, 0xFF),
    }[kind]
    if encode is not None:
        packed = encode(data) + junk
        if len(packed) <= len(data):
            return packed
    return bytes([marker]) + data


def zlib_fork(blocks: list[bytes]) -> bytes:
    """The resource fork of type 4: one resource with a table of (offset, size)."""
    offset = 4 + 8 * len(blocks)
    table, body = struct.pack("<I", len(blocks)), b""
    for packed in blocks:
        table += struct.pack("<II", offset + len(body), len(packed))
        body += packed
    content = struct.pack(">I", len(table) + len(body)) + table + body
    head = struct.pack(">IIII", 0x100, 0x100 + len(content), len(content), 50)
    resource_map = struct.pack(">24xHHH4sHHHhII", 28, 50, 0, b"cmpf", 0, 10, 1, -1, 0, 0)
    return head.ljust(0x100, b"\0") + content + resource_map


def offsets_fork(blocks: list[bytes], padding: int = 0) -> bytes:
    """The resource fork of the other types: a table of offsets, one more than there are blocks."""
    offset = 4 * (len(blocks) + 1) + padding
    offsets = [offset]
    for packed in blocks:
        offset += len(packed)
        offsets.append(offset)
    return struct.pack(f"<{len(offsets)}I", *offsets) + bytes(padding) + b"".join(blocks)


def lzvn(data: bytes) -> bytes:
    """LZVN with literals, matches of a new distance and matches of the previous one."""
    out = bytearray()
    seen: dict[bytes, int] = {}
    literals = bytearray()
    at = 0

    def flush() -> None:
        for start in range(0, len(literals), 271):
            run = literals[start : start + 271]
            out.extend((0xE0, len(run) - 16) if len(run) >= 16 else (0xE0 | len(run),))
            out.extend(run)
        literals.clear()

    while at < len(data):
        three = data[at : at + 3]
        back = at - seen.get(three, at)
        seen[three] = at
        if len(three) < 3 or not 0 < back <= 0xFFFF:
            literals.append(data[at])
            at += 1
            continue
        length = 3
        while at + length < len(data) and data[at + length] == data[at + length - back]:
            length += 1
        flush()
        first = min(length, 10)
        out.append((first - 3) << 3 | 7)
        out += back.to_bytes(2, "little")
        at += length
        length -= first
        while length:
            step = min(length, 271)
            out.extend((0xF0, step - 16) if step >= 16 else (0xF0 | step,))
            length -= step
    flush()
    return bytes(out) + b"\x06" + bytes(7)


def lzbitmap(data: bytes) -> bytes:
    """LZBITMAP where a group of 8 bytes is either new or the group before it again."""
    out = b"ZBM\t"
    for start in range(0, len(data), 0x8000):
        part = data[start : start + 0x8000]
        literals, bitmaps = bytearray(), bytearray()
        for at in range(0, len(part), 8):
            group = part[at : at + 8]
            before = data[max(0, start + at - 8) : start + at]
            again = len(before) == 8 and group == before[: len(group)]
            bitmaps.append(0 if again else 0xFF)
            literals += b"" if again else group
        operations = bytes(-(-len(bitmaps) // 2))
        periods_at = 15 + len(literals)
        length = periods_at + len(bitmaps) + len(operations) + 17
        if length >= len(part) + 6:
            out += _u24(len(part) + 6) + _u24(len(part)) + part
            continue
        out += _u24(length) + _u24(len(part)) + _u24(periods_at) + _u24(periods_at) + _u24(periods_at + len(bitmaps))
        out += bytes(literals) + bytes(bitmaps) + operations + bytes(17)
    return out + _u24(6) + _u24(0)


def _u24(value: int) -> bytes:
    return value.to_bytes(3, "little")
