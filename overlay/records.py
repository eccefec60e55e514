"""The items of a change as bytes: little-endian, one kind byte and fixed fields, then variable parts. The layout is the
shadow file's and may only change together with its version.

`Fill` and `Patch` do not occur: the store has turned them into `Place`, which carries a CRC-32 of every page. Reading
trusts nothing: what does not fit raises ShadowDamaged.
"""

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from overlay.change import (
    Cutoff,
    Drop,
    GoBack,
    Inline,
    Item,
    Keep,
    Limit,
    Mark,
    Name,
    Place,
    Put,
    Show,
    Shut,
    Target,
    Unkeep,
    Unname,
    White,
    Xattr,
)
from overlay.errors import ShadowDamaged
from overlay.pages import HOLE, ZERO, Run
from overlay.vfs import Attr

PUT = struct.Struct("<B Q I I I I Q Q Q q q q q Q".replace(" ", ""))  # attr (ino … btime), parent
INO = struct.Struct("<BQ")
NAME = struct.Struct("<BQQHH")  # parent, ino, length of the key (SAME: it is the name), length of the name
BYTES = struct.Struct("<BQH")  # inode, length
XATTR = struct.Struct("<BQHI")  # inode, length of the name, length of the value (NONE: gone)
NUMBER = struct.Struct("<BQQ")  # inode, limit or page
INLINE = struct.Struct("<BQI")  # inode, length (NONE: outgrown)
RUN = struct.Struct("<BQQII")  # inode, page, slot, length
PLACE = struct.Struct("<BQQIIB")  # inode, page, slot, length, whether the pages are known to be on the medium

MARK_MAX = 4096
"""Pages of one Mark: a few bytes must not stand for any amount of memory."""

SAME = 0xFFFF
NONE = 0xFFFF_FFFF

_KINDS: dict[type, int] = {
    Put: 1, Drop: 2, Name: 3, Unname: 4, White: 5, Shut: 6, Target: 7, Xattr: 8, Limit: 9, Inline: 10, Cutoff: 11, Mark: 12,
    Show: 14, Keep: 15, Unkeep: 16, GoBack: 17,
}  # fmt: skip
_PLACE = 13


class Placed(NamedTuple):
    """A Place as it is recorded. sums: CRC-32 of each page. safe: they were on the medium when this was written."""

    place: Place
    sums: Sequence[int]
    safe: bool


def encode(items: Iterable[Item]) -> list[bytes]:
    """The bytes of items, in parts to be joined."""
    parts: list[bytes] = []
    for item in items:
        writer = _WRITERS.get(type(item))
        if writer is not None:
            writer(parts, item)
    return parts


def encode_placed(placed: Placed) -> bytes:
    ino, run = placed.place
    head = PLACE.pack(_PLACE, ino, run.page, run.slot, run.length, placed.safe)
    return head + struct.pack(f"<{len(placed.sums)}I", *placed.sums)


def _put(parts: list[bytes], item: Put) -> None:
    parts.append(PUT.pack(1, *item.attr, item.parent))


def _ino(parts: list[bytes], item: Drop | Shut) -> None:
    parts.append(INO.pack(_KINDS[type(item)], item.ino))


def _name(parts: list[bytes], item: Name) -> None:
    same = item.key == item.name
    parts.append(NAME.pack(3, item.parent, item.ino, SAME if same else len(item.key), len(item.name)))
    if not same:
        parts.append(item.key)
    parts.append(item.name)


def _bytes(parts: list[bytes], item: Unname | White | Show | Target) -> None:
    parts.append(BYTES.pack(_KINDS[type(item)], item[0], len(item[1])))
    parts.append(item[1])


def _snapshot(parts: list[bytes], item: Keep | Unkeep | GoBack) -> None:
    made_ns = item.made_ns if isinstance(item, Keep) else 0
    parts.append(BYTES.pack(_KINDS[type(item)], made_ns, len(item.name)) + item.name)


def _xattr(parts: list[bytes], item: Xattr) -> None:
    parts.append(XATTR.pack(8, item.ino, len(item.name), NONE if item.value is None else len(item.value)))
    parts.append(item.name + (item.value or b""))


def _number(parts: list[bytes], item: Limit | Cutoff) -> None:
    parts.append(NUMBER.pack(_KINDS[type(item)], item[0], item[1]))


def _inline(parts: list[bytes], item: Inline) -> None:
    parts.append(INLINE.pack(10, item.ino, NONE if item.data is None else len(item.data)))
    parts.append(item.data or b"")


def _mark(parts: list[bytes], item: Mark) -> None:
    page, slot, length = item.run
    parts += (
        RUN.pack(12, item.ino, page + first, slot, min(length - first, MARK_MAX))
        for first in range(0, length, MARK_MAX)
    )


_WRITERS: dict[type, Callable[[list[bytes], Any], None]] = {
    Put: _put, Drop: _ino, Shut: _ino, Name: _name, Unname: _bytes, White: _bytes, Show: _bytes, Target: _bytes,
    Xattr: _xattr, Limit: _number, Cutoff: _number, Inline: _inline, Mark: _mark,
    Keep: _snapshot, Unkeep: _snapshot, GoBack: _snapshot,
}  # fmt: skip


class _Reader:
    """Bytes with a position."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        try:
            fields = layout.unpack_from(self.data, self.offset)
        except struct.error:
            raise ShadowDamaged("a record ends inside of an item") from None
        self.offset += layout.size
        return fields

    def take(self, length: int) -> bytes:
        part = self.data[self.offset : self.offset + length]
        if len(part) < length:
            raise ShadowDamaged("a record ends inside of an item")
        self.offset += length
        return part


def decode(data: bytes, offset: int) -> Iterator[Item | Placed]:
    """The items from `offset` to the end. Raises ShadowDamaged."""
    reader = _Reader(data, offset)
    while reader.offset < len(data):
        read = _READERS.get(data[reader.offset])
        if read is None:
            raise ShadowDamaged(f"unknown item kind {data[reader.offset]}")
        yield read(reader)


def _read_put(reader: _Reader) -> Put:
    _, *fields, parent = reader.fields(PUT)
    return Put(Attr(*fields), parent)


def _read_name(reader: _Reader) -> Name:
    _, parent, ino, key_length, name_length = reader.fields(NAME)
    key = None if key_length == SAME else reader.take(key_length)
    name = reader.take(name_length)
    return Name(parent, name if key is None else key, name, ino)


def _read_bytes(reader: _Reader) -> Item:
    kind, ino, length = reader.fields(BYTES)
    data = reader.take(length)
    return _BYTES[kind](ino, data)


def _read_ino(reader: _Reader) -> Item:
    kind, ino = reader.fields(INO)
    return Drop(ino) if kind == 2 else Shut(ino)


def _read_xattr(reader: _Reader) -> Xattr:
    _, ino, name_length, value_length = reader.fields(XATTR)
    name = reader.take(name_length)
    return Xattr(ino, name, None if value_length == NONE else reader.take(value_length))


def _read_number(reader: _Reader) -> Item:
    kind, ino, number = reader.fields(NUMBER)
    return Limit(ino, number) if kind == 9 else Cutoff(ino, number)


def _read_inline(reader: _Reader) -> Inline:
    _, ino, length = reader.fields(INLINE)
    return Inline(ino, None if length == NONE else reader.take(length))


def _read_mark(reader: _Reader) -> Mark:
    _, ino, page, slot, length = reader.fields(RUN)
    if slot not in (HOLE, ZERO) or not 0 < length <= MARK_MAX:
        raise ShadowDamaged("a page is marked as something unknown")
    return Mark(ino, Run(page, slot, length))


def _read_place(reader: _Reader) -> Placed:
    _, ino, page, slot, length, safe = reader.fields(PLACE)
    sums = array("I", reader.take(4 * length))
    return Placed(Place(ino, Run(page, slot, length)), sums, bool(safe))


_BYTES: dict[int, Callable[[int, bytes], Item]] = {
    4: Unname, 5: White, 7: Target, 14: Show, 15: Keep, 16: lambda _, name: Unkeep(name), 17: lambda _, name: GoBack(name),
}  # fmt: skip
_READERS: dict[int, Callable[[_Reader], Item | Placed]] = {
    1: _read_put, 2: _read_ino, 3: _read_name, 4: _read_bytes, 5: _read_bytes, 6: _read_ino, 7: _read_bytes,
    8: _read_xattr, 9: _read_number, 10: _read_inline, 11: _read_number, 12: _read_mark, 13: _read_place, 14: _read_bytes,
    15: _read_bytes, 16: _read_bytes, 17: _read_bytes,
}  # fmt: skip
