"""Block tables (`mish`): which sectors of the virtual disk lie where in the data fork, and in which coding.

The entries stay packed as they are on disk: large images have hundreds of thousands. They are checked once, here; what
can only hurt the range it covers (unknown type, pointer outside the file) is left to the one who reads that range.
"""

import sys
from array import array
from collections.abc import Iterator
from itertools import compress
from operator import add
from typing import NamedTuple

from dmgfs.container.resourcefork import LAYER, Resource
from dmgfs.container.structs import (
    COMMENT,
    MISH_SIZE,
    RUN,
    RUN_SIZE,
    SECTOR,
    TERMINATOR,
    Mish,
)
from dmgfs.errors import CorruptImage, Unsupported

MOST_SECTORS = (1 << 63) // SECTOR - 1


class Run(NamedTuple):
    """One entry that covers sectors. table, number: which table, and its place in it. start, sectors: on the virtual disk,
    not relative to the table. offset, length: in the data fork, DataOffset added."""

    table: int
    number: int
    type: int
    start: int
    sectors: int
    offset: int
    length: int


class Columns(NamedTuple):
    """Runs by column. numbers, types: 32 bits. starts (absolute), sectors, offsets (as on disk, DataOffset not added),
    lengths: 64 bits."""

    numbers: "array[int]"
    types: "array[int]"
    starts: "array[int]"
    sectors: "array[int]"
    offsets: "array[int]"
    lengths: "array[int]"


class Checksum(NamedTuple):
    """type: as on disk (0 = none). value: its bytes."""

    type: int
    value: bytes


class BlockTable:
    """One table. number: its place among the tables. start, sectors: what it covers of the disk. data_offset: bytes, added
    to the offset of every run. Raises CorruptImage, Unsupported when it cannot be used."""

    def __init__(self, number: int, resource: Resource) -> None:
        self.number = number
        self.name = resource.name
        self.id = resource.id
        self.warnings: list[str] = []
        data = resource.data
        if len(data) < MISH_SIZE:
            raise self._damage(f"{len(data)} bytes long, its header alone takes {MISH_SIZE}")
        if data[:4] != b"mish":
            raise self._damage(f"starts with {data[:4].hex(' ')}, not with `mish`")
        header = Mish.parse(data)
        if header.Version != 1:
            raise Unsupported(f"UDIF block table version {header.Version}")
        if header.EntryCount * RUN_SIZE > len(data) - MISH_SIZE:
            raise self._damage(
                f"{header.EntryCount} entries claimed, its {len(data)} bytes hold {(len(data) - MISH_SIZE) // RUN_SIZE}"
            )
        self.start: int = header.StartSector
        self.sectors: int = header.SectorCount
        if self.start + self.sectors > MOST_SECTORS:
            raise self._damage(f"sectors {self.start} + {self.sectors} are more than a disk can have")
        self.checksum = read_checksum(header.Checksum)
        self.data_offset: int = header.DataOffset
        self._entries = self._check(data[MISH_SIZE : MISH_SIZE + header.EntryCount * RUN_SIZE])

    def _check(self, entries: bytes) -> bytes:
        """The entries up to the terminator. Every run must lie inside the table's sectors."""
        types = _words(entries, "I")[0::10]
        if TERMINATOR in types:
            entries = entries[: types.index(TERMINATOR) * RUN_SIZE]
        elif entries:
            self.warnings.append(f"{self.title} has no terminator")
        words = _words(entries, "Q")
        if max(map(add, words[1::5], words[2::5]), default=0) > self.sectors:
            for number, (kind, _, start, sectors, _, _) in enumerate(RUN.iter_unpack(entries)):
                if kind != COMMENT and start + sectors > self.sectors:
                    raise CorruptImage(
                        LAYER,
                        f"{self.title}: run {number}",
                        f"covers sectors {start} to {start + sectors}, the table has {self.sectors}",
                    )
        return entries

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"block table {self.number} ({self.name!r})" if self.name else f"block table {self.number}"

    def columns(self) -> "Columns":
        """All runs that cover sectors, in table order: the same as `runs`, for the many."""
        types = _words(self._entries, "I")[0::10]
        words = _words(self._entries, "Q")
        starts, sectors, offsets, lengths = words[1::5], words[2::5], words[3::5], words[4::5]
        numbers = array("I", range(len(types)))
        if COMMENT in types or 0 in sectors:
            used = [count > 0 and kind != COMMENT for kind, count in zip(types, sectors, strict=True)]
            numbers, types, starts, sectors, offsets, lengths = (
                array(column.typecode, compress(column, used))
                for column in (numbers, types, starts, sectors, offsets, lengths)
            )
        if self.start:
            starts = array("Q", map(self.start.__add__, starts))
        return Columns(numbers, types, starts, sectors, offsets, lengths)

    def runs(self) -> Iterator[Run]:
        """The runs that cover sectors, in table order."""
        first, base = self.start, self.data_offset
        for number, (kind, _, start, sectors, offset, length) in enumerate(RUN.iter_unpack(self._entries)):
            if sectors and kind != COMMENT:
                yield Run(self.number, number, kind, first + start, sectors, base + offset, length)

    def run(self, number: int) -> Run:
        kind, _, start, sectors, offset, length = RUN.unpack_from(self._entries, number * RUN_SIZE)
        return Run(self.number, number, kind, self.start + start, sectors, self.data_offset + offset, length)

    def _damage(self, why: str) -> CorruptImage:
        return CorruptImage(LAYER, self.title, why)


def _words(data: bytes, code: str) -> "array[int]":
    """Big-endian words of 32 ("I") or 64 ("Q") bits."""
    words = array(code, data)
    if sys.byteorder == "little":
        words.byteswap()
    return words


def read_checksum(record: object) -> Checksum:
    """A UDIFChecksum as parsed; a record of size 0 or of impossible size is no checksum."""
    kind, bits, value = record.Type, record.Size, record.Value  # type: ignore[attr-defined]
    if kind == 0 or not 0 < bits <= 8 * len(value) or bits % 8:
        return Checksum(0, b"")
    return Checksum(kind, value[: bits // 8])
