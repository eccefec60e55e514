"""The journal's checksum, one block at a time and many together."""

import builders.journal
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.hfsplus.journalsum import checksum, checksums


def test_short_values_by_hand():
    assert checksum(b"") == 0xFFFFFFFF
    assert checksum(b"\x01") == 0xFFFFFFFF ^ 1
    assert checksum(b"\x01\x02") == 0xFFFFFFFF ^ (0x100 ^ 3)
    assert checksum(b"\xff\xff") == 0xFFFFFFFF ^ (0xFF00 ^ 0x1FE)


@given(st.lists(st.binary(max_size=70), max_size=12))
def test_together_as_one_by_one(blocks: list[bytes]):
    assert checksums(blocks) == [builders.journal.checksum(block) for block in blocks]
    assert checksums(blocks) == [checksum(block) for block in blocks]


def test_the_longest_carries():
    blocks = [b"\xff" * 512] * 9 + [bytes(512), b"\xff" * 2048, b"\x80" * 1536]
    assert checksums([memoryview(block) for block in blocks]) == [checksum(block) for block in blocks]
