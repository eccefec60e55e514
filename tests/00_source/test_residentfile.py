"""A file on its way into memory: the same bytes before, during and after, and the file let go of at the end."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.container.residentfile import STEP, ResidentFile
from dmgfs.errors import OutOfRange
from dmgfs.source import forbid_blocking

SIZE = 2 * STEP + 4321
DATA = os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    return path


def finish(source: ResidentFile) -> int:
    steps = 0
    while source.step():
        steps += 1
    return steps


def open_files(path: Path) -> int:
    folder = "/proc/self/fd"
    return sum(os.path.realpath(f"{folder}/{name}") == str(path.resolve()) for name in os.listdir(folder))


def test_all_of_it_moves_into_memory_and_the_file_is_closed(path: Path) -> None:
    source = ResidentFile(path)
    source.reserve()
    assert not source.complete
    assert open_files(path) == 1
    assert finish(source) == 3
    assert source.complete
    assert open_files(path) == 0
    path.write_bytes(b"another file")
    assert source.read(0, SIZE) == DATA
    assert source.cold(0, SIZE) == ()
    assert not source.step()
    source.close()


@settings(max_examples=50)
@given(start=st.integers(0, SIZE), length=st.integers(0, SIZE), steps=st.integers(0, 4))
def test_every_read_is_right_at_every_moment(tmp_path_factory, start: int, length: int, steps: int) -> None:
    path = tmp_path_factory.getbasetemp() / "image for every read"
    if not path.exists():
        path.write_bytes(DATA)
    source = ResidentFile(path)
    source.reserve()
    for _ in range(steps):
        source.step()
    length = min(length, SIZE - start)
    assert source.read(start, length) == DATA[start : start + length]
    source.close()


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_ranges_are_checked(path: Path, steps: int) -> None:
    source = ResidentFile(path)
    source.reserve()
    for _ in range(steps):
        source.step()
    for offset, length in ((-1, 1), (0, SIZE + 1), (SIZE, 1), (0, -1)):
        with pytest.raises(OutOfRange):
            source.read(offset, length)
    assert source.cold(SIZE, 1) == source.cold(-1, 5) == ()
    source.close()


def test_what_is_in_memory_is_never_cold(path: Path) -> None:
    source = ResidentFile(path)
    source.reserve()
    source.step()
    forbid_blocking()
    try:
        assert source.cold(0, STEP) == ()
        assert source.read(0, STEP) == DATA[:STEP]
    finally:
        forbid_blocking(False)
    (load,) = source.cold(STEP, 100)
    finish(source)
    load.run()  # queued while it was cold, run when the file is closed
    assert source.cold(STEP, 100) == ()


def test_the_last_reader_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file must not be closed under a read: its number could be another file's by then."""
    source = ResidentFile(path)
    source.reserve()
    inside, go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow(descriptor: int, length: int, offset: int) -> bytes:
        inside.set()
        assert go_on.wait(10)
        return pread(descriptor, length, offset)

    monkeypatch.setattr("dmgfs.source.os.pread", slow)
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append(bytes(source.read(SIZE - 10, 10))))
    reader.start()
    assert inside.wait(10)
    mover = threading.Thread(target=finish, args=(source,))
    mover.start()
    mover.join(0.5)
    assert mover.is_alive(), "the file was closed under the reader"
    assert source.copied == SIZE
    go_on.set()
    mover.join(10)
    reader.join(10)
    assert results == [DATA[-10:]]
    assert source.complete


def test_readers_while_it_moves(path: Path) -> None:
    source = ResidentFile(path)
    source.reserve()
    wrong: list[object] = []

    def read(start: int) -> None:
        try:
            while not source.complete:
                offsets = range(start, SIZE - 5000, 50_021)
                wrong.extend(at for at in offsets if source.read(at, 5000) != DATA[at : at + 5000])
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read, args=(number * 7001,)) for number in range(4)]
    for reader in readers:
        reader.start()
    finish(source)
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_file_that_became_shorter_stays_a_file(path: Path) -> None:
    source = ResidentFile(path)
    source.reserve()
    source.step()
    os.truncate(path, STEP + 10)
    with pytest.raises(OSError, match="became shorter"):
        source.step()
    assert source.copied == STEP
    assert source.read(5, 100) == DATA[5:105]
    with pytest.raises(OSError, match="became shorter"):
        source.read(STEP, 100)
    source.close()


def test_no_room(path: Path) -> None:
    source = ResidentFile(path)
    source.size = 1 << 62
    with pytest.raises(MemoryError, match="no room for"):
        source.reserve()
    source.close()
