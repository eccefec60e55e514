"""Builds HFS+ journals: info block, header and transactions, in either byte order, anywhere in the ring.

Written from the format's description, in the other direction than the reader: it shares no code with it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

Write = tuple[int, bytes]
"""Byte of the volume or KILLED, bytes that belong there (multiples of 512)."""

KILLED = -1
"""The target of a block that the writer took back; its bytes are still in the transaction."""
IN_VOLUME, ON_OTHER_DEVICE, NEED_INIT = 1, 2, 4


def checksum(data: bytes) -> int:
    total = 0
    for byte in data:
        total = (total * 256 ^ total + byte) % 2**32
    return 2**32 - 1 - total


@dataclass
class Journal:
    """What is written. offset, size: bytes of the volume. first: where the first transaction begins in the journal.
    Offsets of what was written are kept for tests that damage it: header_at, lists_at, blocks_at (volume bytes)."""

    offset: int
    size: int
    transactions: Sequence[Sequence[Write]]
    order: str = "<"
    first: int = 512
    blhdr_size: int = 1024
    jhdr_size: int = 512
    flags: int = IN_VOLUME
    checksums: bool = True
    sequence: int = 7
    magic: int = 0x4A4E4C78
    lists_at: list[int] = field(default_factory=list)
    blocks_at: list[int] = field(default_factory=list)

    def write(self, volume: bytearray, info_block_at: int) -> None:
        """Puts info block and journal into the volume."""
        info = struct.pack(">I32sQQ", self.flags, b"", self.offset, self.size)
        volume[info_block_at : info_block_at + len(info)] = info
        position = self.first
        for number, writes in enumerate(self.transactions):
            position = self._put(volume, position, self._transaction(writes, number))
        self.write_header(volume, self.first, position)

    def write_header(self, volume: bytearray, start: int, end: int) -> None:
        fields = (self.magic, 0x12345678, start, end, self.size, self.blhdr_size)
        head = struct.pack(self.order + "IIQQQI", *fields)
        tail = struct.pack(self.order + "I", self.jhdr_size)
        total = checksum(head + bytes(4) + tail)
        volume[self.offset : self.offset + 48] = (
            head + struct.pack(self.order + "I", total) + tail + struct.pack(self.order + "I", self.sequence)
        )

    def _transaction(self, writes: Sequence[Write], number: int) -> tuple[bytes, list[bytes]]:
        blocks = [data for _, data in writes]
        used = self.blhdr_size + sum(map(len, blocks))
        infos = struct.pack(self.order + "QII", 0, 0, self.sequence + number)
        for target, data in writes:
            bnum = 2**64 - 1 if target == KILLED else target // self.jhdr_size
            infos += struct.pack(self.order + "QII", bnum, len(data), checksum(data) if self.checksums else 0)
        flags = (1 if self.checksums else 0) | 2
        most = (self.blhdr_size - 16) // 16
        counts = struct.pack(self.order + "HHI", most, len(writes) + 1, used)
        head = counts + bytes(4) + struct.pack(self.order + "I", flags) + infos
        total = struct.pack(self.order + "I", checksum(head[:32]))
        return (head[:8] + total + head[12:]).ljust(self.blhdr_size, b"\0"), blocks

    def _put(self, volume: bytearray, position: int, transaction: tuple[bytes, list[bytes]]) -> int:
        head, blocks = transaction
        self.lists_at.append(self.offset + position)
        position = self._ring(volume, position, head)
        for data in blocks:
            self.blocks_at.append(self.offset + position)
            position = self._ring(volume, position, data)
        return position

    def _ring(self, volume: bytearray, position: int, data: bytes) -> int:
        for at in range(0, len(data), 512):
            volume[self.offset + position : self.offset + position + 512] = data[at : at + 512]
            position += 512
            if position == self.size:
                position = self.jhdr_size
        return position


def applied(volume: bytes, transactions: Sequence[Sequence[Write]]) -> bytes:
    """The volume after the transactions, one after the other."""
    result = bytearray(volume)
    for writes in transactions:
        for target, data in writes:
            if target != KILLED:
                result[target : target + len(data)] = data
    return bytes(result)
