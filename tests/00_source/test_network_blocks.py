"""Blocks against a model: whatever is read, by whatever way it comes, is what the object holds; and neighbours are one
request."""

import time
from concurrent.futures import Future
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.remote import blocks as blocks_module
from dmgfs.remote.blocks import BLOCK, MOST_SPAN, Blocks, runs

COUNT = 40


class Shelf:
    """Keeps some blocks, forgets others."""

    def __init__(self, forgets: set[int]) -> None:
        self.forgets = forgets
        self.blocks: dict[int, bytes] = {}
        self.claimed: set[int] = set()

    def get(self, index: int) -> bytes | None:
        return self.blocks.get(index)

    def put(self, index: int, data: bytes) -> None:
        if index not in self.forgets:
            self.blocks[index] = data

    def has(self, index: int) -> bool:
        return index in self.blocks

    def claim(self, index: int) -> bool:
        assert index not in self.claimed
        self.claimed.add(index)
        return True

    def release(self, index: int) -> None:
        self.claimed.discard(index)


def block(index: int) -> bytes:
    return index.to_bytes(1) * BLOCK


class Server:
    """fails: numbers of the requests that it refuses."""

    def __init__(self, fails: set[int]) -> None:
        self.fails = fails
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, end: int) -> "Future[bytes]":
        self.asked.append((start, end))
        future: Future[bytes] = Future()
        if len(self.asked) in self.fails:
            future.set_exception(OSError(5, "refused"))
        else:
            future.set_result(b"".join(map(block, range(start, end))))
        return future


@settings(max_examples=60, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 6)), max_size=25),
    fails=st.sets(st.integers(1, 12), max_size=4),
    forgets=st.sets(st.integers(0, COUNT)),
    memory=st.integers(1, 10),
)
def test_reads(reads: list[tuple[int, int]], fails: set[int], forgets: set[int], memory: int) -> None:
    server, shelf = Server(fails), Shelf(forgets)
    blocks = Blocks(COUNT, server.fetch, lambda future: future.result(), shelf, memory * BLOCK)
    for first, length in reads:
        last = min(first + length, COUNT)
        try:
            got = blocks.get(first, last)
        except OSError:
            assert fails
            continue
        assert got == [block(index) for index in range(first, last)]
        held = blocks.in_memory(first, last)
        assert held in (None, got)
        assert len(blocks._memory) <= memory
    assert not blocks._flights
    assert blocks._ahead == 0
    server.fails.clear()
    assert blocks.get(0, COUNT) == [block(index) for index in range(COUNT)]
    for _ in range(200):  # what came ahead is stored by another thread
        if not shelf.claimed:
            break
        time.sleep(0.01)
    assert not shelf.claimed
    assert all(data == block(index) for index, data in list(shelf.blocks.items()))


@given(st.sets(st.integers(0, 200)))
def test_runs(numbers: set[int]) -> None:
    found = list(runs(sorted(numbers)))
    assert [number for start, end in found for number in range(start, end)] == sorted(numbers)
    assert all(end - start <= MOST_SPAN for start, end in found)
    for (_, end), (start, _) in pairwise(found):
        assert start > end or len(numbers) > MOST_SPAN


@settings(max_examples=40, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 12)), min_size=1, max_size=5),
    theirs=st.sets(st.integers(0, COUNT)),
    brought=st.sets(st.integers(0, COUNT)),
)
def test_what_others_have_claimed(reads: list[tuple[int, int]], theirs: set[int], brought: set[int]) -> None:
    """Some of it they bring, the rest never comes."""

    class Theirs(Shelf):
        def claim(self, index: int) -> bool:
            if index not in theirs:
                return super().claim(index)
            if index in brought:
                self.blocks[index] = block(index)
            return False

    server = Server(set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "CLAIMED", 0.01)
        patch.setattr(blocks_module, "IMPATIENT", 0.0)
        patch.setattr(blocks_module, "_LOOK", 0.001)
        blocks = Blocks(COUNT, server.fetch, lambda future: future.result(), Theirs(set()))
        for first, length in reads:
            last = min(first + length, COUNT)
            assert blocks.get(first, last) == [block(index) for index in range(first, last)]
    assert not blocks._flights
    asked = [index for start, end in server.asked for index in range(start, end)]
    assert len(asked) == len(set(asked))


def test_neighbours_are_one_request() -> None:
    server = Server(set())
    blocks = Blocks(COUNT, server.fetch, lambda future: future.result(), None)
    blocks.get(10, 11)
    server.asked.clear()
    blocks.get(8, 16)
    assert server.asked[:2] == [(8, 10), (11, 16)]
