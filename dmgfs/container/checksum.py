"""UDIF's own checksums: of the stored data fork, of every block table's expanded bytes, and the master checksum.

What they cover was derived from real images: a table's checksum takes its runs in order, zero-fill runs as zeros, and
leaves "ignore" runs out; the master is taken over the tables' checksum values as stored, one after the other. Images by
newer writers carry no data-fork checksum. Nothing here is part of opening an image: it reads every byte.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

from dmgfs.container.blocktable import BlockTable, Checksum, read_checksum
from dmgfs.container.structs import IGNORE, SECTOR, algorithm_name
from dmgfs.errors import DmgError
from dmgfs.source import Buffer, ByteSource

if TYPE_CHECKING:
    from dmgfs.container.segments import Segment
    from dmgfs.container.udif import Udif

_STEP = 1 << 20
_AHEAD = 8  # steps of that size that wait to be looked at
MOST_BYTES = 1 << 44  # nobody waits for more; a hostile table may claim 2^63 zeros

_HASHES = {4: "md5", 6: "sha1", 7: "sha256", 8: "sha384", 9: "sha512"}


@dataclass(frozen=True, slots=True)
class Progress:
    """done, total: bytes of the whole verification. what: the part that is being read."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One checksum. ok: True, False, or None where it cannot be computed (`why` says the reason). expected, actual: hex,
    "" where not known."""

    what: str
    algorithm: str
    ok: bool | None
    expected: str
    actual: str
    why: str = ""


class Digest(Protocol):
    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """CRC-32 as a hashlib-shaped object."""

    def __init__(self) -> None:
        from dmgfs.codecs.crc import crc32

        self._crc32 = crc32
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def new_digest(kind: int) -> Digest | None:
    """A digest of a UDIF checksum type; None for those whose algorithm is not known."""
    if kind == 2:
        return Crc32()
    name = _HASHES.get(kind)
    return hashlib.new(name, usedforsecurity=False) if name else None


def verify(image: "Udif", workers: int | None = None) -> Iterator[Progress | Verdict]:
    """Reads the whole image and yields a Verdict for every checksum it carries, with Progress in between. Data that cannot
    be read makes its verdict False and the rest goes on. `workers` threads decode ahead, by default one for each CPU.
    Must run in a thread that may block. Raises OSError."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, "verify") as pool:
        yield from _verify_parts(image, pool)
    yield from _verify_master(image)


def _verify_parts(image: "Udif", pool: ThreadPoolExecutor) -> Iterator[Progress | Verdict]:
    plan = [_Part.of_segment(segment, len(image.segments) > 1) for segment in image.segments]
    plan += [_Part.of_table(table, image.disk) for table in image.tables]
    plan = [part for part in plan if part.checksum.type]
    total = sum(part.length for part in plan)
    done = 0
    for part in plan:
        digest = new_digest(part.checksum.type)
        if digest is None:
            yield _verdict(part.what, part.checksum, None, "the algorithm is not known")
            continue
        if part.length > MOST_BYTES:
            yield _verdict(part.what, part.checksum, None, f"{part.length} bytes are too many to read")
            continue
        start = done
        try:
            for chunk in _read_ahead(part, pool):
                digest.update(chunk)
                done += len(chunk)
                yield Progress(part.what, done, total)
        except DmgError as error:
            yield _verdict(part.what, part.checksum, None, str(error), broken=True)
        else:
            yield _verdict(part.what, part.checksum, digest.digest())
        done = start + part.length  # what was left out, or could not be read, is behind us too


def _verify_master(image: "Udif") -> Iterator[Verdict]:
    master = read_checksum(image.trailer.koly.MasterChecksum)
    digest = new_digest(master.type)
    if master.type == 0:
        return
    if digest is None:
        yield _verdict("master", master, None, "the algorithm is not known")
        return
    for table in image.tables:
        digest.update(table.checksum.value)
    yield _verdict("master", master, digest.digest())


def _verdict(what: str, checksum: Checksum, actual: bytes | None, why: str = "", broken: bool = False) -> Verdict:
    ok = False if broken else None if actual is None else actual == checksum.value
    return Verdict(what, algorithm_name(checksum.type), ok, checksum.value.hex(), (actual or b"").hex(), why)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one checksum covers: the ranges of `source`, in order. length: bytes, those that are left out included."""

    what: str
    checksum: Checksum
    length: int
    source: ByteSource
    ranges: Callable[[], Iterator[tuple[int, int]]]

    @classmethod
    def of_segment(cls, segment: "Segment", several: bool) -> Self:
        koly = segment.koly
        what = f"data fork of segment {koly.SegmentNumber}" if several else "data fork"
        length: int = koly.DataForkLength
        return cls(what, read_checksum(koly.DataChecksum), length, segment.fork, partial(_steps, 0, length))

    @classmethod
    def of_table(cls, table: BlockTable, disk: ByteSource) -> Self:
        def ranges() -> Iterator[tuple[int, int]]:
            for run in table.runs():
                if run.type != IGNORE:
                    yield from _steps(run.start * SECTOR, run.sectors * SECTOR)

        length = sum(table.columns().sectors) * SECTOR
        return cls(table.title, table.checksum, length, disk, ranges)


def _steps(start: int, length: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, _STEP):
        yield start + at, min(_STEP, length - at)


def _read_ahead(part: _Part, pool: ThreadPoolExecutor) -> Iterator[Buffer]:
    """The part's bytes in order, a few steps read ahead by the pool."""
    waiting: deque[Future[Buffer]] = deque()
    try:
        for offset, length in part.ranges():
            waiting.append(pool.submit(part.source.read, offset, length))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
