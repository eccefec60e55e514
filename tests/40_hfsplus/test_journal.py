"""The journal: replay of a real dirty one, of built ones, and what is done with those that cannot be trusted."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.journal import IN_VOLUME, KILLED, NEED_INIT, ON_OTHER_DEVICE, Journal, Write, applied, checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.hfsplus import journal
from dmgfs.source import MemorySource

BLOCK_SIZE = 4096
INFO_BLOCK = 2
SIZE = 1 << 17
OFFSET, LENGTH = 0x8000, 0x4000


def sectors(seed: int, count: int) -> bytes:
    return b"".join(struct.pack("<II", seed, number) * 64 for number in range(count))


TRANSACTIONS: list[list[Write]] = [
    [(1024, sectors(1, 1)), (0x14000, sectors(2, 4))],
    [(0x14400, sectors(3, 2)), (0x1FE00, sectors(4, 1))],
    [(0x10000, sectors(5, 8))],
]


def built(change: Callable[[Journal], None] | None = None, **fields: object) -> tuple[bytearray, Journal]:
    volume = bytearray(b"\xdd" * SIZE)
    made = Journal(OFFSET, LENGTH, TRANSACTIONS, **fields)  # type: ignore[arg-type]
    if change:
        change(made)
    made.write(volume, INFO_BLOCK * BLOCK_SIZE)
    return volume, made


def replay(volume: bytes, apply: bool = True) -> journal.Replay:
    return journal.replay(MemorySource(volume), journal_info_block=INFO_BLOCK, block_size=BLOCK_SIZE, apply=apply)


def content(result: journal.Replay) -> bytes:
    return bytes(result.source.read(0, result.source.size))


@pytest.mark.corpus
def test_real_dirty_journal_brings_back_what_was_zeroed(corpus_image: Callable[[str], Path]) -> None:
    """Its transaction had reached its place already, so replay changes nothing; with the places zeroed it restores them."""
    with corpus_image("ahknight_hfsinspect__test.img").open("rb") as image:
        image.seek(0x5000)
        volume = image.read(25590 * 4096)
    (attributes,), (block,) = struct.unpack_from(">I", volume, 1028), struct.unpack_from(">I", volume, 1036)
    assert attributes & (1 << 13 | 1 << 8) == 1 << 13
    result = journal.replay(MemorySource(volume), journal_info_block=block, block_size=4096)
    assert (result.status, result.warnings) == ("replayed", [])
    assert result.reason == "1 transaction applied in memory (12800 bytes)"
    assert content(result) == volume
    damaged = bytearray(volume)
    # The targets that the journal itself does not need in order to be found: the catalog's nodes.
    targets = [(1024, 512), (4096, 4096), (0x9CC000, 8192)]
    for start, length in targets:
        damaged[start : start + length] = bytes(length)
    result = journal.replay(MemorySource(damaged), journal_info_block=block, block_size=4096)
    assert result.status == "replayed"
    assert content(result) == volume
    assert sum(length for _, length in targets) == 12800


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "start"), [("ahknight_hfsinspect__MBR.dmg", 32256), ("balena-io_etcher__raw.img", 0)]
)
def test_real_journals_with_nothing_in_them(corpus_image: Callable[[str], Path], name: str, start: int) -> None:
    volume = corpus_image(name).read_bytes()[start:]
    (block,), (block_size, total) = struct.unpack_from(">I", volume, 1036), struct.unpack_from(">II", volume, 1064)
    source = MemorySource(volume[: total * block_size])
    result = journal.replay(source, journal_info_block=block, block_size=block_size)
    assert (result.status, result.warnings) == ("clean", [])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("first", [512, LENGTH - 512, LENGTH - 1024, LENGTH - 2048, LENGTH])
@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("magic", [0x4A4E4C78, 0x4A484452])
def test_replay(order: str, first: int, checksums: bool, magic: int) -> None:
    made = Journal(
        OFFSET, LENGTH, TRANSACTIONS, order, 512 if first == LENGTH else first, magic=magic, checksums=checksums
    )
    volume = bytearray(b"\xdd" * SIZE)
    made.write(volume, INFO_BLOCK * BLOCK_SIZE)
    if first == LENGTH:  # the other name of the same place
        end = 512 + sum(1024 + sum(len(data) for _, data in writes) for writes in TRANSACTIONS)
        made.write_header(volume, LENGTH, end)
    before = bytes(volume)
    result = replay(volume)
    assert (result.status, result.warnings) == ("replayed", [])
    assert result.reason.startswith("3 transactions applied")
    assert content(result) == applied(before, TRANSACTIONS)
    assert bytes(volume) == before


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_writes_in_any_order(data: st.DataObject) -> None:
    """Overlapping writes, several to one place, blocks taken back: the end is the same as applying one by one."""
    place = st.integers(0, SIZE // 512 - 1).filter(lambda sector: not (16 <= sector < 96))
    write = st.tuples(st.one_of(place, st.just(KILLED)), st.integers(1, 3), st.integers(0, 1 << 30))
    drawn = data.draw(st.lists(st.lists(write, min_size=1, max_size=4), min_size=1, max_size=3))
    transactions = [
        [
            (KILLED if sector == KILLED else sector * 512, sectors(seed, min(count, max(1, SIZE // 512 - sector))))
            for sector, count, seed in one
        ]
        for one in drawn
    ]
    size = data.draw(st.integers(0, 64)) * 512 + 512 * 48
    made = Journal(
        OFFSET, size, transactions, data.draw(st.sampled_from("<>")), 512 * data.draw(st.integers(1, size // 512 - 1)),
        data.draw(st.sampled_from([512, 1024, 2048])),
    )  # fmt: skip
    volume = bytearray(SIZE)
    made.write(volume, INFO_BLOCK * BLOCK_SIZE)
    result = replay(volume)
    assert (result.status, result.warnings) == ("replayed", [])
    assert content(result) == applied(volume, transactions)
    start, length = data.draw(st.integers(0, SIZE)), data.draw(st.integers(0, 9000))
    length = min(length, SIZE - start)
    assert result.source.read(start, length) == content(result)[start : start + length]


def test_units_larger_than_a_sector() -> None:
    volume = bytearray(SIZE)
    writes: list[list[Write]] = [[(0x14000, sectors(9, 8))]]
    Journal(OFFSET, LENGTH, writes, first=4096, blhdr_size=4096, jhdr_size=4096).write(
        volume, INFO_BLOCK * BLOCK_SIZE
    )
    result = replay(volume)
    assert result.status == "replayed"
    assert content(result) == applied(volume, writes)


def test_not_wanted() -> None:
    volume, _ = built()
    result = replay(volume, apply=False)
    assert result.status == "dirty"
    assert "not applied" in result.warnings[0]
    assert content(result) == volume


def test_clean() -> None:
    volume, made = built()
    for position in (512, 1024, LENGTH):
        made.write_header(volume, position, position)
        assert replay(volume)[1:] == ("clean", "nothing waits in the journal", [])
    made.write_header(volume, LENGTH, 512)
    assert replay(volume).status == "clean"


def test_needs_init_is_not_read() -> None:
    volume, _ = built(flags=IN_VOLUME | NEED_INIT)
    result = replay(volume)
    assert (result.status, result.warnings) == ("empty", [])
    assert content(result) == volume


def test_external() -> None:
    volume, _ = built(flags=ON_OTHER_DEVICE)
    result = replay(volume)
    assert result.status == "external"
    assert "another device" in result.warnings[0]
    assert content(result) == volume


HEADER_DAMAGE = [
    ("magic", 0, 4, 0x4A4E4C79, "magic"),
    ("endian", 4, 4, 0x12345679, "byte order"),
    ("start 0", 8, 8, 0, "start"),
    ("start beyond", 8, 8, LENGTH + 512, "start"),
    ("start odd", 8, 8, 600, "start"),
    ("start huge", 8, 8, (1 << 64) - 512, "start"),
    ("end 0", 16, 8, 0, "end"),
    ("end beyond", 16, 8, LENGTH + 512, "end"),
    ("size", 24, 8, LENGTH + 512, "size"),
    ("size huge", 24, 8, (1 << 64) - 512, "size"),
    ("size 0", 24, 8, 0, "size"),
    ("size odd", 24, 8, LENGTH - 1, "size"),
    ("blhdr_size 0", 32, 4, 0, "blhdr_size"),
    ("blhdr_size odd", 32, 4, 1000, "blhdr_size"),
    ("blhdr_size huge", 32, 4, 0xFFFFFE00, "blhdr_size"),
    ("jhdr_size 0", 40, 4, 0, "jhdr_size"),
    ("jhdr_size odd", 40, 4, 513, "jhdr_size"),
    ("jhdr_size huge", 40, 4, 0xFFFFFE00, "jhdr_size"),
]


@pytest.mark.parametrize(
    ("name", "at", "length", "value", "why"), HEADER_DAMAGE, ids=[row[0] for row in HEADER_DAMAGE]
)
def test_header_that_cannot_be_used(name: str, at: int, length: int, value: int, why: str) -> None:
    volume, _ = built()
    volume[OFFSET + at : OFFSET + at + length] = value.to_bytes(length, "little")
    result = replay(volume)
    assert result.status == "ignored"
    assert why in result.reason
    assert result.warnings[-1] == f"the journal is ignored: {result.reason}"
    assert content(result) == volume


@pytest.mark.parametrize(
    ("flags", "offset", "size"),
    [
        (0, OFFSET, LENGTH),
        (1, SIZE, LENGTH),
        (1, (1 << 64) - 1, LENGTH),
        (1, OFFSET, 1 << 63),
        (1, OFFSET, 0),
        (1, SIZE - 256, 256),
    ],
)
def test_info_block_that_cannot_be_used(flags: int, offset: int, size: int) -> None:
    volume, _ = built()
    at = INFO_BLOCK * BLOCK_SIZE
    volume[at : at + 52] = struct.pack(">I32sQQ", flags, b"", offset, size)
    result = replay(volume)
    assert result.status == "ignored"
    assert content(result) == volume


@pytest.mark.parametrize("block", [0, SIZE // BLOCK_SIZE, 0xFFFFFFFF])
def test_info_block_outside_the_volume(block: int) -> None:
    volume, _ = built()
    result = journal.replay(MemorySource(volume), journal_info_block=block, block_size=BLOCK_SIZE)
    assert result.status == "ignored"
    assert "outside the volume" in result.reason


def test_wrong_header_checksum_is_said_and_tolerated() -> None:
    volume, _ = built()
    volume[OFFSET + 36] ^= 1
    result = replay(volume)
    assert result.status == "replayed"
    assert "checksum" in result.warnings[0]


def resealed(volume: bytearray, at: int) -> None:
    """Makes the checksum of the block list at `at` right again."""
    volume[at + 8 : at + 12] = bytes(4)
    volume[at + 8 : at + 12] = struct.pack("<I", checksum(bytes(volume[at : at + 32])))


LIST_DAMAGE = [
    ("num_blocks 0", 2, 2, 0),
    ("num_blocks beyond room", 2, 2, 64),
    ("num_blocks beyond max", 0, 2, 1),
    ("max_blocks", 0, 2, 0xFFFF),
    ("bytes_used 0", 4, 4, 0),
    ("bytes_used odd", 4, 4, 1025),
    ("bytes_used huge", 4, 4, 0xFFFFFE00),
    ("bytes_used short", 4, 4, 1024),
    ("bnum beyond", 32, 8, SIZE // 512),
    ("bnum huge", 32, 8, (1 << 63) - 1),
    ("bsize 0", 40, 4, 0),
    ("bsize odd", 40, 4, 100),
    ("bsize huge", 40, 4, 0xFFFFFE00),
    ("block checksum", 44, 4, 1),
]


@pytest.mark.parametrize(("name", "at", "length", "value"), LIST_DAMAGE, ids=[row[0] for row in LIST_DAMAGE])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_damage_ends_the_replay_before_its_transaction(
    name: str, at: int, length: int, value: int, number: int
) -> None:
    volume, made = built()
    place = made.lists_at[number]
    volume[place + at : place + at + length] = value.to_bytes(length, "little")
    resealed(volume, place)
    result = replay(volume)
    assert content(result) == applied(volume, TRANSACTIONS[:number])
    if number:
        assert result.status == "replayed"
        assert "then stopped" in result.warnings[0]
    else:
        assert result.status == "ignored"


def test_a_gap_in_the_sequence_numbers_ends_the_replay() -> None:
    volume, made = built()
    volume[made.lists_at[0] + 28 : made.lists_at[0] + 32] = struct.pack("<I", 100)
    resealed(volume, made.lists_at[0])
    result = replay(volume)
    assert content(result) == applied(volume, TRANSACTIONS[:1])
    assert "sequence number 8 after 100" in result.warnings[0]


def test_wrong_checksums_end_the_replay() -> None:
    volume, made = built()
    volume[made.lists_at[1] + 8] ^= 1
    assert content(replay(volume)) == applied(volume, TRANSACTIONS[:1])
    volume, made = built()
    volume[made.blocks_at[3] + 100] ^= 1  # the second block of the second transaction
    result = replay(volume)
    assert content(result) == applied(volume, TRANSACTIONS[:1])
    assert "does not match its checksum" in result.warnings[0]


def test_transactions_that_never_come_to_the_end() -> None:
    volume, made = built()
    made.write_header(volume, 512, 512 + 1024 * 15)
    result = replay(volume)
    assert result.status == "replayed"
    assert "then stopped" in result.warnings[0]
    # A ring full of one valid transaction that repeats itself would go on for ever.
    volume = bytearray(SIZE)
    one = Journal(OFFSET, 512 + 2048 * 3, [[(0x14000, sectors(1, 2))]] * 3, sequence=0)
    one.write(volume, INFO_BLOCK * BLOCK_SIZE)
    for place in one.lists_at:
        volume[place + 28 : place + 32] = bytes(4)
        resealed(volume, place)
    one.write_header(volume, 512, 1024)
    result = replay(volume)
    assert result.status == "replayed"
    assert "do not meet their end" in result.warnings[0]


@given(flips=st.lists(st.integers(0, (LENGTH + 64) * 8 - 1), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_flipped_bits_leave_a_readable_volume(flips: list[int]) -> None:
    volume, _ = built()
    for flip in flips:
        at, bit = divmod(flip, 8)
        at += OFFSET if at < LENGTH else INFO_BLOCK * BLOCK_SIZE - LENGTH
        volume[at] ^= 1 << bit
    result = replay(volume)
    assert result.status in ("clean", "empty", "replayed", "external", "ignored")
    assert len(content(result)) == SIZE


@given(flip=st.integers(0, 16 * 512 * 8 - 1))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_in_a_block_costs_its_transaction_and_those_after_it(flip: int) -> None:
    volume, made = built()
    at, bit = divmod(flip, 8)
    number = 0
    lengths = [len(data) for writes in TRANSACTIONS for _, data in writes]
    while at >= lengths[number]:
        at -= lengths[number]
        number += 1
    volume[made.blocks_at[number] + at] ^= 1 << bit
    before = (0, 0, 1, 1, 2)[number]  # transactions in front of the one that block belongs to
    assert content(replay(volume)) == applied(volume, TRANSACTIONS[:before])
