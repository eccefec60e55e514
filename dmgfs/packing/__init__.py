"""Writing disk images: any disk that can be read, as a raw disk, a UDIF of any compression, or a sparse image.

Rules that hold here:
- the same disk and options give the same bytes, whatever the number of threads;
- memory does not depend on the size of the disk;
- the file appears under its name when it is complete and synced, or not at all (`packing.output`);
- nothing is left out: a place of the disk that cannot be read ends the writing with the error that names it.
"""

import os
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dmgfs.packing.output import Output
from dmgfs.packing.pieces import SECTOR, Cutting, Piece, in_order, read_pieces, workers_of
from dmgfs.partitions import PartitionMap
from dmgfs.source import ByteSource

if TYPE_CHECKING:
    from dmgfs.packing.reuse import Reuse

CHUNK = 2048 * SECTOR
"""Bytes that are compressed as one, and the size of a sparse image's band: what Apple's tools use today."""

MOST_CHUNK = 32768 * SECTOR
LEAST_CHUNK = 8 * SECTOR

# What is looked at as a whole when zeros are looked for.
_CELL_OF_PACKED = 64 << 10
_CELL_OF_UDRO = 16 << 10  # every run between zeros costs a table entry
_CELL_OF_RAW = 4 << 10  # a file system's block: smaller holes do not exist


class Format(NamedTuple):
    """title: for people. codec: of the compressed runs, None if nothing is compressed."""

    title: str
    codec: str | None


FORMATS = {
    "raw": Format("the plain disk, zeros as holes", None),
    "udro": Format("UDIF without compression", None),
    "udzo": Format("UDIF, zlib", "zlib"),
    "udbz": Format("UDIF, bzip2", "bzip2"),
    "ulfo": Format("UDIF, LZFSE", "lzfse"),
    "ulmo": Format("UDIF, xz", "xz"),
    "udco": Format("UDIF, ADC", "adc"),
    "sparseimage": Format("sparse image", None),
}
"""What can be written, by the names of hdiutil in small letters."""


class Packed(NamedTuple):
    """What was written. size: of the file, bytes. runs: of a UDIF by type, of a sparse image {"band": number}."""

    size: int
    runs: dict[str, int]


def pack(
    disk: ByteSource,
    path: str | os.PathLike[str],
    format_name: str,
    *,
    layout: PartitionMap | None = None,
    chunk: int = CHUNK,
    level: int | None = None,
    replace: bool = False,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda amount: None,
    reuse: "Reuse | None" = None,
) -> Packed:
    """Writes the disk to `path`.

    format_name: of FORMATS. layout: the disk's partition map, so that a UDIF gets a table for each partition; None: a
    disk without a map. chunk: bytes, whole sectors. level: of the compression. workers: threads (default: all cores).
    advance: is told the bytes of disk that are done. reuse: a UDIF that holds much of the disk, in the same coding.

    A disk that does not end with a sector is filled up with zeros, except for "raw". Raises ValueError for options that do
    not go together, FileExistsError, OSError (the disk is full), and whatever reading the disk raises.
    """
    if not LEAST_CHUNK <= chunk <= MOST_CHUNK or chunk % SECTOR:
        raise ValueError(f"a chunk has {LEAST_CHUNK // SECTOR} to {MOST_CHUNK // SECTOR} sectors")
    codec = FORMATS[format_name].codec
    if codec is None and level is not None:
        raise ValueError(f"{format_name} is not compressed, so it has no levels")
    write = {"raw": _raw, "sparseimage": _sparse}.get(format_name)
    cutting = _cutting(codec, level, chunk)
    with Output(path, replace=replace) as output:
        if write is not None:
            runs = write(disk, output, chunk, workers_of(workers), advance)
        else:
            runs = _udif(disk, output, layout, codec, cutting, chunk, workers_of(workers), advance, reuse)
        output.commit()
        return Packed(output.size, runs)


def _cutting(codec: str | None, level: int | None, chunk: int) -> Cutting:
    if codec is None:
        return Cutting(_CELL_OF_UDRO, True, None)
    from dmgfs.packing.encoders import encoder

    return Cutting(_CELL_OF_PACKED, False, encoder(codec, level, chunk))


def _udif(
    disk: ByteSource,
    output: Output,
    layout: PartitionMap | None,
    codec: str | None,
    cutting: Cutting,
    chunk: int,
    workers: int,
    advance: Callable[[int], None],
    reuse: "Reuse | None",
) -> dict[str, int]:
    from dmgfs.packing.reuse import stretches
    from dmgfs.packing.tables import DEVICE, PARTITION, TablePlan, of_map, whole
    from dmgfs.packing.udif import UdifWriter

    plans = whole(disk) if layout is None else of_map(disk, layout)
    largest = chunk if reuse is None else max(chunk, reuse.largest)
    writer = UdifWriter(output, codec, largest, PARTITION if plans[0].descriptor == -2 else DEVICE)

    def job(plan: TablePlan, at: int, length: int, index: int | None) -> tuple[TablePlan, int, list[Piece]]:
        start = plan.start * SECTOR + at
        if index is not None and reuse is not None:
            again = reuse.piece(disk, start, length, index)
            if again is not None:
                return plan, at, [again]
        return plan, at, read_pieces(disk, start, length, cutting)

    jobs = (
        partial(job, plan, *stretch)
        for plan in plans
        for stretch in stretches(plan.start * SECTOR, plan.sectors * SECTOR, chunk, reuse)
    )
    with closing(in_order(jobs, workers, chunk)) as results:
        for plan, at, pieces in results:
            if at == 0:
                writer.begin(plan)
            writer.add(pieces)
            done = at + sum(piece.length for piece in pieces)
            if done == plan.sectors * SECTOR:
                writer.end()
            advance(done - at)
    writer.finish()
    return writer.runs


def _chunks(
    disk: ByteSource, chunk: int, workers: int, cutting: Cutting
) -> "closing[Generator[list[Piece], None, None]]":
    """The whole disk, chunk by chunk, cut into pieces. The last chunk is as short as it is."""
    lengths = ((at, min(chunk, disk.size - at)) for at in range(0, disk.size, chunk))
    return closing(in_order((partial(read_pieces, disk, *one, cutting) for one in lengths), workers, chunk))


def _raw(
    disk: ByteSource, output: Output, chunk: int, workers: int, advance: Callable[[int], None]
) -> dict[str, int]:
    at = 0
    with _chunks(disk, chunk, workers, Cutting(_CELL_OF_RAW, True, None)) as chunks:
        for pieces in chunks:
            start = at
            for piece in pieces:
                if piece.data is not None:
                    output.write(at, piece.data)
                at += piece.length
            advance(at - start)
    output.extend(disk.size)
    return {}


def _sparse(
    disk: ByteSource, output: Output, chunk: int, workers: int, advance: Callable[[int], None]
) -> dict[str, int]:
    from dmgfs.packing.sparseimage import SparseImageWriter

    writer = SparseImageWriter(output, -(-disk.size // SECTOR), chunk)
    with _chunks(disk, chunk, workers, Cutting(chunk, True, None)) as chunks:
        for pieces in chunks:
            writer.add(pieces)
            advance(sum(piece.length for piece in pieces))
    writer.finish()
    return {"band": writer.stored}
