"""Cutting a disk into zeros and data, in parallel and in order."""

import threading
import time
from contextlib import closing
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage
from dmgfs.packing.pieces import Cutting, in_order, read_pieces
from dmgfs.source import MemorySource

CELL = 1024


def cells() -> st.SearchStrategy[list[int]]:
    """0 for a cell of zeros, else the byte that it ends with."""
    return st.lists(st.one_of(st.just(0), st.integers(1, 255)), max_size=20)


def disk_of(kinds: list[int]) -> bytes:
    return b"".join(bytes(CELL - 1) + bytes([kind]) for kind in kinds)


@given(cells(), st.booleans(), st.integers(0, 1023))
def test_the_pieces_are_the_disk(kinds: list[int], inside: bool, short: int) -> None:
    data = disk_of(kinds)
    length = len(data)
    disk = data[: max(0, length - short)]
    pieces = read_pieces(MemorySource(disk), 0, length, Cutting(CELL, inside, None))
    assert b"".join(piece.data or bytes(piece.length) for piece in pieces) == disk.ljust(length, b"\0")
    assert all(piece.length == len(piece.data) for piece in pieces if piece.data is not None)
    states = [piece.data is None for piece in pieces]
    assert all(one != other for one, other in pairwise(states))
    if not inside:
        assert states.count(False) <= 1


def test_zeros_inside_are_kept_or_cut_out() -> None:
    disk = MemorySource(disk_of([0, 1, 0, 2, 0]))
    lengths = [[p.length for p in read_pieces(disk, 0, disk.size, Cutting(CELL, inside, None))] for inside in (1, 0)]
    assert lengths == [[CELL] * 5, [CELL, 3 * CELL, CELL]]


def test_only_what_became_shorter_is_packed() -> None:
    disk = MemorySource(disk_of([1]))
    for packed, kept in ((b"x" * (CELL - 1), True), (b"x" * CELL, False), (b"x" * 2 * CELL, False)):
        [piece] = read_pieces(disk, 0, CELL, Cutting(CELL, False, lambda data, packed=packed: packed))
        assert (piece.packed == packed) is kept
        assert piece.data == disk.read(0, CELL)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_results_come_in_order_and_few_at_a_time(workers: int) -> None:
    begun = []
    lock = threading.Lock()
    most = 0

    def job(number: int) -> int:
        with lock:
            begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    taken = []
    with closing(in_order((lambda n=n: job(n) for n in range(60)), workers, 1 << 20)) as results:
        for result in results:
            taken.append(result)
            most = max(most, len(begun) - len(taken))
    assert taken == list(range(60))
    assert most <= max(2, 2 * workers)


def test_large_chunks_are_fewer_at_a_time() -> None:
    begun = []
    with closing(in_order((lambda n=n: begun.append(n) for n in range(50)), 16, 64 << 20)) as results:
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 3


def test_an_error_comes_in_its_turn_and_ends_everything() -> None:
    begun = []

    def job(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise CorruptImage("UDIF", "run 5", "damaged")
        return number

    taken = []
    with (
        pytest.raises(CorruptImage, match="run 5"),
        closing(in_order((lambda n=n: job(n) for n in range(1000)), 2, 1 << 20)) as results,
    ):
        taken.extend(iter(lambda: next(results), None))
    assert len(begun) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pack")]
