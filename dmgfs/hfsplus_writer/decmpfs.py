"""Files as decmpfs compresses them, in the other direction than `dmgfs.hfsplus.decmpfs`: the value of the attribute, and
the resource fork, block by block.

Rules that hold here:
- blocks are of 64 KiB; one that would not shrink is stored behind a marker;
- small fields are little-endian, the resource fork's own header and map (zlib only) big-endian.
"""

import struct
from typing import NamedTuple

from dmgfs.hfsplus.decmpfs import BLOCK
from dmgfs.hfsplus_writer.scratch import Scratch

LARGEST_FILE = (1 << 32) - 1
"""Bytes; Apple's tools leave larger files as they are, because offsets in the fork have 32 bits."""

_HEADER = struct.Struct("<4sIQ")
_MAP = struct.pack(">24xHHH4sHHHhII", 28, 50, 0, b"cmpf", 0, 10, 1, -1, 0, 0)
"""The map of a resource fork with one resource, `cmpf` 1."""

_DATA = 0x100
_STORED = b"\xff"


class Scheme(NamedTuple):
    """codec: as encoders are called. inline, fork: compression types. offsets: the fork begins with a table of offsets and
    is no real resource fork."""

    codec: str
    inline: int
    fork: int
    offsets: bool


ZLIB = Scheme("zlib", 3, 4, offsets=False)
LZFSE = Scheme("lzfse", 11, 12, offsets=True)


def attribute(kind: int, size: int, payload: bytes = b"") -> bytes:
    """The value of `com.apple.decmpfs` of a file of `size` bytes. payload: an inline type's one block."""
    return _HEADER.pack(b"fpmc", kind, size) + payload


def block_of(data: bytes, packed: bytes) -> bytes:
    """What is kept of a block: packed, or as it is where that is shorter."""
    return packed if len(packed) <= len(data) else _STORED + data


class ForkWriter:
    """Writes the resource fork of a file of `size` bytes into `out`, from `at` on. length: of what is written so far."""

    def __init__(self, scheme: Scheme, size: int, out: Scratch, at: int) -> None:
        count = -(-size // BLOCK)
        self._offsets = scheme.offsets
        self._out = out
        self._at = at
        self._table: list[int] = []
        self._base = 0 if scheme.offsets else _DATA + 4
        self.length = self._base + (4 * (count + 1) if scheme.offsets else 4 + 8 * count)

    def add(self, block: bytes) -> None:
        self._table += (self.length - self._base, len(block))
        self._out.write(self._at + self.length, block)
        self.length += len(block)

    def finish(self) -> None:
        """After the last block."""
        if self._offsets:
            offsets = [*self._table[::2], self.length]
            self._out.write(self._at, struct.pack(f"<{len(offsets)}I", *offsets))
            return
        content = self.length - _DATA
        head = struct.pack(">IIII", _DATA, self.length, content, len(_MAP)).ljust(_DATA, b"\0")
        table = struct.pack(f"<I{len(self._table)}I", len(self._table) // 2, *self._table)
        self._out.write(self._at, head + struct.pack(">I", content - 4) + table)
        self._out.write(self._at + self.length, _MAP)
        self.length += len(_MAP)
