"""Byte sources: exact, positional, and honest about what is not in memory."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.errors import NotAnImage, OutOfRange
from dmgfs.source import (
    Buffer,
    Cold,
    FileSource,
    Load,
    MemorySource,
    Run,
    RunSource,
    SliceSource,
    forbid_blocking,
    may_block,
)


class SleepingSource:
    """Bytes of which each 10-byte unit must be woken before a thread that must not block can read it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.awake: set[int] = set()

    def read(self, offset: int, length: int) -> Buffer:
        loads = self.cold(offset, length)
        if loads and not may_block():
            raise Cold(loads)
        return self.data[offset : offset + length]

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        units = range(offset // 10, (offset + length + 9) // 10)
        return [Load(("unit", u), lambda u=u: self.awake.add(u)) for u in units if u not in self.awake]


@pytest.fixture
def impatient():
    """The test's thread must not block, as the FUSE thread must not."""
    forbid_blocking()
    yield
    forbid_blocking(False)


def test_file_reads_are_exact_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(range(256)) * 10)
    source = FileSource(path)
    assert source.size == 2560
    assert bytes(source.read(250, 12)) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3, 4, 5])
    assert bytes(source.read(2560, 0)) == b""
    for offset, length in [(2560, 1), (-1, 2), (0, 2561), (5, -1)]:
        with pytest.raises(OutOfRange):
            source.read(offset, length)
    source.close()


def test_a_file_that_shrinks_is_an_io_error_not_short_data(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    source = FileSource(path)
    os.truncate(path, 50)
    with pytest.raises(OSError, match="became shorter"):
        source.read(40, 20)
    source.close()


def test_a_file_that_is_replaced_is_still_the_one_that_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    source = FileSource(path)
    (tmp_path / "another").write_bytes(b"y" * 200)
    os.replace(tmp_path / "another", path)
    assert bytes(source.read(0, 100)) == b"x" * 100
    assert source.size == 100
    source.close()


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises((NotAnImage, IsADirectoryError)):
        FileSource(path)


def test_a_file_in_memory_is_read_without_waiting(tmp_path: Path, impatient: None) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1000)
    source = FileSource(path)
    try:
        data = bytes(source.read(3, 6))
    except Cold as cold:
        cold.loads[0].run()
        data = bytes(source.read(3, 6))
    assert data == b"abcabc"
    source.close()


def test_forbidding_concerns_one_thread_only(impatient: None) -> None:
    seen = []
    thread = threading.Thread(target=lambda: seen.append(may_block()))
    thread.start()
    thread.join()
    assert seen == [True]
    assert not may_block()


def test_slice_is_a_window() -> None:
    window = SliceSource(MemorySource(b"0123456789"), 2, 5)
    assert bytes(window.read(0, 5)) == b"23456"
    with pytest.raises(OutOfRange):
        window.read(4, 2)
    with pytest.raises(OutOfRange):
        SliceSource(MemorySource(b"0123456789"), 8, 3)


@given(st.data())
def test_runs_read_as_their_concatenation(data: st.DataObject) -> None:
    base = bytes(range(256)) * 4
    runs, expected = [], b""
    for _ in range(data.draw(st.integers(0, 8))):
        length = data.draw(st.integers(0, 60))
        if data.draw(st.booleans()):
            offset = data.draw(st.integers(0, len(base) - length))
            runs.append(Run(MemorySource(base), offset, length))
            expected += base[offset : offset + length]
        else:
            runs.append(Run(None, 0, length))
            expected += bytes(length)
    source = RunSource(runs)
    assert source.size == len(expected)
    offset = data.draw(st.integers(0, len(expected)))
    length = data.draw(st.integers(0, len(expected) - offset))
    assert bytes(source.read(offset, length)) == expected[offset : offset + length]
    with pytest.raises(OutOfRange):
        source.read(offset, len(expected) - offset + 1)


def test_cold_names_every_load_of_a_read_once(impatient: None) -> None:
    sleeping = SleepingSource(bytes(range(100)))
    runs = RunSource([Run(sleeping, 0, 15), Run(None, 0, 7), Run(sleeping, 5, 60)])
    with pytest.raises(Cold) as caught:
        runs.read(0, runs.size)
    assert [load.key for load in caught.value.loads] == [("unit", u) for u in range(7)]
    for load in caught.value.loads:
        load.run()
    assert not runs.cold(0, runs.size)
    assert bytes(runs.read(0, runs.size)) == bytes(range(15)) + bytes(7) + bytes(range(5, 65))


def test_cold_is_clipped_and_never_raises() -> None:
    sleeping = SleepingSource(bytes(100))
    for source in (RunSource([Run(sleeping, 0, 100)]), SliceSource(sleeping, 0, 100), MemorySource(b"x")):
        for offset, length in [(-5, 10), (1000, 10), (0, 10**9), (50, -1)]:
            source.cold(offset, length)
