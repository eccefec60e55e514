"""Fuzzes the journal's replay. The checksums of the block lists are made right again before each run, or nothing that is
changed would get past them."""

import struct

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.hfsplus import journal

from builders.journal import KILLED, Journal, checksum

from dmgfs.source import MemorySource

SIZE, OFFSET, LENGTH = 0x6000, 0x2000, 0x3000
LISTS = (OFFSET + 512, OFFSET + 512 + 1024 + 1024, OFFSET + 512 + 1024 + 1024 + 1024 + 512)


def one_input(data: bytes) -> None:
    volume = bytearray(data[: 4 * SIZE])
    for order, place in ((order, place) for order in "<>" for place in LISTS):
        if volume[OFFSET + 4 : OFFSET + 8] == struct.pack(order + "I", 0x12345678) and place + 32 <= len(volume):
            volume[place + 8 : place + 12] = bytes(4)
            volume[place + 8 : place + 12] = struct.pack(order + "I", checksum(bytes(volume[place : place + 32])))
    result = journal.replay(MemorySource(volume), journal_info_block=1, block_size=512)
    assert result.source.size == len(volume)
    assert len(result.source.read(0, len(volume))) == len(volume)


def seeds() -> list[bytes]:
    transactions = [
        [(0x1000, b"a" * 1024)],
        [(0x1200, b"b" * 512)],
        [(KILLED, b"c" * 512), (0x5000, b"d" * 512), (0x1000, b"e" * 512)],
    ]
    made = []
    for order, checksums in (("<", True), (">", True), ("<", False)):
        volume = bytearray(SIZE)
        one = Journal(OFFSET, LENGTH, transactions, order, checksums=checksums)
        one.write(volume, 512)
        assert tuple(one.lists_at) == LISTS
        made.append(bytes(volume))
    return made


if __name__ == "__main__":
    fuzz(one_input, seeds())
