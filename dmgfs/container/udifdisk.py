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
from typing import Any

from dmgfs.cache import ChunkCache
from dmgfs.codecs import Decoder, decoder
from dmgfs.container.blocktable import BlockTable, Run
from dmgfs.container.resourcefork import LAYER
from dmgfs.container.structs import CODEC_OF, IGNORE, NAME_OF, RAW, SECTOR, ZERO, type_name
from dmgfs.errors import CorruptImage, DmgError, Unsupported
from dmgfs.source import Buffer, ByteSource, Cold, Load, check_range

MOST_EXPANDED = 512 << 20
_MOST_WARNINGS = 16

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
        most_expanded: int = MOST_EXPANDED,
    ) -> None:
        self._tables = tables
        self._fork = fork
        self._cache = cache
        self._most_expanded = most_expanded
        self._identity = object()  # chunks of several images live in one cache
        self._decoders: list[Decoder | None] = [None, None, None]
        self._codes = {ZERO: _ZERO, IGNORE: _ZERO, RAW: _RAW}
        self._start = array("Q")  # bytes on the virtual disk
        self._length = array("Q")
        self._kind = array("B")
        self._position = array("Q")  # bytes in the fork
        self._stored = array("Q")
        self._table = array("H")
        self._number = array("L")
        self.tallies: dict[str, Tally] = {}
        self.warnings: list[str] = []
        self._faults = 0
        for table in tables:
            for run in table.runs():
                self._add(run)
        if self._faults > _MOST_WARNINGS:
            self.warnings.append(f"{self._faults - _MOST_WARNINGS} more runs cannot be read")
        self._sort()
        self._refuse_overlaps()
        end = self._start[-1] + self._length[-1] if self._start else 0
        self.size = max(sectors * SECTOR, end)
        if sectors and end > sectors * SECTOR:
            self.warnings.append(f"the trailer claims {sectors} sectors, the block tables end at {end // SECTOR}")
        covered = sum(self._length)
        if covered < self.size:
            self.warnings.append(f"{(self.size - covered) // SECTOR} sectors are in no block table and read as zeros")

    def _add(self, run: Run) -> None:
        length = run.sectors * SECTOR
        tally = self.tallies.setdefault(type_name(run.type), Tally())
        tally.runs += 1
        tally.expanded += length
        kind, position, stored = self._code(run.type), 0, 0
        if kind != _ZERO:
            tally.stored += run.length
            position, stored = run.offset, run.length
            fault = self._fault(run)
            if fault is not None:
                self._faults += 1
                if self._faults <= _MOST_WARNINGS:
                    self.warnings.append(str(fault))
                if kind == _RAW:  # what is there can be read
                    position = min(position, self._fork.size)
                    stored = min(stored, self._fork.size - position)
                else:
                    kind, position, stored = _BROKEN, 0, 0
        self._start.append(run.start * SECTOR)
        self._length.append(length)
        self._kind.append(kind)
        self._position.append(position)
        self._stored.append(stored)
        self._table.append(run.table)
        self._number.append(run.number)

    def _code(self, run_type: int) -> int:
        code = self._codes.get(run_type)
        if code is None:
            code = _BROKEN
            if run_type in CODEC_OF:
                code = len(self._decoders)
                self._decoders.append(decoder(CODEC_OF[run_type]))
            self._codes[run_type] = code
        return code

    def _fault(self, run: Run) -> DmgError | None:
        """Why the run, or some of it, cannot be read. Never called for zeros."""
        length = run.sectors * SECTOR
        if run.type not in CODEC_OF and run.type != RAW:
            if run.type in NAME_OF:
                return Unsupported(f"{type_name(run.type)} compression", "it was obsolete before Mac OS X 10.2")
            return self._damage(run, f"is of unknown {type_name(run.type)}")
        wanted = min(run.length, length) if run.type == RAW else run.length
        if run.offset + wanted > self._fork.size:
            end = run.offset + wanted
            return self._damage(
                run, f"ends at {end:#x}, past the data ({self._fork.size:#x}): the image is truncated"
            )
        if run.type == RAW:
            if run.length < length:
                return self._damage(run, f"stores {run.length} raw bytes for {length}")
            return None
        if length > self._most_expanded:
            return self._damage(run, f"expands to {length} bytes, at most {self._most_expanded} are decoded")
        if run.length > 2 * length + (64 << 10):
            return self._damage(run, f"takes {run.length} compressed bytes for {length}")
        return None

    def _sort(self) -> None:
        """By sector. Tables come in order from every known writer, so usually there is nothing to do."""
        start = self._start
        if all(start[i] < start[i + 1] for i in range(len(start) - 1)):
            return
        order = sorted(range(len(start)), key=start.__getitem__)
        for name in ("_start", "_length", "_kind", "_position", "_stored", "_table", "_number"):
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, (column[i] for i in order)))

    def _refuse_overlaps(self) -> None:
        for i in range(len(self._start) - 1):
            if self._start[i] + self._length[i] > self._start[i + 1]:
                one, other = self._title(i), self._title(i + 1)
                raise CorruptImage(
                    LAYER, other, f"begins at sector {self._start[i + 1] // SECTOR}, inside that of {one}"
                )

    def _title(self, index: int) -> str:
        return f"{self._tables[self._table[index]].title}: run {self._number[index]}"

    def _damage(self, run: Run, why: str) -> CorruptImage:
        return CorruptImage(LAYER, f"{self._tables[run.table].title}: run {run.number}", why, run.offset)

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        index = bisect_right(self._start, offset) - 1
        if index >= 0:
            skip = offset - self._start[index]
            if skip + length <= self._length[index]:
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
        index = bisect_right(self._start, offset) - 1
        while length > 0:
            end = self._start[index] + self._length[index] if index >= 0 else 0
            if offset < end:
                size = min(length, end - offset)
                yield index, offset - self._start[index], size
            else:
                size = length
                if index + 1 < len(self._start):
                    size = min(length, self._start[index + 1] - offset)
                if size:
                    yield None, 0, size
            offset += size
            length -= size
            if index + 1 < len(self._start) and offset >= self._start[index + 1]:
                index += 1

    def _part(self, index: int, skip: int, length: int) -> Buffer:
        """Part of one run."""
        kind = self._kind[index]
        if kind > _BROKEN:
            chunk: memoryview = self._cache.get((self._identity, index), lambda: self._decode(index))
            return chunk[skip : skip + length]
        if kind == _ZERO:
            return bytes(length)
        if kind == _RAW and skip + length <= self._stored[index]:
            return self._fork.read(self._position[index] + skip, length)
        fault = self._fault(self._run(index))
        assert fault is not None
        raise fault

    def _run(self, index: int) -> Run:
        return self._tables[self._table[index]].run(self._number[index])

    def _decode(self, index: int) -> memoryview:
        """The whole of a compressed run."""
        decode = self._decoders[self._kind[index]]
        assert decode is not None
        data = self._fork.read(self._position[index], self._stored[index])
        try:
            return memoryview(decode(data, self._length[index])).toreadonly()
        except CorruptImage as error:
            raise self._damage(self._run(index), f"{error.layer}: {error.why}") from error

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        loads: dict[Load, None] = {}
        for index, skip, size in self._pieces(offset, length):
            if index is None:
                continue
            kind = self._kind[index]
            if kind > _BROKEN:
                load = self._cache.load_for((self._identity, index), partial(self._decode, index))
                loads.update(dict.fromkeys(load))
            elif kind == _RAW:
                size = min(size, self._stored[index] - skip)
                loads.update(dict.fromkeys(self._fork.cold(self._position[index] + skip, size)))
        return tuple(loads)
