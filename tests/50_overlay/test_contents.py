"""Bytes: what a write costs, what shows after truncation, what an unchanged file costs (nothing)."""

import errno
import os
import random
from collections.abc import Callable
from stat import S_IMODE

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.refusal import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.contents import INLINE_MAX, MAX_SIZE
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.vfs import Buffer, Steps, run

PAGE = 4096
LARGE = 100 * PAGE + 500
CALLER = Caller()


@pytest.fixture
def lower() -> LowerTree:
    tree = LowerTree()
    tree.add_file(tree.root, b"large", random.Random(1).randbytes(LARGE))
    tree.add_file(tree.root, b"program", b"#!", 0o6755)
    return tree


def file(overlay: Overlay, name: bytes) -> int:
    ino = run(overlay.lookup(2, name)).ino
    run(overlay.open(ino, os.O_RDWR))
    return ino


def new(overlay: Overlay, name: bytes = b"new") -> int:
    return run(overlay.create(2, name, 0o644, os.O_RDWR, CALLER)).ino


def pages(overlay: Overlay, ino: int) -> int:
    changed = overlay._state.tree.file(ino)
    return 0 if changed is None or changed.pages is None else changed.pages.stored


def content(overlay: Overlay, ino: int) -> bytes:
    return bytes(run(overlay.read(ino, 0, 1 << 24)))


def finish(steps: Steps[Buffer], answer: object) -> Buffer:
    """The result of an operation that waits for `answer`."""
    while True:
        try:
            ask = steps.send(answer)
        except StopIteration as end:
            result: Buffer = end.value
            return result
        answer = ask.function(*ask.arguments)


def test_the_first_byte_costs_one_page_and_reads_one_page(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"large")
    run(overlay.write(ino, 50 * PAGE + 7, b"!"))
    assert pages(overlay, ino) == 1
    assert lower.contents[ino].reads == [(50 * PAGE, PAGE)]
    assert overlay._state.store is not None
    assert overlay._state.store.used < PAGE + 2000


def test_whole_pages_are_written_without_asking_the_lower(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"large")
    run(overlay.write(ino, PAGE, b"x" * 3 * PAGE))
    assert lower.contents[ino].reads == []


@pytest.mark.parametrize(
    "change",
    [
        lambda overlay, ino: overlay.write(ino, 99 * PAGE, b"new"),
        lambda overlay, ino: overlay.write(ino, LARGE, b"z" * 500),
        lambda overlay, ino: overlay.setattr(ino, size=99 * PAGE + 7),
    ],
    ids=["write", "append", "truncate"],
)
def test_a_read_that_waited_sees_what_was_done_meanwhile(
    lower: LowerTree, change: Callable[[Overlay, int], Steps[object]]
) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"large")
    reading = overlay.read(ino, 99 * PAGE, 3 * PAGE)
    ask = next(reading)
    answer = ask.function(*ask.arguments)
    run(change(overlay, ino))

    assert bytes(finish(reading, answer)) == content(overlay, ino)[99 * PAGE :]


def test_metadata_changes_copy_nothing(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"large")
    run(overlay.setattr(ino, mode=0o600))
    run(overlay.rename(2, b"large", 2, b"larger"))
    run(overlay.link(ino, 2, b"again"))
    run(overlay.setxattr(ino, b"user.x", b"1"))
    assert overlay._state.tree.file(ino) is None
    assert overlay.plain(ino) is not None
    assert lower.contents[ino].reads == []


def test_truncated_bytes_never_come_back(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"large")
    data = lower.things[ino].data
    run(overlay.setattr(ino, size=5 * PAGE + 11))
    run(overlay.setattr(ino, size=LARGE))
    assert content(overlay, ino) == data[: 5 * PAGE + 11].ljust(LARGE, b"\0")
    run(overlay.write(ino, LARGE - 1, b"!"))
    assert content(overlay, ino) == data[: 5 * PAGE + 11].ljust(LARGE - 1, b"\0") + b"!"
    assert pages(overlay, ino) == 1


def test_the_tail_of_a_cut_page_is_zero_after_growing(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = new(overlay)
    run(overlay.write(ino, 0, b"x" * 2 * PAGE))
    run(overlay.setattr(ino, size=PAGE + 10))
    run(overlay.setattr(ino, size=2 * PAGE))
    assert content(overlay, ino) == b"x" * (PAGE + 10) + bytes(PAGE - 10)


def test_zeros_take_no_page(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = new(overlay)
    run(overlay.write(ino, 0, bytes(64 * PAGE)))
    run(overlay.write(ino, 1 << 40, b"\0"))
    assert pages(overlay, ino) == 0
    run(overlay.write(ino, 10 * PAGE, b"x" * PAGE + bytes(2 * PAGE) + b"y" * PAGE))
    assert pages(overlay, ino) == 2
    run(overlay.write(ino, 10 * PAGE, bytes(PAGE)))
    assert pages(overlay, ino) == 1
    run(overlay.write(ino, 13 * PAGE + 100, bytes(PAGE - 100)))
    assert pages(overlay, ino) == 1
    run(overlay.write(ino, 13 * PAGE, bytes(100)))  # the rest of the page: now all of it is zeros
    assert pages(overlay, ino) == 0
    run(overlay.write(ino, 13 * PAGE, b"y"))
    large = file(overlay, b"large")
    run(overlay.write(large, 0, bytes(LARGE)))
    assert pages(overlay, large) <= 1
    assert content(overlay, large) == bytes(LARGE)
    assert run(overlay.getattr(ino)).blocks == 8


def test_small_files_take_no_page_until_they_outgrow_it(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = new(overlay)
    expected = b""
    for number in range(INLINE_MAX // 100):
        part = b"%099d\n" % number
        run(overlay.write(ino, len(expected), part))
        expected += part
    assert pages(overlay, ino) == 0
    assert content(overlay, ino) == expected
    run(overlay.write(ino, 3 * PAGE, b"far"))
    assert pages(overlay, ino) == 2
    assert content(overlay, ino) == expected.ljust(3 * PAGE, b"\0") + b"far"


def test_a_rewritten_small_file_of_the_image_takes_no_page(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = run(overlay.lookup(2, b"large")).ino
    run(overlay.open(ino, os.O_WRONLY | os.O_TRUNC))
    run(overlay.write(ino, 0, b"short"))
    assert pages(overlay, ino) == 0
    assert content(overlay, ino) == b"short"


def test_a_large_read_of_a_large_write_is_a_view(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 24))
    ino = new(overlay)
    data = os.urandom(1 << 20)
    for offset in range(0, 1 << 20, 1 << 18):
        run(overlay.write(ino, offset, data[offset : offset + (1 << 18)]))
    assert isinstance(run(overlay.read(ino, 4097, 500_000)), memoryview)
    assert content(overlay, ino) == data


def test_space_comes_back_after_the_last_close(lower: LowerTree) -> None:
    store = RamStore(1 << 22)
    overlay = Overlay(lower, store)
    before = store.used
    ino = new(overlay)
    run(overlay.write(ino, 0, os.urandom(1 << 20)))
    run(overlay.unlink(2, b"new"))
    assert len(content(overlay, ino)) == 1 << 20
    assert run(overlay.getattr(ino)).nlink == 0
    assert store.used > 1 << 20
    overlay.release(ino)
    overlay.forget(ino)
    assert store.used <= before + 1000  # the root's changed times


def test_setid_bits_go_when_asked(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = file(overlay, b"program")
    run(overlay.write(ino, 0, b"a"))
    assert S_IMODE(run(overlay.getattr(ino)).mode) == 0o6755
    run(overlay.write(ino, 0, b"b", clear_setid=True))
    assert S_IMODE(run(overlay.getattr(ino)).mode) == 0o755


def test_absurd_sizes_are_refused_and_great_ones_are_sparse(lower: LowerTree) -> None:
    overlay = Overlay(lower, RamStore(1 << 20))
    ino = new(overlay)
    for offset in ((1 << 63) - 1, 1 << 63):
        with refused(errno.EFBIG):
            run(overlay.write(ino, offset, b"x"))
    with refused(errno.EFBIG):
        run(overlay.setattr(ino, size=(1 << 63) - 1))
    run(overlay.setattr(ino, size=999_999_999_999_999))
    run(overlay.write(ino, 999_999_999_999_990, b"x"))
    assert pages(overlay, ino) == 1
    assert run(overlay.read(ino, 1 << 48, 10)) == bytes(10)


@pytest.mark.timeout(20)
def test_cutting_a_great_hole_takes_no_longer_than_a_small_one(lower: LowerTree) -> None:
    """Whatever the size says: a daemon that counted the pages of this one would be gone for ever."""
    store = RamStore(1 << 20)
    overlay = Overlay(lower, store)
    for ino in (new(overlay), file(overlay, b"large")):
        run(overlay.write(ino, 3 * PAGE, b"x" * 2 * PAGE))
        run(overlay.setattr(ino, size=MAX_SIZE))
        run(overlay.write(ino, MAX_SIZE - 1, b"x"))
        assert pages(overlay, ino) == 3
        run(overlay.setattr(ino, size=MAX_SIZE - PAGE))
        assert pages(overlay, ino) == 2
        run(overlay.setattr(ino, size=4 * PAGE + 1))
        assert pages(overlay, ino) == 2
        assert content(overlay, ino)[3 * PAGE :] == b"x" * (PAGE + 1)
        assert run(overlay.getattr(ino)).blocks <= 5 * PAGE // 512


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_writes_and_truncations_read_back(data: st.DataObject) -> None:
    """Positions around page and block borders, against a bytearray; on a file of the image and on a new one."""
    below = random.Random(2).randbytes(70 * PAGE + 100)
    lower = LowerTree()
    lower.add_file(2, b"f", below)
    overlay = Overlay(lower, RamStore(1 << 24))
    near = st.builds(lambda page, by: max(0, page * PAGE + by), st.integers(0, 80), st.integers(-2, 2))
    for ino, model in ((file(overlay, b"f"), bytearray(below)), (new(overlay), bytearray())):
        for _ in range(data.draw(st.integers(1, 12))):
            if data.draw(st.integers(0, 3)):
                start, end = sorted((data.draw(near), data.draw(near)))
                piece = data.draw(st.sampled_from([bytes, os.urandom]))(end - start)
                if piece:
                    run(overlay.write(ino, start, piece))
                    model.extend(bytes(max(0, start - len(model))))
                    model[start:end] = piece
            else:
                size = data.draw(near)
                run(overlay.setattr(ino, size=size))
                del model[size:]
                model.extend(bytes(size - len(model)))
            assert content(overlay, ino) == model
    assert lower.things[3].data == below
