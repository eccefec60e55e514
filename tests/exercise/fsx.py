"""One file under random reads, writes, truncations, appends and shared mappings, beside a bytearray that says what it must
contain. After every operation the file's size and the touched region are compared, every so often all of it.

The idea is that of Apple's fsx (1991); the code is our own. A run is a function of its seed: the same seed makes the same
operations.
"""

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

WHOLE_EVERY = 100
KEPT = 12


class BadData(AssertionError):
    """The file does not contain what was written. The message ends with the last operations."""


class Exercise:
    """path: an existing file, which must contain `content` now. limit: largest size in bytes."""

    def __init__(self, path: Path, content: bytes, seed: int, limit: int = 1 << 20) -> None:
        self.path = path
        self.expected = bytearray(content)
        self.chance = random.Random(seed)
        self.limit = limit
        self.file = os.open(path, os.O_RDWR)
        self.recent: list[str] = []
        self.touched = (0, len(content))

    def run(self, operations: int) -> None:
        """Raises BadData."""
        actions: list[tuple[int, Callable[[], str]]] = [
            (25, self.write),
            (15, self.read),
            (12, self.map_write),
            (10, self.map_read),
            (8, self.shrink),
            (8, self.grow),
            (8, self.append),
            (5, self.write_beyond_end),
            (3, self.reopen),
            (2, self.sync),
            (1, self.empty),
        ]
        weights = [weight for weight, _ in actions]
        try:
            self.compare_all()
            for number in range(operations):
                (_, action), *_ = self.chance.choices(actions, weights)
                self.recent = [*self.recent[-KEPT:], f"{number}: {self.do(action)}"]
                self.compare_size()
                self.compare(*self.touched)
                if number % WHOLE_EVERY == 0:
                    self.compare_all()
            self.reopen()
            self.compare_all()
        finally:
            os.close(self.file)

    def do(self, action: Callable[[], str]) -> str:
        try:
            return action()
        except OSError as error:
            self.fail(f"{action.__name__} ends in {error}")

    # Comparison.

    def compare_size(self) -> None:
        size = os.fstat(self.file).st_size
        if size != len(self.expected):
            self.fail(f"size is {size}, must be {len(self.expected)}")

    def compare(self, start: int, end: int) -> None:
        """The region with a margin, and what is right before the end of the file."""
        start, end = max(0, start - 4096), min(len(self.expected), end + 4096)
        self.check("pread", start, os.pread(self.file, end - start, start), bytes(self.expected[start:end]))

    def compare_all(self) -> None:
        self.compare_size()
        with self.path.open("rb") as file:
            self.check("read", 0, file.read(), bytes(self.expected))

    def check(self, how: str, start: int, found: bytes, expected: bytes) -> None:
        if found == expected:
            return
        where = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        if where is None:
            self.fail(f"{how} at {start:#x} gives {len(found)} bytes, must give {len(expected)}")
        else:
            self.fail(
                f"{how} at {start + where:#x} gives {found[where : where + 16].hex()}, "
                f"must give {expected[where : where + 16].hex()}"
            )

    def fail(self, what: str) -> NoReturn:
        operations = "\n  ".join(self.recent)
        raise BadData(f"{self.path}: {what}. The last operations were:\n  {operations}")

    # Operations. Each does one thing to the file and to `expected`, sets `touched`, and returns what to print of it.

    def region(self, limit: int) -> tuple[int, int]:
        """A random start and length below limit: often small, often at page boundaries, sometimes large."""
        start = self.chance.randrange(limit)
        if self.chance.random() < 0.3:
            start &= ~4095
        length = self.chance.choice(
            [1, 2, 511, 512, 4095, 4096, 4097, 10000, 65536, self.chance.randrange(1, 200000)]
        )
        return start, max(1, min(length, limit - start))

    def put(self, start: int, data: bytes) -> None:
        if start > len(self.expected):
            self.expected.extend(bytes(start - len(self.expected)))
        self.expected[start : start + len(data)] = data
        self.touched = (start, start + len(data))

    def write(self) -> str:
        start, length = self.region(min(self.limit, len(self.expected) + 1))
        data = self.chance.randbytes(length)
        written = os.pwrite(self.file, data, start)
        self.put(start, data[:written])
        return f"write {start:#x} +{length:#x}"

    def write_beyond_end(self) -> str:
        if len(self.expected) >= self.limit:
            return self.shrink()
        start = self.chance.randrange(len(self.expected), self.limit)
        data = self.chance.randbytes(min(5000, self.limit - start))
        self.put(start, data[: os.pwrite(self.file, data, start)])
        self.touched = (min(start, len(self.expected)) - 10000, start + len(data))
        return f"write beyond the end {start:#x} +{len(data):#x}"

    def append(self) -> str:
        data = self.chance.randbytes(self.chance.randrange(1, 9000))
        if len(self.expected) + len(data) > self.limit:
            return self.shrink()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            written = os.write(file, data)
        finally:
            os.close(file)
        self.put(len(self.expected), data[:written])
        return f"append +{len(data):#x}"

    def read(self) -> str:
        if not self.expected:
            return self.grow()
        start, length = self.region(len(self.expected))
        self.check("read", start, os.pread(self.file, length, start), bytes(self.expected[start : start + length]))
        self.touched = (start, start)
        return f"read {start:#x} +{length:#x}"

    def map_read(self) -> str:
        if not self.expected:
            return self.grow()
        start, length = self.region(len(self.expected))
        with mmap.mmap(self.file, len(self.expected), prot=mmap.PROT_READ) as pages:
            found = pages[start : start + length]
        self.check("mapped read", start, found, bytes(self.expected[start : start + length]))
        self.touched = (start, start)
        return f"mapped read {start:#x} +{length:#x}"

    def map_write(self) -> str:
        if not self.expected:
            return self.grow()
        start, length = self.region(len(self.expected))
        data = self.chance.randbytes(length)
        with mmap.mmap(self.file, len(self.expected)) as pages:
            pages[start : start + length] = data
            if self.chance.random() < 0.3:
                pages.flush()
        self.put(start, data)
        return f"mapped write {start:#x} +{length:#x}"

    def resize(self, size: int) -> None:
        os.ftruncate(self.file, size)
        self.touched = (min(size, len(self.expected)) - 10000, size)
        if size < len(self.expected):
            del self.expected[size:]
        else:
            self.expected.extend(bytes(size - len(self.expected)))

    def shrink(self) -> str:
        size = self.chance.randrange(len(self.expected) + 1)
        self.resize(size)
        return f"shrink to {size:#x}"

    def grow(self) -> str:
        size = self.chance.randrange(len(self.expected), self.limit + 1)
        self.resize(size)
        return f"grow to {size:#x}"

    def empty(self) -> str:
        with self.path.open("wb"):
            self.expected.clear()
        self.touched = (0, 0)
        return "open with O_TRUNC"

    def reopen(self) -> str:
        os.close(self.file)
        self.file = os.open(self.path, os.O_RDWR)
        self.touched = (0, 0)
        return "close and open"

    def sync(self) -> str:
        os.fsync(self.file)
        self.touched = (0, 0)
        return "fsync"


def exercise(path: Path, content: bytes, seed: int, operations: int, limit: int = 1 << 20) -> None:
    """Exercises an existing file that must contain `content` now. Raises BadData."""
    Exercise(path, content, seed, limit).run(operations)
