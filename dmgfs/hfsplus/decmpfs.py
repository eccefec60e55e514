"""decmpfs, the transparent compression of macOS: a file whose data fork is empty and whose bytes are in the attribute
`com.apple.decmpfs` (inline types) or, cut into blocks of 64 KiB, in the resource fork (fork types).

Rules that hold here:
- random access: a read decodes the blocks it touches and no others, through the chunk cache; the block table is read in
  pages when it is first needed, never whole;
- the number of blocks follows from the uncompressed size; what the fork says about itself is only checked against it;
- a block gives exactly the bytes it stands for or CorruptImage for that block; its neighbours stay readable. The size
  (`header`) is right even if nothing can be decoded;
- what follows a complete stream inside its block is ignored: Apple's compressors leave junk there.
The header is little-endian, unlike everything else on the volume, and so are the tables inside the fork; the resource
fork's own header (type 4 only) is big-endian.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from dmgfs.cache import ChunkCache
from dmgfs.codecs import inflate, lzbitmap, lzfse, lzvn
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.source import Buffer, ByteSource, Cold, Load, MemorySource, check_range

LAYER = "decmpfs"
BLOCK = 0x10000

_HEADER = struct.Struct("<4sIQ")  # compression_magic, compression_type, uncompressed_size
_MAGIC = b"fpmc"
_LARGEST_FILE = (1 << 63) - 1
# Apple's kernel takes no larger block either: 64 KiB that would not shrink are stored behind one marker byte.
_LARGEST_STORED_BLOCK = BLOCK + 1
# An inline file is decoded in one piece. The attribute holds 3802 bytes at most on macOS, and deflate, the type with a
# known bound, expands by 1032: more than this is a forged size.
_LARGEST_INLINE = 4 << 20

_RESOURCE_HEADER = struct.Struct(">IIII")  # data offset, map offset, data length, map length
_COUNT = struct.Struct("<I")
_ENTRIES_PER_PAGE = 4096


class Header(NamedTuple):
    """type: compression type. uncompressed_size: bytes, what stat shows."""

    type: int
    uncompressed_size: int


class _Scheme(NamedTuple):
    """How one compression type works. decode(packed, size) gives `size` bytes; `stored` are the first bytes of a block
    that is not compressed, with the bits of them that count; `magic`, where there is one, starts every compressed
    block."""

    name: str
    in_fork: bool
    decode: Callable[[Buffer, int], Buffer] | None
    stored: frozenset[int]
    mask: int = 0xFF
    magic: bytes = b""


_FF, _06, _CC, _XF = frozenset({0xFF}), frozenset({0x06}), frozenset({0xCC}), frozenset({0x0F})

_SCHEMES: dict[int, _Scheme] = {
    3: _Scheme("zlib", False, inflate.decode, _XF, 0x0F),
    4: _Scheme("zlib", True, inflate.decode, _XF, 0x0F),
    7: _Scheme("LZVN", False, lzvn.decode, _06),
    8: _Scheme("LZVN", True, lzvn.decode, _06),
    9: _Scheme("stored", False, None, _CC),
    10: _Scheme("stored", True, None, _CC),
    11: _Scheme("LZFSE", False, lzfse.decode, _FF | _06, magic=b"bvx"),
    12: _Scheme("LZFSE", True, lzfse.decode, _FF | _06, magic=b"bvx"),
    13: _Scheme("LZBITMAP", False, lzbitmap.decode, _FF, magic=b"ZBM\x09"),
    14: _Scheme("LZBITMAP", True, lzbitmap.decode, _FF, magic=b"ZBM\x09"),
}
_STORED_WITHOUT_MARKER = 1
_ELSEWHERE = {
    5: "de-duplicated files (decmpfs type 5)",
    0x80000001: "dataless files (decmpfs type 0x80000001)",
    0x80000002: "dataless packages (decmpfs type 0x80000002)",
}


def header(attribute: Buffer) -> Header:
    """Type and size from the value of `com.apple.decmpfs`. Raises CorruptImage if it is no such value."""
    if len(attribute) < _HEADER.size:
        raise CorruptImage(LAYER, "header", f"{len(attribute)} bytes, it takes {_HEADER.size}")
    magic, kind, size = _HEADER.unpack_from(attribute)
    if magic != _MAGIC:
        raise CorruptImage(LAYER, "header", f"magic {magic!r} instead of {_MAGIC!r}", 0)
    if size > _LARGEST_FILE:
        raise CorruptImage(LAYER, "header", f"uncompressed size {size:#x}, no file is so large", 8)
    return Header(kind, size)


def open_compressed(
    attribute: Buffer, resource_fork: ByteSource, cache: ChunkCache[Buffer], key: Hashable
) -> ByteSource:
    """The file's bytes, decompressed as they are read.

    attribute: value of `com.apple.decmpfs`. resource_fork: the file's (size 0 if it has none). key: names the file in
    `cache`. Reads nothing from the volume yet. Raises CorruptImage (sizes that cannot be true), Unsupported (a type
    whose content is not on the volume, or that nobody knows).
    """
    kind, size = header(attribute)
    payload = bytes(attribute[_HEADER.size :])
    if size == 0:
        return MemorySource(b"")
    if kind == _STORED_WITHOUT_MARKER:
        if len(payload) < size:
            raise CorruptImage(LAYER, "stored file", f"{len(payload)} bytes instead of {size}")
        return MemorySource(payload[:size])
    if kind in _ELSEWHERE:
        raise Unsupported(_ELSEWHERE[kind], "the content is not on this volume")
    scheme = _SCHEMES.get(kind)
    if scheme is None:
        raise Unsupported(f"decmpfs type {kind:#x}", "nobody has described it")
    if not scheme.in_fork:
        if size > _LARGEST_INLINE:
            raise CorruptImage(LAYER, "header", f"{size} bytes cannot come from an attribute of {len(attribute)}", 8)
        return _Blocks(_Inline(scheme, payload), size, size, cache, key)
    fork: _Fork
    if kind == 4:
        fork = _ZlibFork(scheme, resource_fork, size, cache, key)
    else:
        fork = _OffsetsFork(scheme, resource_fork, size, cache, key)
    return _Blocks(fork, size, BLOCK, cache, key)


def _unpack(scheme: _Scheme, packed: Buffer, expected: int, structure: str, offset: int) -> Buffer:
    """One block decoded: exactly `expected` bytes or CorruptImage."""
    if len(packed) == 0:
        raise CorruptImage(LAYER, structure, f"no bytes, it stands for {expected}", offset)
    compressed = scheme.decode is not None and bytes(packed[: len(scheme.magic)]) == scheme.magic
    if packed[0] & scheme.mask in scheme.stored:
        if len(packed) - 1 != expected:
            raise CorruptImage(LAYER, structure, f"{len(packed) - 1} stored bytes, it stands for {expected}", offset)
        return bytes(packed[1:])
    if not compressed or scheme.decode is None:
        raise CorruptImage(LAYER, structure, f"first byte {packed[0]:#04x} does not begin {scheme.name} data", offset)
    try:
        return scheme.decode(packed, expected)
    except CorruptImage as error:
        raise CorruptImage(LAYER, structure, f"{scheme.name}: {error.why}", offset) from error


class _Inline:
    """The one block of a file inside its attribute."""

    def __init__(self, scheme: _Scheme, payload: bytes) -> None:
        self._scheme = scheme
        self._payload = payload

    def block(self, index: int, expected: int) -> Buffer:
        return _unpack(self._scheme, self._payload, expected, "inline data", 0)


class _Fork(ABC):
    """Blocks in a resource fork. The two layouts differ in where the table is and what an entry says."""

    def __init__(
        self, scheme: _Scheme, fork: ByteSource, size: int, cache: ChunkCache[Buffer], key: Hashable, overhead: int
    ) -> None:
        self._scheme = scheme
        self._fork = fork
        self._cache = cache
        self._key = key
        self._count = -(-size // BLOCK)
        if overhead > fork.size:
            raise CorruptImage(
                LAYER,
                "block table",
                f"{self._count} blocks for {size} bytes do not fit in a resource fork of {fork.size}",
            )

    def _table(self, index: int) -> tuple[Buffer, int]:
        """The page of the table that has entry `index`, and the entry's number within it."""
        page, entry = divmod(index, _ENTRIES_PER_PAGE)
        return self._cache.get((self._key, "table", page), lambda: bytes(self._load(page))), entry

    @abstractmethod
    def _load(self, page: int) -> Buffer:
        """Page `page` of the table, as `_place` wants it."""

    @abstractmethod
    def _place(self, index: int) -> tuple[int, int]:
        """(start, end) of block `index` in the fork. Checked against the table only."""

    def block(self, index: int, expected: int) -> Buffer:
        structure, offset = f"block {index}", index * BLOCK
        start, end = self._place(index)
        if not 0 <= start <= end <= self._fork.size:
            why = f"bytes {start:#x} to {end:#x} of a resource fork of {self._fork.size:#x}"
            raise CorruptImage(LAYER, structure, why, offset)
        if end - start > _LARGEST_STORED_BLOCK:
            why = f"{end - start} bytes, more than 64 KiB take at most ({_LARGEST_STORED_BLOCK})"
            raise CorruptImage(LAYER, structure, why, offset)
        return _unpack(self._scheme, self._fork.read(start, end - start), expected, structure, offset)


class _ZlibFork(_Fork):
    """Type 4: a real resource fork with one resource, in it a count and (offset, size) pairs, both relative to the
    count."""

    _ENTRY = struct.Struct("<II")

    def __init__(
        self, scheme: _Scheme, fork: ByteSource, size: int, cache: ChunkCache[Buffer], key: Hashable
    ) -> None:
        blocks = -(-size // BLOCK)
        overhead = _RESOURCE_HEADER.size + 4 + _COUNT.size + self._ENTRY.size * blocks
        super().__init__(scheme, fork, size, cache, key, overhead)

    def _base(self) -> int:
        """Where the count is: behind the resource's own length."""
        data_offset, _, _, _ = _RESOURCE_HEADER.unpack(self._fork.read(0, _RESOURCE_HEADER.size))
        base: int = data_offset + 4
        if base + _COUNT.size + self._ENTRY.size * self._count > self._fork.size:
            why = f"data at {data_offset:#x}: no room for {self._count} blocks in {self._fork.size:#x} bytes"
            raise CorruptImage(LAYER, "resource fork header", why)
        (count,) = _COUNT.unpack(self._fork.read(base, _COUNT.size))
        if count != self._count:
            raise CorruptImage(LAYER, "block table", f"{count} blocks where the size asks for {self._count}")
        return base

    def _load(self, page: int) -> Buffer:
        """The base, then the page's entries: whoever has a page needs no second look at the header."""
        base = self._base()
        first = page * _ENTRIES_PER_PAGE
        entries = min(_ENTRIES_PER_PAGE, self._count - first) * self._ENTRY.size
        start = base + _COUNT.size + first * self._ENTRY.size
        return base.to_bytes(8, "little") + bytes(self._fork.read(start, entries))

    def _place(self, index: int) -> tuple[int, int]:
        table, entry = self._table(index)
        base = int.from_bytes(table[:8], "little")
        offset, size = self._ENTRY.unpack_from(table, 8 + entry * self._ENTRY.size)
        if offset < _COUNT.size + self._ENTRY.size * self._count:
            raise CorruptImage(LAYER, f"block {index}", f"offset {offset:#x} inside the block table", index * BLOCK)
        return base + offset, base + offset + size


class _OffsetsFork(_Fork):
    """Types 8, 10, 12, 14: a table of offsets at the start of the fork; entry i and i+1 bound block i. Entry 0 may lie
    behind the end of the table (Apple pads it)."""

    _ENTRY = struct.Struct("<I")
    _PAIR = struct.Struct("<II")

    def __init__(
        self, scheme: _Scheme, fork: ByteSource, size: int, cache: ChunkCache[Buffer], key: Hashable
    ) -> None:
        super().__init__(scheme, fork, size, cache, key, self._ENTRY.size * (-(-size // BLOCK) + 1))

    def _load(self, page: int) -> Buffer:
        """One entry more than a page has: the end of its last block."""
        first = page * _ENTRIES_PER_PAGE
        entries = min(_ENTRIES_PER_PAGE, self._count - first) + 1
        return self._fork.read(first * self._ENTRY.size, entries * self._ENTRY.size)

    def _place(self, index: int) -> tuple[int, int]:
        table, entry = self._table(index)
        start, end = self._PAIR.unpack_from(table, entry * self._ENTRY.size)
        if start < self._ENTRY.size * (self._count + 1):
            raise CorruptImage(LAYER, f"block {index}", f"offset {start:#x} inside the block table", index * BLOCK)
        return start, end


class _Blocks:
    """Equal blocks of `step` bytes (the last one shorter) end to end, each decoded when it is read."""

    def __init__(
        self, blocks: _Inline | _Fork, size: int, step: int, cache: ChunkCache[Buffer], key: Hashable
    ) -> None:
        self._blocks = blocks
        self.size = size
        self._step = step
        self._cache = cache
        self._key = key

    def _loader(self, index: int) -> Callable[[], Buffer]:
        expected = min(self._step, self.size - index * self._step)
        return lambda: self._blocks.block(index, expected)

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        if length == 0:
            return b""
        parts: list[Buffer] = []
        try:
            for index in range(offset // self._step, (offset + length - 1) // self._step + 1):
                block = memoryview(self._cache.get((self._key, index), self._loader(index))).toreadonly()
                start = index * self._step
                parts.append(block[max(0, offset - start) : offset + length - start])
        except Cold:
            raise Cold(self.cold(offset, length)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        loads: list[Load] = []
        for index in range(offset // self._step, (offset + length - 1) // self._step + 1):
            loads += self._cache.load_for((self._key, index), self._loader(index))
        return tuple(loads)
