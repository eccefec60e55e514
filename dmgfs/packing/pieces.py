"""Pieces: a stretch of disk cut into what is zeros and what is not, the rest compressed, by all cores in parallel and in
order.

Rules that hold here:
- reading (which may decode) and compressing happen in worker threads, everything that has an order in the caller's;
- at most `window` chunks are under way, so memory does not depend on the size of the disk;
- whatever goes wrong in a worker is raised where its result is awaited, and nothing more is begun then.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from dmgfs.packing.encoders import Encoder
from dmgfs.source import ByteSource

SECTOR = 512
_MOST_UNDER_WAY = 256 << 20
T = TypeVar("T")


class Piece(NamedTuple):
    """Part of a chunk. length: bytes of disk, whole sectors. data: what they are, None for zeros. packed: the same
    compressed, None where that would not be shorter."""

    length: int
    data: bytes | None
    packed: bytes | None


class Cutting(NamedTuple):
    """How chunks are cut. cell: bytes; zeros are seen in units of this. inside: also between data, not only before and
    after it: right where nothing is compressed, as zeros inside a compressed chunk cost next to nothing."""

    cell: int
    inside: bool
    encode: Encoder | None


def read_pieces(disk: ByteSource, start: int, length: int, cutting: Cutting) -> list[Piece]:
    """The pieces of [start, start+length). What lies past the end of the disk is zeros. Raises what `disk.read` raises."""
    data = bytes(disk.read(start, max(0, min(length, disk.size - start)))).ljust(length, b"\0")
    return [_piece(data, first, end, full, cutting.encode) for first, end, full in _cut(data, cutting)]


def _piece(data: bytes, first: int, end: int, full: bool, encode: Encoder | None) -> Piece:
    if not full:
        return Piece(end - first, None, None)
    part = data[first:end]
    packed = encode(part) if encode is not None else None
    return Piece(len(part), part, packed if packed is not None and len(packed) < len(part) else None)


def _cut(data: bytes, cutting: Cutting) -> list[tuple[int, int, bool]]:
    """(start, end, whether there is anything but zeros) of every piece."""
    cell, size = cutting.cell, len(data)
    zeros = bytes(cell)
    full = [not data.startswith(zeros[: size - at], at) for at in range(0, size, cell)]
    if not cutting.inside and True in full:
        first, last = full.index(True), len(full) - full[::-1].index(True)
        full[first:last] = [True] * (last - first)
    pieces: list[tuple[int, int, bool]] = []
    for number, has_data in enumerate(full):
        end = min(size, (number + 1) * cell)
        if pieces and pieces[-1][2] == has_data:
            pieces[-1] = (pieces[-1][0], end, has_data)
        else:
            pieces.append((number * cell, end, has_data))
    return pieces


def workers_of(wanted: int | None) -> int:
    """How many threads: as many as this process may use cores, unless told."""
    return max(1, len(os.sched_getaffinity(0)) if wanted is None else wanted)


def in_order(jobs: Iterable[Callable[[], T]], workers: int, chunk: int) -> Generator[T, None, None]:
    """The results of the jobs, in their order, each job run in one of `workers` threads. chunk: bytes that a job takes;
    bounds how many are under way. Close the iterator (or exhaust it) to be sure that no job is running any more."""
    window = max(2, min(2 * workers, _MOST_UNDER_WAY // (2 * chunk)))
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pack")
    try:
        for job in jobs:
            if len(pending) >= window:
                yield pending.popleft().result()
            pending.append(pool.submit(job))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
