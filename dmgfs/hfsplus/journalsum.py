"""The journal's checksum, for one block and for many at once.

The sum feeds every byte's result into the next, so one block takes a step of the interpreter per byte: 6 MB/s. Many blocks
can share the steps: their sums stand side by side in one large integer, 40 bits each, and each step takes one byte of every
block. That gives some 90 MB/s for the blocks of a real journal, and is what bounds the time that a hostile one can cost.
"""

from collections.abc import Sequence

from dmgfs.source import Buffer

_LANE = 5
"""Bytes per sum: 32 bits, and room for what a step shifts out of them."""
_WORTH_IT = 4
"""Fewer blocks than that are summed one by one."""


def checksum(data: Buffer) -> int:
    """The journal's own 32-bit sum, for headers and blocks alike."""
    return _continue(0, data) ^ 0xFFFFFFFF


def _continue(total: int, data: Buffer) -> int:
    for byte in bytes(data):
        total = ((total << 8) ^ (total + byte)) & 0xFFFFFFFF
    return total


def checksums(blocks: Sequence[Buffer]) -> list[int]:
    """`checksum` of each block, in their order. Takes about three times the memory of the blocks."""
    sums = [0] * len(blocks)
    left = sorted(range(len(blocks)), key=lambda index: len(blocks[index]))  # the shortest ends first
    totals = done = 0
    while len(left) >= _WORTH_IT:
        end = len(blocks[left[0]])
        totals = _step(totals, [blocks[index][done:end] for index in left], end - done)
        done = end
        ended = next((at for at, index in enumerate(left) if len(blocks[index]) > end), len(left))
        for index, total in zip(left[:ended], _taken_apart(totals, len(left)), strict=False):
            sums[index] = total
        totals >>= 8 * _LANE * ended
        del left[:ended]
    for index, total in zip(left, _taken_apart(totals, len(left)), strict=True):
        sums[index] = _continue(total, blocks[index][done:])
    return [total ^ 0xFFFFFFFF for total in sums]


def _taken_apart(totals: int, count: int) -> list[int]:
    lanes = totals.to_bytes(_LANE * count, "little")
    return [int.from_bytes(lanes[at : at + 4], "little") for at in range(0, len(lanes), _LANE)]


def _step(totals: int, parts: Sequence[Buffer], length: int) -> int:
    """The sums of parts of equal length, continued; the first part's lowest."""
    together = b"".join(parts)
    mask = int.from_bytes(b"\xff\xff\xff\xff\0" * len(parts), "little")
    column = bytearray(_LANE * len(parts))
    for position in range(length):
        column[::_LANE] = together[position::length]
        totals = ((totals << 8) ^ (totals + int.from_bytes(column, "little"))) & mask
    return totals
