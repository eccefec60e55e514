"""ByteSource: the one shape of everything that can be read. Raw file, decrypted file, UDIF, partition, fork, compressed
file: all are byte sources, and nesting them is how an image is read.

Rules that hold here:
- reads are positional, exact and thread-safe; there are no cursors;
- what a source reads never changes, so everything above may cache it;
- a thread that called `forbid_blocking` (the one that serves FUSE) gets `Cold` instead of a wait. `Cold` carries the
  loads that would make the same read succeed; whoever catches it runs them elsewhere and asks again.
"""

import errno
import os
import stat
import threading
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dmgfs.errors import NotAnImage, OutOfRange

Buffer = bytes | bytearray | memoryview


@dataclass(slots=True, unsafe_hash=True)  # not frozen: that would double the time that making one takes
class Load:
    """One unit of slow work: run it in any thread that may block, then read again. Equal keys are the same work. quick:
    does it in a thread that must not wait, where it takes less time than handing it to another one; raises Cold if it
    would wait after all. None: it takes longer."""

    key: Hashable
    run: Callable[[], object] = field(compare=False)
    quick: Callable[[], object] | None = field(default=None, compare=False)


class Cold(Exception):
    """The read would decode or block, and this thread must not. Control flow, never an error: it does not reach users."""

    def __init__(self, loads: Sequence[Load]) -> None:
        super().__init__(f"{len(loads)} loads needed")
        self.loads = loads


_thread = threading.local()


def forbid_blocking(forbidden: bool = True) -> None:
    """From now on reads in the calling thread raise Cold instead of decoding or waiting for a disk."""
    _thread.forbidden = forbidden


def may_block() -> bool:
    """Whether the calling thread may decode and wait."""
    return not getattr(_thread, "forbidden", False)


class ByteSource(Protocol):
    """`size` bytes, readable anywhere."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> Buffer:
        """Exactly `length` bytes from `offset`. Raises OutOfRange outside [0, size], CorruptImage where the bytes cannot
        be produced, OSError where the disk fails, Cold where this thread must not wait."""
        ...

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        """The loads that a read of this range would need; empty when it would neither decode nor block. Clipped to
        `size`, never raises for a bad range."""
        ...


def check_range(source: ByteSource, offset: int, length: int, layer: str) -> None:
    """Raises OutOfRange unless [offset, offset+length) lies inside the source."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise OutOfRange(layer, f"read of {length} bytes", f"the data ends at {source.size:#x}", offset)


class MemorySource:
    """Bytes in memory as a source: for tests, small decoded values, and journal overlays."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).toreadonly()
        self.size = len(self._view)

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "memory")
        return self._view[offset : offset + length]

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return ()


class FileSource:
    """A regular file, opened once and never written (threats.md U23, U24, S1).

    The descriptor is the identity: the path is not opened again. A read that comes up short means that somebody
    truncated the file underneath us; it raises OSError(EIO).
    """

    # Linux answers RWF_NOWAIT with EAGAIN when the pages are not in memory; other systems have no such question.
    _NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

    def __init__(self, path: str | os.PathLike[str], *, dir_fd: int | None = None, follow: bool = True) -> None:
        self.path = os.fspath(path)
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        self._fd = os.open(self.path, flags, dir_fd=dir_fd)
        status = os.fstat(self._fd)
        if stat.S_ISBLK(status.st_mode):
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        elif stat.S_ISREG(status.st_mode):
            self.size = status.st_size
        else:
            os.close(self._fd)
            raise NotAnImage("not a regular file or block device")
        self._nowait = bool(self._NOWAIT)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "file")
        if length and self._nowait and not may_block():
            data = self._read_without_waiting(offset, length)
            if data is None:
                raise Cold(self.cold(offset, length))
            return data
        return self._read_waiting(offset, length)

    def _read_waiting(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, f"{self.path}: the file became shorter while it was in use")
            data += more
        return data

    def _read_without_waiting(self, offset: int, length: int) -> Buffer | None:
        """The bytes if they are in memory, None if the disk would have to be asked."""
        buffer = bytearray(length)
        try:
            done = os.preadv(self._fd, [buffer], offset, self._NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            self._nowait = False  # this file system cannot say; its reads are short enough to be done inline
            return self._read_waiting(offset, length)
        return buffer if done == length else None

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        """One load for the range unless it can be read at once. Asks nothing of the disk, so it may say cold for warm."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0 or not self._nowait:
            return ()
        return (Load(("file", self._fd, offset, length), lambda: self._read_waiting(offset, length)),)


class SliceSource:
    """A window [start, start+size) of another source: a partition, a wrapped volume."""

    def __init__(self, source: ByteSource, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > source.size:
            raise OutOfRange("slice", f"window of {size} bytes", f"the data ends at {source.size:#x}", start)
        self._source = source
        self.start = start
        self.size = size

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "slice")
        return self._source.read(self.start + offset, length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        return self._source.cold(self.start + offset, length) if offset >= 0 and length > 0 else ()


@dataclass(frozen=True, slots=True)
class Run:
    """`length` bytes of a larger source: from `offset` of `source`, or zeros where `source` is None."""

    source: ByteSource | None
    offset: int
    length: int


class RunSource:
    """Runs laid end to end: forks made of extents, disks made of bands and segments. Lookup by bisection."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = [run for run in runs if run.length > 0]
        self._starts: list[int] = []
        size = 0
        for run in self._runs:
            self._starts.append(size)
            size += run.length
        self.size = size

    def _pieces(self, offset: int, length: int) -> list[tuple[ByteSource | None, int, int]]:
        """(source, offset in it, length) for every run that the range touches."""
        pieces = []
        index = bisect_right(self._starts, offset) - 1
        while length > 0:
            run = self._runs[index]
            skip = offset - self._starts[index]
            step = min(length, run.length - skip)
            pieces.append((run.source, run.offset + skip, step))
            offset += step
            length -= step
            index += 1
        return pieces

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "runs")
        if length == 0:
            return b""
        index = bisect_right(self._starts, offset) - 1
        run = self._runs[index]
        skip = offset - self._starts[index]
        if skip + length <= run.length:
            return bytes(length) if run.source is None else run.source.read(run.offset + skip, length)
        pieces = self._pieces(offset, length)
        try:
            parts = [bytes(size) if source is None else source.read(at, size) for source, at, size in pieces]
        except Cold:
            raise Cold(self.cold(offset, length)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        loads: dict[Load, None] = {}
        for source, at, size in self._pieces(offset, length):
            if source is not None:
                loads.update(dict.fromkeys(source.cold(at, size)))
        return tuple(loads)
