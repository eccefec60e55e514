"""One random sequence of requests for several writable disks that began as the same bytes: what one reads all must read,
and a bytearray as well.

Rules that hold here:
- a trim leaves undefined bytes behind, so what was trimmed is written next; that nothing beside it changed is what is seen;
- a disk that does not know a request gets what means the same: zeros as a write, a trim as nothing.
"""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from exercise.nbd import Nbd

_TRIMS, _ZEROES = 1 << 5, 1 << 6
_LENGTHS = (1, 100, 511, 512, 513, 4095, 4096, 4097, 65_536, 70_000, 300_000)


class Disk(Protocol):
    """What the requests go to. Offsets and lengths in bytes."""

    def read(self, offset: int, length: int) -> bytes: ...
    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None: ...
    def zero(self, offset: int, length: int) -> None: ...
    def trim(self, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def again(self) -> None:
        """Closed and opened anew."""
        ...


class Model:
    """A bytearray."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self.data[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def trim(self, offset: int, length: int) -> None:
        return

    def flush(self) -> None:
        return

    def again(self) -> None:
        return


class OverNbd:
    """Behind any NBD server."""

    def __init__(self, connect: Callable[[], Nbd]) -> None:
        self._connect = connect
        self._client = connect()

    def read(self, offset: int, length: int) -> bytes:
        return self._client.read(offset, length)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self._client.write(offset, data, fua=fua)

    def zero(self, offset: int, length: int) -> None:
        if self._client.flags & _ZEROES:
            self._client.zero(offset, length)
        else:
            self._client.write(offset, bytes(length))

    def trim(self, offset: int, length: int) -> None:
        if self._client.flags & _TRIMS:
            self._client.trim(offset, length)

    def flush(self) -> None:
        self._client.flush()

    def again(self) -> None:
        self._client.flush()
        self._client.close()
        self._client = self._connect()

    def close(self) -> None:
        self._client.close()


class OverFile:
    """A file of that size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        assert os.pwrite(self._descriptor, data, offset) == len(data)
        if fua:
            self.flush()

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def trim(self, offset: int, length: int) -> None:
        return

    def flush(self) -> None:
        os.fdatasync(self._descriptor)

    def again(self) -> None:
        self.close()
        self._descriptor = os.open(self._path, os.O_RDWR)

    def close(self) -> None:
        os.close(self._descriptor)


def compare(disks: Mapping[str, Disk], original: bytes, seed: int, count: int) -> None:
    """Raises AssertionError that names disk, request and seed."""
    source = random.Random(seed)
    model = Model(original)
    everyone: dict[str, Disk] = {**disks, "a bytearray": model}
    size = len(original)

    def place() -> tuple[int, int]:
        length = min(source.choice(_LENGTHS), size)
        start = source.randrange(size - length + 1)
        if source.random() < 0.4:
            start -= start % 4096
        return start, length

    def check(number: int, start: int, length: int) -> None:
        want = model.read(start, length)
        for name, disk in disks.items():
            got = disk.read(start, length)
            if got != want:
                first = next(at for at in range(length) if got[at : at + 1] != want[at : at + 1])
                raise AssertionError(f"seed {seed}, request {number}: {name} differs at {start + first} of {size}")

    for number in range(count):
        what = source.choices(("write", "zero", "trim", "read", "flush", "again"), (40, 12, 8, 35, 4, 1))[0]
        start, length = place()
        data = source.randbytes(length) if source.random() < 0.8 else bytes([source.randrange(256)]) * length
        fua = source.random() < 0.1
        for disk in everyone.values():
            if what == "write":
                disk.write(start, data, fua=fua)
            elif what == "zero":
                disk.zero(start, length)
            elif what == "trim":
                disk.trim(start, length)
                disk.write(start, data)
            elif what == "flush":
                disk.flush()
            elif what == "again":
                disk.again()
        check(number, *(place() if what == "read" else (start, length)))
    for start in range(0, size, 1 << 20):
        check(count, start, min(1 << 20, size - start))
