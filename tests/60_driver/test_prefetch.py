"""Reading ahead: when it begins, what it asks for, when it stops."""

import pytest

from dmgfs.errors import CorruptImage
from dmgfs.fuse.pool import Flight
from dmgfs.fuse.prefetch import STREAMS_PER_FILE, WINDOW, ReadAhead, Stream
from dmgfs.source import Cold, Load

KIB = 1 << 10
CHUNK = 256 * KIB


class RecordingPool:
    """Takes loads and runs none."""

    def __init__(self) -> None:
        self.queued: list[object] = []
        self.dropped: list[object] = []

    def read_ahead(self, load: Load) -> Flight | None:
        self.queued.append(load.key)
        return Flight(load.key, load.run)

    def drop(self, flight: Flight) -> bool:
        self.dropped.append(flight.key)
        return True


class Chunked:
    """A content in chunks, none of which is in memory."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def cold(self, offset: int, length: int) -> list[Load]:
        assert 0 <= offset < self.size
        assert offset + length <= self.size
        first, last = offset // CHUNK, (offset + length - 1) // CHUNK
        return [Load((self.name, chunk), lambda: None) for chunk in range(first, last + 1)]


@pytest.fixture
def pool():
    return RecordingPool()


def test_one_read_is_no_stream(pool):
    ReadAhead(pool, 64 << 20).note([], Chunked("a", 64 << 20), 0, 128 * KIB)
    assert pool.queued == []


def test_two_consecutive_reads_fetch_a_window(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 64 << 20)
    ahead.note(streams, content, 0, 128 * KIB)
    ahead.note(streams, content, 128 * KIB, 128 * KIB)
    assert pool.queued == [("a", chunk) for chunk in range(1, 1 + WINDOW // CHUNK)]


def test_a_long_read_fetches_every_chunk_once(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 32 << 20)
    for offset in range(0, content.size, 128 * KIB):
        ahead.note(streams, content, offset, 128 * KIB)
    assert pool.queued == [("a", chunk) for chunk in range(1, content.size // CHUNK)]
    assert pool.dropped == []


def test_the_window_ends_with_the_file(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 3 * CHUNK + 5)
    ahead.note(streams, content, 0, 4 * KIB)
    ahead.note(streams, content, 4 * KIB, 4 * KIB)
    assert pool.queued[-1] == ("a", 3)


def test_random_reads_fetch_nothing(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 1 << 30)
    for step in range(200):
        ahead.note(streams, content, (step * 7919 % 1000) * (1 << 20) // 2 * 2, 4 * KIB)
    assert len(streams) <= STREAMS_PER_FILE
    assert len(pool.queued) < 100 * WINDOW // CHUNK


def test_two_interleaved_readers_are_two_streams(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 1 << 30)
    for step in range(4):
        ahead.note(streams, content, step * CHUNK, CHUNK)
        ahead.note(streams, content, (512 << 20) + step * CHUNK, CHUNK)
    assert len(streams) == 2
    assert ("a", 2) in pool.queued
    assert ("a", (512 << 20) // CHUNK + 2) in pool.queued


def test_parts_of_one_read_in_the_wrong_order_stay_one_stream(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 1 << 30)
    for first in range(0, 8, 2):
        ahead.note(streams, content, (first + 1) * 128 * KIB, 128 * KIB)
        ahead.note(streams, content, first * 128 * KIB, 128 * KIB)
    assert len(streams) == 1


def test_a_seek_drops_what_was_queued_once_the_stream_is_out(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 1 << 30)
    ahead.note(streams, content, 0, CHUNK)
    ahead.note(streams, content, CHUNK, CHUNK)
    queued = list(pool.queued)
    for step in range(1, STREAMS_PER_FILE + 1):
        ahead.note(streams, content, step * (16 << 20), 4 * KIB)
    assert pool.dropped == queued


def test_closing_the_file_drops_its_window(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 1 << 30)
    ahead.note(streams, content, 0, CHUNK)
    ahead.note(streams, content, CHUNK, CHUNK)
    ahead.close(streams)
    assert pool.dropped == pool.queued
    assert streams == []


def test_what_is_ahead_in_all_files_stays_in_the_budget(pool):
    budget = 16 << 20
    ahead = ReadAhead(pool, budget)
    handles: list[list[Stream]] = [[] for _ in range(20)]
    for step in range(2):
        for number, streams in enumerate(handles):
            ahead.note(streams, Chunked(str(number), 1 << 30), step * CHUNK, CHUNK)
    outstanding = len(pool.queued) - len(pool.dropped)
    assert outstanding * CHUNK <= budget + CHUNK


@pytest.mark.parametrize("budget", [0, 1])
def test_without_room_nothing_is_read_ahead(pool, budget):
    ahead, streams, content = ReadAhead(pool, budget), [], Chunked("a", 1 << 30)
    for step in range(10):
        ahead.note(streams, content, step * CHUNK, CHUNK)
    assert pool.queued == []


class Unready(Chunked):
    """Where the bytes are is not known yet, or cannot be."""

    def __init__(self, failure: Exception) -> None:
        super().__init__("a", 1 << 30)
        self.failure = failure

    def cold(self, offset: int, length: int) -> list[Load]:
        raise self.failure


def test_what_must_be_read_before_is_read_ahead(pool):
    ahead, streams = ReadAhead(pool, 64 << 20), []
    content = Unready(Cold([Load("extents", lambda: None)]))
    for step in range(2):
        ahead.note(streams, content, step * CHUNK, CHUNK)
    assert pool.queued == ["extents"]


def test_damage_ahead_is_left_to_the_reader(pool):
    ahead, streams = ReadAhead(pool, 64 << 20), []
    content = Unready(CorruptImage("HFS+", "extents", "torn"))
    for step in range(2):
        ahead.note(streams, content, step * CHUNK, CHUNK)
    assert pool.queued == []


def test_small_reads_at_random_places_are_no_stream(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 64 << 20)
    for offset in (0, 400 * KIB, 100 * KIB, 500 * KIB, 9000 * KIB, 8500 * KIB, 20 * KIB):
        ahead.note(streams, content, offset, 4 * KIB)
    assert pool.queued == []


def test_parts_of_one_read_that_arrive_out_of_order_are_a_stream(pool):
    ahead, streams, content = ReadAhead(pool, 64 << 20), [], Chunked("a", 64 << 20)
    for part in (1, 0, 3, 2):
        ahead.note(streams, content, part * 128 * KIB, 128 * KIB)
    assert len(streams) == 1
    assert pool.queued[:2] == [("a", 1), ("a", 2)]
