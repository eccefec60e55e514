"""Block tables: the columns made for the many say the same as the runs parsed one by one."""

import struct

import pytest
from builders.udif import checksum
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.container.blocktable import BlockTable
from dmgfs.container.resourcefork import Resource
from dmgfs.container.structs import COMMENT, TERMINATOR
from dmgfs.errors import CorruptImage

SECTORS = 1 << 40
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from((0, 1, 2, 0x80000004, 0x80000005, 0x80000009, 0xFFFFFFFE, COMMENT, TERMINATOR)),
        st.integers(0, (1 << 32) - 1),
        st.integers(0, SECTORS // 2),
        st.integers(0, SECTORS // 2),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
    ),
    max_size=12,
)


def table(entries: list[tuple[int, ...]], start: int = 0, data_offset: int = 0, number: int = 3) -> BlockTable:
    header = struct.pack(
        ">4sIQQQIi24x136sI", b"mish", 1, start, SECTORS, data_offset, 0, 0, checksum(2, b""), len(entries)
    )
    blob = header + b"".join(struct.pack(">II4Q", *entry) for entry in entries)
    return BlockTable(number, Resource("blkx", "0", "name", blob))


@given(ENTRIES, st.integers(0, 1 << 40), st.integers(0, (1 << 64) - 1))
def test_columns_and_runs_agree(entries: list[tuple[int, ...]], start: int, data_offset: int) -> None:
    one = table(entries, start, data_offset)
    runs = list(one.runs())
    columns = one.columns()
    assert [
        (number, kind, first, sectors, offset + data_offset, length)
        for number, kind, first, sectors, offset, length in zip(*columns, strict=True)
    ] == [run[1:] for run in runs]
    assert [one.run(run.number) for run in runs] == runs
    assert all(run.table == 3 for run in runs)


@given(ENTRIES)
def test_runs_end_at_the_terminator(entries: list[tuple[int, ...]]) -> None:
    kinds = [entry[0] for entry in entries]
    end = kinds.index(TERMINATOR) if TERMINATOR in kinds else len(kinds)
    one = table(entries)
    wanted = [n for n, entry in enumerate(entries[:end]) if entry[3] and entry[0] != COMMENT]
    assert [run.number for run in one.runs()] == wanted
    assert bool(one.warnings) == (TERMINATOR not in kinds and bool(kinds))


@pytest.mark.parametrize("kind", [0, 1, 0x80000005, 0xFFFFFFFE])
def test_a_run_must_lie_in_the_table(kind: int) -> None:
    table([(kind, 0, SECTORS - 1, 1, 0, 0)])
    with pytest.raises(CorruptImage, match=r"block table 3 \('name'\): run 1: covers sectors"):
        table([(COMMENT, 0, 1 << 63, 1, 0, 0), (kind, 0, SECTORS - 1, 2, 0, 0)])
