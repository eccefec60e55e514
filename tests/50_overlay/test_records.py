"""What a shadow file is made of, byte by byte: records and superblocks come back as they were, and any other bytes are
damage."""

from builders.fault_disk import FaultDisk
from builders.lower_tree import LowerTree
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.change import (
    Cutoff,
    Drop,
    GoBack,
    Inline,
    Item,
    Keep,
    Limit,
    Mark,
    Name,
    Place,
    Put,
    Show,
    Shut,
    Target,
    Unkeep,
    Unname,
    White,
    Xattr,
)
from overlay.errors import ShadowDamaged
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.pages import HOLE, ZERO, Run
from overlay.records import MARK_MAX, Placed, decode, encode, encode_placed
from overlay.superblock import Superblock, decode_superblock, encode_superblock
from overlay.vfs import Attr, run

PAGE = 4096
BASE = {"image": "some"}

U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.binary(max_size=300)
ATTRS = st.builds(Attr, U64, U32, U32, U32, U32, U64, U64, U64, I64, I64, I64, I64)
ITEMS = st.one_of(
    st.builds(Put, ATTRS, U64),
    st.builds(Drop, U64),
    st.builds(Shut, U64),
    st.builds(Name, U64, TEXT, TEXT, U64),
    st.builds(Unname, U64, TEXT),
    st.builds(White, U64, TEXT),
    st.builds(Show, U64, TEXT),
    st.builds(Keep, U64, TEXT),
    st.builds(Unkeep, TEXT),
    st.builds(GoBack, TEXT),
    st.builds(Target, U64, TEXT),
    st.builds(Xattr, U64, TEXT, st.none() | TEXT),
    st.builds(Limit, U64, U64),
    st.builds(Cutoff, U64, U64),
    st.builds(Inline, U64, st.none() | TEXT),
    st.builds(Mark, U64, st.builds(Run, U64, st.sampled_from([HOLE, ZERO]), st.integers(1, MARK_MAX))),
)


@given(st.lists(ITEMS, max_size=8))
def test_items_come_back_as_they_were(items: list[Item]) -> None:
    assert list(decode(b"?" + b"".join(encode(items)), 1)) == items


INODES = st.sampled_from([2, 3, 4, 1 << 32, (1 << 32) + 1, (1 << 64) - 1])
RUNS = st.builds(Run, st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
MODES = st.sampled_from([0, 0o40755, 0o100644, 0o120777])
HOSTILE = st.one_of(
    ITEMS,
    st.builds(Put, st.builds(Attr, INODES, MODES, *[U32] * 4, *[U64] * 2, *[I64] * 4), INODES),
    st.builds(Drop, INODES),
    st.builds(Shut, INODES),
    st.builds(Name, INODES, st.just(b"n"), st.just(b"n"), INODES),
    st.builds(Unname, INODES, st.just(b"n")),
    st.builds(White, INODES, st.just(b"n")),
    st.builds(Show, INODES, st.just(b"n")),
    st.builds(Keep, U64, st.sampled_from([b"one", b"two"])),
    st.builds(Unkeep, st.sampled_from([b"one", b"two"])),
    st.builds(GoBack, st.sampled_from([b"one", b"two"])),
    st.builds(Target, INODES, TEXT),
    st.builds(Xattr, INODES, st.just(b"x"), st.none() | TEXT),
    st.builds(Limit, INODES, U64),
    st.builds(Cutoff, INODES, U64),
    st.builds(Inline, INODES, st.none() | TEXT),
    st.builds(Mark, INODES, st.builds(Run, U64, st.sampled_from([HOLE, ZERO]), st.integers(1, 100))),
    st.builds(lambda ino, run: Placed(Place(ino, run), [0] * run.length, True), INODES, RUNS),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(HOSTILE, max_size=6))
def test_records_that_make_no_sense_are_damage(items: list[Item | Placed]) -> None:
    """A file whose seals are right and whose contents are made up: ShadowDamaged, or a tree that can be looked at."""
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    Overlay(LowerTree(), store)
    body = b"".join(encode_placed(item) if isinstance(item, Placed) else b"".join(encode([item])) for item in items)
    store._append(b"\1" + body, removing=True)
    try:
        tree = Overlay(LowerTree(), FileStore(FaultDisk(bytes(disk.data)), BASE))
    except ShadowDamaged:
        return
    for ino in list(tree._state.tree.nodes):
        run(tree.getattr(ino))
    assert tree._state.tree.weight == tree._state.tree.weigh()


@given(st.integers(0, 1 << 60), st.lists(U32, max_size=20), st.booleans())
def test_places_come_back_with_their_checksums(page: int, sums: list[int], safe: bool) -> None:
    (placed,) = decode(encode_placed(Placed(Place(7, Run(page, 9, len(sums))), sums, safe)), 0)
    assert isinstance(placed, Placed)
    assert (placed.place, list(placed.sums), placed.safe) == ((7, (page, 9, len(sums))), sums, safe)


def test_long_marks_are_cut() -> None:
    items = list(decode(b"".join(encode([Mark(5, Run(10, HOLE, 3 * MARK_MAX + 1))])), 0))
    runs = [item.run for item in items if isinstance(item, Mark)]
    assert [run.length for run in runs] == [MARK_MAX] * 3 + [1]
    assert [run.page for run in runs] == [10 + index * MARK_MAX for index in range(4)]


@given(st.binary(max_size=200))
def test_any_bytes_are_items_or_damage(data: bytes) -> None:
    try:
        list(decode(data, 0))
    except ShadowDamaged:
        pass


@settings(max_examples=50)
@given(U64, U64, U64, U32, st.dictionaries(st.text(max_size=10), st.text(max_size=10) | st.integers(), max_size=5))
def test_superblocks_come_back_and_damage_shows(
    generation: int, log_id: int, slot: int, length: int, base: dict[str, str | int]
) -> None:
    block = Superblock(generation, log_id, slot, length, base)
    data = encode_superblock(block)
    assert len(data) == PAGE
    assert decode_superblock(data) == block
    for index in (20, 40, 100, PAGE - 1):
        assert decode_superblock(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]) is None
