"""The virtual disk of a UDIF: one sorted list of runs over all block tables, read by bisection.

Rules that hold here:
- compressed runs are decoded whole, once, into the cache given from outside; replies are views of the cached chunk;
- raw runs, which may have any size, are read straight from the file and never cached; zeros are made when asked for;
- sectors that no run covers are zeros; runs that overlap are refused when the image is opened;
- a run that cannot be decoded (unknown coding, pointer outside the file, too large) hurts only who reads it.
Runs are kept in columns: an image of 100 GB has 400,000 of them.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import add, gt
from typing import Any

from dmgfs.cache import ChunkCache
from dmgfs.codecs import Decoder, decoder
from dmgfs.container.blocktable import BlockTable, Run
from dmgfs.container.resourcefork import LAYER
from dmgfs.container.structs import CODEC_OF, IGNORE, NAME_OF, RAW, SECTOR, ZERO, type_name
from dmgfs.errors import CorruptImage, DmgError, Unsupported
from dmgfs.source import Buffer, ByteSource, Cold, Load, check_range

MOST_EXPANDED = 64 << 20
"""Bytes that a compressed run may expand to, where the cache is not larger than that: whoever wants more has the memory."""
RAW_PART = 128 << 10
QUICK = 256 << 10
QUICK_CODECS = ("zlib", "lzfse")
"""So many bytes of these are decoded in less than half a millisecond: not worth a walk to another thread and back."""
_MOST_WARNINGS = 16
_MOST_OVERHEAD = 64 << 10  # of compressed data over twice the expanded size

# Kinds of runs in the column `_kind`; the codecs follow.
_ZERO, _RAW, _BROKEN = 0, 1, 2


@dataclass(slots=True)
class Tally:
    """Of all runs of one type. stored, expanded: bytes."""

    runs: int = 0
    stored: int = 0
    expanded: int = 0


class UdifDisk:
    """size: bytes. fork: the stored bytes that run offsets count from. sectors: what the trailer claims, may be too few.

    Raises CorruptImage for runs that overlap. `warnings` collects what is wrong with single runs, `tallies` counts runs by
    type's name.
    """

    def __init__(
        self,
        tables: Sequence[BlockTable],
        fork: ByteSource,
        sectors: int,
        cache: ChunkCache[Any],
        most_expanded: int | None = None,
    ) -> None:
        self._tables = tables
        self._fork = fork
        self._cache = cache
        self._most_expanded = max(MOST_EXPANDED, cache.budget) if most_expanded is None else most_expanded
        self._identity = object()  # chunks of several images live in one cache
        self._decoders: list[Decoder | None] = [None, None, None]
        self._quick = [False, False, False]  # by kind
        self._codes = {ZERO: _ZERO, IGNORE: _ZERO, RAW: _RAW}
        self._table = array("H")
        self._number = array("I")
        self._kind = array("B")
        self._start = array("Q")  # sectors
        self._sectors = array("Q")
        self._offset = array("Q")  # bytes in the fork, without the table's own offset
        self._stored = array("Q")
        self.tallies: dict[str, Tally] = {}
        self.warnings: list[str] = []
        self._faults = 0
        for table in tables:
            self._add(table)
        if self._faults > _MOST_WARNINGS:
            self.warnings.append(f"{self._faults - _MOST_WARNINGS} more runs cannot be read")
        self._sort()
        self._refuse_overlaps()
        end = self._start[-1] + self._sectors[-1] if self._start else 0
        self.size = max(sectors, end) * SECTOR
        if 0 < sectors < end:
            self.warnings.append(f"the trailer claims {sectors} sectors, the block tables end at {end}")
        covered = sum(self._sectors)
        if covered < max(sectors, end):
            self.warnings.append(f"{max(sectors, end) - covered} sectors are in no block table and read as zeros")

    def _add(self, table: BlockTable) -> None:
        """Appends the table's runs; marks those that cannot be decoded."""
        columns = table.columns()
        kinds = array("B", map(self._code, columns.types))
        fork_end = self._fork.size - table.data_offset
        most = self._most_expanded // SECTOR
        tally = self._tally
        suspects = []
        rows = zip(columns.types, kinds, columns.sectors, columns.offsets, columns.lengths, strict=True)
        for index, (run_type, kind, sectors, offset, length) in enumerate(rows):
            counts = tally(run_type)
            counts.runs += 1
            counts.expanded += sectors * SECTOR
            if kind == _ZERO:
                continue
            counts.stored += length
            # The raw run's wanted bytes are looked at again in `_fault`; everything else is exact.
            if offset + length > fork_end or (
                length != sectors * SECTOR
                if kind == _RAW
                else kind == _BROKEN or sectors > most or length > 2 * sectors * SECTOR + _MOST_OVERHEAD
            ):
                suspects.append(index)
        for index in suspects:
            if kinds[index] != _RAW:  # of a raw run, what is there can be read
                kinds[index] = _BROKEN
            if self._faults >= _MOST_WARNINGS:
                self._faults += 1
            elif (fault := self._fault(table.run(columns.numbers[index]))) is not None:
                self._faults += 1
                self.warnings.append(str(fault))
        self._table.extend(array("H", [table.number]) * len(kinds))
        self._number.extend(columns.numbers)
        self._kind.extend(kinds)
        self._start.extend(columns.starts)
        self._sectors.extend(columns.sectors)
        self._offset.extend(columns.offsets)
        self._stored.extend(columns.lengths)

    def _tally(self, run_type: int) -> Tally:
        name = NAME_OF.get(run_type, "unknown")
        tally = self.tallies.get(name)
        if tally is None:
            tally = self.tallies[name] = Tally()
        return tally

    def _code(self, run_type: int) -> int:
        code = self._codes.get(run_type)
        if code is None:
            if run_type not in CODEC_OF:
                return _BROKEN
            code = self._codes[run_type] = len(self._decoders)
            self._decoders.append(decoder(CODEC_OF[run_type]))
            self._quick.append(CODEC_OF[run_type] in QUICK_CODECS)
        return code

    def _fault(self, run: Run) -> DmgError | None:
        """Why the run, or some of it, cannot be read. Never asked about zeros."""
        length = run.sectors * SECTOR
        if run.type not in CODEC_OF and run.type != RAW:
            if run.type in NAME_OF:
                return Unsupported(f"{type_name(run.type)} compression", "it was obsolete before Mac OS X 10.2")
            return self._damage(run, f"is of unknown {type_name(run.type)}")
        end = run.offset + (min(run.length, length) if run.type == RAW else run.length)
        if end > self._fork.size:
            return self._damage(
                run, f"ends at {end:#x}, past the data ({self._fork.size:#x}): the image is truncated"
            )
        if run.type == RAW:
            return self._damage(run, f"stores {run.length} raw bytes for {length}") if run.length < length else None
        if length > self._most_expanded:
            why = (
                f"expands to {length} bytes, at most {self._most_expanded} are decoded (a larger --cache allows more)"
            )
            return self._damage(run, why)
        if run.length > 2 * length + _MOST_OVERHEAD:
            return self._damage(run, f"takes {run.length} compressed bytes for {length}")
        return None

    def _damage(self, run: Run, why: str) -> CorruptImage:
        return CorruptImage(LAYER, f"{self._tables[run.table].title}: run {run.number}", why, run.offset)

    def _sort(self) -> None:
        """By sector. Tables come in order from every known writer, so usually there is nothing to do."""
        start = self._start
        if not any(map(gt, start, islice(start, 1, None))):
            return
        order = sorted(range(len(start)), key=start.__getitem__)
        for name in ("_table", "_number", "_kind", "_start", "_sectors", "_offset", "_stored"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, map(column.__getitem__, order)))

    def _refuse_overlaps(self) -> None:
        ends = map(add, self._start, self._sectors)
        for index, overlap in enumerate(map(gt, ends, islice(self._start, 1, None))):
            if overlap:
                one, other = self._title(index), self._title(index + 1)
                raise CorruptImage(LAYER, other, f"begins at sector {self._start[index + 1]}, inside that of {one}")

    def _title(self, index: int) -> str:
        return f"{self._tables[self._table[index]].title}: run {self._number[index]}"

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        index = bisect_right(self._start, offset // SECTOR) - 1
        if index >= 0:
            skip = offset - self._start[index] * SECTOR
            if skip + length <= self._sectors[index] * SECTOR:
                return self._part(index, skip, length)
        try:
            return b"".join(
                bytes(size) if index is None else self._part(index, skip, size)
                for index, skip, size in self._pieces(offset, length)
            )
        except Cold:
            raise Cold(self.cold(offset, length)) from None

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int | None, int, int]]:
        """(run or None for a gap, offset in it, length) of everything in the range."""
        following = bisect_right(self._start, offset // SECTOR)
        while length > 0:
            index = following - 1
            skip = offset - self._start[index] * SECTOR if index >= 0 else 0
            left = self._sectors[index] * SECTOR - skip if index >= 0 else 0
            gap = left <= 0
            if gap:
                left = self._start[following] * SECTOR - offset if following < len(self._start) else length
            size = min(length, left)
            if size:
                yield (None, 0, size) if gap else (index, skip, size)
            offset += size
            length -= size
            if following < len(self._start) and offset >= self._start[following] * SECTOR:
                following += 1

    def parts(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(offset, length) on the disk of everything in the range that takes one decode, or one read of RAW_PART bytes
        where it is stored raw; zeros take none."""
        for index, skip, size in self._pieces(offset, length):
            if index is None:
                continue
            start, whole = self._start[index] * SECTOR, self._sectors[index] * SECTOR
            if self._kind[index] > _BROKEN:
                yield start, whole
            elif self._kind[index] == _RAW:
                for at in range(skip - skip % RAW_PART, skip + size, RAW_PART):
                    yield start + at, min(RAW_PART, whole - at)

    def stretches(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """(length, whether the image says that it is zeros) of everything in the range, in order."""
        for index, _, size in self._pieces(offset, length):
            yield size, index is None or self._kind[index] == _ZERO

    def packed_runs(self, run_type: int) -> Iterator[tuple[int, int, int]]:
        """(offset on the disk, length there, index for `packed`) of the runs with this coding, in order."""
        kind = self._codes.get(run_type, _BROKEN)
        for index, its in enumerate(self._kind):
            if its == kind > _BROKEN:
                yield self._start[index] * SECTOR, self._sectors[index] * SECTOR, index

    def stored_runs(self) -> Iterator[tuple[int, int]]:
        """(offset, length) in the data fork of every run that has bytes there."""
        for index, kind in enumerate(self._kind):
            if kind != _ZERO and self._stored[index]:
                yield self._position(index), self._stored[index]

    def packed(self, index: int) -> bytes:
        """A run as it is stored."""
        return bytes(self._fork.read(self._position(index), self._stored[index]))

    def _part(self, index: int, skip: int, length: int) -> Buffer:
        """Part of one run."""
        kind = self._kind[index]
        if kind > _BROKEN:
            chunk: memoryview = self._cache.get(
                (self._identity, index), lambda: self._decode(index), quick=self._is_quick(index)
            )
            return chunk[skip : skip + length]
        if kind == _ZERO:
            return bytes(length)
        if kind == _RAW:
            position = self._position(index) + skip
            if skip + length <= self._stored[index] and position + length <= self._fork.size:
                return self._fork.read(position, length)
        run = self._tables[self._table[index]].run(self._number[index])
        fault = self._fault(run)
        assert fault is not None
        raise fault

    def _is_quick(self, index: int) -> bool:
        return self._quick[self._kind[index]] and self._sectors[index] <= QUICK // SECTOR

    def _position(self, index: int) -> int:
        return self._tables[self._table[index]].data_offset + self._offset[index]

    def _decode(self, index: int) -> memoryview:
        """The whole of a compressed run."""
        decode = self._decoders[self._kind[index]]
        assert decode is not None
        data = self._fork.read(self._position(index), self._stored[index])
        try:
            return memoryview(decode(data, self._sectors[index] * SECTOR)).toreadonly()
        except CorruptImage as error:
            run = self._tables[self._table[index]].run(self._number[index])
            raise self._damage(run, f"{error.layer}: {error.why}") from error

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        loads: list[Load] = []  # all different: a run is one piece
        for index, skip, size in self._pieces(offset, length):
            if index is None:
                continue
            kind = self._kind[index]
            if kind > _BROKEN:
                key = self._identity, index
                loads += self._cache.load_for(key, partial(self._decode, index), quick=self._is_quick(index))
            elif kind == _RAW:
                size = min(size, self._stored[index] - skip)
                loads += self._fork.cold(self._position(index) + skip, size)
        return tuple(loads)
