"""Volumes with a journal: what waits in it is applied in memory before anything else is read, or not at all."""

import struct

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder, Image
from builders.journal import Journal, Write
from builders.walk import names, opened

SPARE = 80
BLOCK = 512
JOURNALED = 0x2000
UNMOUNTED = 0x100


def volume(*file_names: str) -> Image:
    """A journaled volume with files of these names (of one length each, so that all such volumes are laid out alike)."""
    builder = HfsPlusBuilder(attributes=JOURNALED)
    for name in file_names:
        builder.file(ROOT, name, b"data")
    return builder.build(spare_blocks=SPARE)


def journaled(image: Image, transactions: list[list[Write]], **more: int) -> Image:
    """With a journal in the spare blocks at the end."""
    first = len(image.data) // BLOCK - SPARE - 2
    Journal(offset=(first + 1) * BLOCK, size=(SPARE - 1) * BLOCK, transactions=transactions, **more).write(  # type: ignore[arg-type]
        image.data, first * BLOCK
    )
    image.patch(image.header + 12, ">I", first)
    image.patch(len(image.data) - 1024 + 12, ">I", first)
    return image


def change(old: Image, new: Image) -> list[Write]:
    """The sectors of the catalog that make the new volume of the old."""
    start, size = old.catalog.node(0), sum(count for _, count in old.catalog.extents) * BLOCK
    return [
        (at, bytes(new.data[at : at + BLOCK]))
        for at in range(start, start + size, BLOCK)
        if old.data[at : at + BLOCK] != new.data[at : at + BLOCK]
    ]


def test_a_change_that_waits_is_applied() -> None:
    old, new = volume("before"), volume("behind")
    image = journaled(old, [change(old, new)])
    made = opened(image.data)
    assert names(made) == ["behind"]
    assert (made.info.journal, made.info.clean) == ("replayed", False)
    made = opened(image.data, replay=False)
    assert names(made) == ["before"]
    assert made.info.journal == "dirty"
    assert any("journal" in warning for warning in made.info.warnings)


def test_the_volume_header_is_read_again() -> None:
    image = volume("file")
    header = bytearray(image.data[1024:1536])
    struct.pack_into(">I", header, 48, 3)
    made = opened(journaled(image, [[(1024, bytes(header))]]).data)
    assert made.info.free_blocks == 3


def test_a_journal_that_repairs_the_header() -> None:
    image = volume("file")
    image = journaled(image, [[(1024, bytes(image.data[1024:1536]))]])
    # The journal holds the header from before it knew of the journal's place: what counts is that it is sound again.
    image.patch(image.header, ">H", 0)
    made = opened(image.data)
    assert names(made) == ["file"]
    assert made.info.journal == "replayed"


@pytest.mark.parametrize("garbage", [bytes(BLOCK), b"H+" + b"\xff" * 510])
def test_a_journal_that_would_destroy_the_header_is_dropped(garbage: bytes) -> None:
    old, new = volume("before"), volume("behind")
    last = len(old.data) - 1024
    image = journaled(old, [change(old, new), [(1024, garbage), (last, garbage)]])
    made = opened(image.data)
    assert names(made) == ["before"]
    assert made.info.journal == "ignored"
    assert any("would overwrite the volume header" in warning for warning in made.info.warnings)


@pytest.mark.parametrize(("flags", "status"), [(1, "clean"), (5, "empty"), (2, "external")])
def test_what_the_journal_is(flags: int, status: str) -> None:
    made = opened(journaled(volume("file"), [], flags=flags).data)
    assert made.info.journal == status
    assert names(made) == ["file"]


def test_a_damaged_journal_is_ignored_with_a_warning() -> None:
    old, new = volume("before"), volume("behind")
    image = journaled(old, [change(old, new)])
    image.patch(image.header + 12, ">I", 0xFFFFFFFF)
    made = opened(image.data)
    assert names(made) == ["before"]
    assert made.info.journal == "ignored"
    assert made.info.warnings


def test_without_the_attribute_there_is_no_journal() -> None:
    old, new = volume("before"), volume("behind")
    image = journaled(old, [change(old, new)])
    image.patch(image.header + 4, ">I", UNMOUNTED)
    made = opened(image.data)
    assert names(made) == ["before"]
    assert made.info.journal is None
