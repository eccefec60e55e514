"""The HFS+ journal: what a volume that was not unmounted says should still be copied into place. Replayed in memory: the
result is a view of the volume in which the target ranges are read from the journal itself, so nothing is copied, nothing
is written, and the memory used is one table of sectors.

Rules that hold here (Apple's `hfs_journal.c` describes the algorithm, TN1150 "Journal" the structures):
- a transaction counts only whole: all its blocks in bounds and, where the writer recorded them, with right checksums;
- the first transaction that does not hold ends the replay; those before it stay applied;
- a journal that cannot be understood is ignored with a warning, never an error: the volume itself may be sound;
- what goes past `end` is not looked at (Apple's kernel goes on there while sequence numbers rise).
The info block is big-endian, the journal in the byte order of the machine that wrote it.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from construct import Array, Bytes, Int32ub, Int64ub, Struct

from dmgfs.hfsplus.journalsum import checksum, checksums
from dmgfs.source import ByteSource, Run, RunSource

SECTOR = 512

_INFO_BLOCK = Struct(
    "flags" / Int32ub,
    "device_signature" / Array(8, Int32ub),
    "offset" / Int64ub,
    "size" / Int64ub,
    "ext_jnl_uuid" / Bytes(37),
    "machine_serial_num" / Bytes(48),
)
_IN_FS, _ON_OTHER_DEVICE, _NEED_INIT = 1, 2, 4

_HEADER_SIZE = 48
_HEADER_FIELDS = "IIQQQIIII"  # magic, endian, start, end, size, blhdr_size, checksum, jhdr_size, sequence_num
_CHECKSUMMED = 44
_CHECKSUM_AT = 36
_MAGICS = (0x4A4E4C78, 0x4A484452)
_ENDIAN = 0x12345678

_LIST_FIELDS = "HHIII"  # max_blocks, num_blocks, bytes_used, checksum, flags
_LIST_CHECKSUMMED = 32
_LIST_CHECKSUM_AT = 8
_CHECK_CHECKSUMS = 1
_INFO_SIZE = 16  # block_info: bnum, bsize, checksum (or sequence number in the first one)
_KILLED = (1 << 64) - 1
_LARGEST_LIST = 1 << 20
_LARGEST_BLOCK = 1 << 20
# Apple makes journals of 8 MiB for every 100 GB. What goes beyond these bounds would buy a hostile image more than a second
# of ours at the first request; the transactions before it are a consistent state of the volume all the same.
_MOST_REPLAYED = 32 << 20
_MOST_TRANSACTIONS = 1 << 14


class Replay(NamedTuple):
    """source: the volume as it is after the replay, or as it was. status: "clean" (nothing to replay), "empty" (never
    used since it was made), "dirty" (transactions are waiting, replay was not wanted), "replayed", "external" (on
    another device), "ignored" (unreadable). reason: the status in one sentence. warnings: what the user should know."""

    source: ByteSource
    status: str
    reason: str
    warnings: list[str]


class _Unusable(Exception):
    """The journal cannot be used; str(self) says why. Never leaves this file."""


class _Header(NamedTuple):
    """The journal's header and where it lies. offset, in bytes of the volume; start, end, size: relative to it."""

    order: str
    offset: int
    start: int
    end: int
    size: int
    blhdr_size: int
    jhdr_size: int
    warnings: tuple[str, ...]


class _Block(NamedTuple):
    """One block of a transaction: `size` bytes for `target` of the volume, at `position` of the journal."""

    target: int
    position: int
    size: int
    checksum: int


class _Transaction(NamedTuple):
    """sequence: 0 where the writer kept none. next: position behind it."""

    blocks: list[_Block]
    sequence: int
    checksums: bool
    bytes_used: int
    next: int


def replay(volume: ByteSource, *, journal_info_block: int, block_size: int, apply: bool = True) -> Replay:
    """The volume with its journal replayed.

    volume: the whole HFS+ volume. journal_info_block, block_size: from the volume header, whose attribute bit 13 said
    that there is a journal. apply: False leaves the volume as it stands and only says "dirty". After "replayed" the
    volume header and everything else read before must be read again. Raises only what reading the volume raises where
    the journal lies (OSError, Cold, CorruptImage of the container).
    """
    at = journal_info_block * block_size
    if journal_info_block == 0 or at + _INFO_BLOCK.sizeof() > volume.size:
        return _ignored(volume, f"its info block {journal_info_block} is outside the volume")
    info = _INFO_BLOCK.parse(bytes(volume.read(at, _INFO_BLOCK.sizeof())))
    if info.flags & _NEED_INIT:
        return Replay(volume, "empty", "the journal has not been used since it was made", [])
    if info.flags & _ON_OTHER_DEVICE:
        reason = "the journal is on another device"
        return Replay(volume, "external", reason, [f"{reason}: changes that wait there are missing"])
    try:
        header = _read_header(volume, info.flags, info.offset, info.size)
    except _Unusable as error:
        return _ignored(volume, str(error))
    if header.start == header.end:
        return Replay(volume, "clean", "nothing waits in the journal", list(header.warnings))
    if not apply:
        reason = "transactions wait in the journal and are not applied"
        return Replay(volume, "dirty", reason, [*header.warnings, reason])
    return _apply(volume, header)


def _ignored(volume: ByteSource, why: str, warnings: tuple[str, ...] = ()) -> Replay:
    return Replay(volume, "ignored", why, [*warnings, f"the journal is ignored: {why}"])


def _read_header(volume: ByteSource, flags: int, offset: int, size: int) -> _Header:
    """Everything checked that `_transactions` relies on."""
    if not flags & _IN_FS:
        raise _Unusable(f"flags {flags:#x} do not say where it is")
    if offset + size > volume.size or size < SECTOR:
        raise _Unusable(f"{size:#x} bytes at {offset:#x} do not lie inside the volume of {volume.size:#x}")
    raw = bytes(volume.read(offset, _HEADER_SIZE))
    for order in "<>":
        magic, endian, start, end, length, blhdr_size, recorded, jhdr_size, _ = struct.unpack(
            order + _HEADER_FIELDS, raw
        )
        if endian == _ENDIAN:
            break
    else:
        raise _Unusable(f"its header at {offset:#x} has no byte order mark")
    if magic not in _MAGICS:
        raise _Unusable(f"its header at {offset:#x} has magic {magic:#010x}")
    if jhdr_size % SECTOR or not SECTOR <= jhdr_size <= _LARGEST_LIST:
        raise _Unusable(f"jhdr_size {jhdr_size}, must be a multiple of {SECTOR}")
    if blhdr_size % SECTOR or not SECTOR <= blhdr_size <= _LARGEST_LIST:
        raise _Unusable(f"blhdr_size {blhdr_size}, must be a multiple of {SECTOR}")
    if length > size or length % SECTOR or length < jhdr_size + blhdr_size:
        raise _Unusable(f"size {length:#x} does not fit its area of {size:#x}")
    for name, position in (("start", start), ("end", end)):
        if not jhdr_size <= position <= length or position % jhdr_size:
            raise _Unusable(f"{name} {position:#x} is outside the journal of {length:#x} or not on a sector")
    # One place has two names: behind the last byte, and behind the header.
    start, end = (jhdr_size if position == length else position for position in (start, end))
    computed = checksum(raw[:_CHECKSUM_AT] + bytes(4) + raw[_CHECKSUM_AT + 4 : _CHECKSUMMED])
    # Apple's kernel says so too and goes on; old versions wrote no sum at all.
    wrong = () if computed == recorded else (f"journal header: checksum {recorded:#010x}, computed {computed:#010x}",)
    return _Header(order, offset, start, end, length, blhdr_size, jhdr_size, wrong)


def _apply(volume: ByteSource, header: _Header) -> Replay:
    """Collects the sectors of every whole transaction, later ones over earlier ones."""
    journal = _journal_ring(volume, header)
    transactions: list[_Transaction] = []
    why = ""
    try:
        transactions.extend(_transactions(volume, header, journal))  # keeps those before the one that fails
    except _Unusable as error:
        why = str(error)
    wrong = _first_wrong(journal, transactions)
    if wrong is not None:
        number, target = wrong
        transactions = transactions[:number]
        why = f"the block for {target:#x} of the volume does not match its checksum"
    if not transactions:
        return _ignored(volume, why, header.warnings)
    sectors: dict[int, int] = {}  # sector of the volume → position in the ring
    for transaction in transactions:
        for block in transaction.blocks:
            first = block.target // SECTOR
            for number in range(block.size // SECTOR):
                sectors[first + number] = block.position + number * SECTOR
    plural = "transaction" if len(transactions) == 1 else "transactions"
    reason = f"{len(transactions)} {plural} applied in memory ({len(sectors) * SECTOR} bytes)"
    warnings = list(header.warnings)
    if why:
        warnings.append(f"journal: {reason}, then stopped: {why}")
    return Replay(_overlaid(volume, journal, sectors), "replayed", reason, warnings)


def _journal_ring(volume: ByteSource, header: _Header) -> RunSource:
    """The journal's data area (without its header) twice end to end: a range that wraps is then a plain range."""
    data = Run(volume, header.offset + header.jhdr_size, header.size - header.jhdr_size)
    return RunSource([data, data])


def _transactions(volume: ByteSource, header: _Header, ring: RunSource) -> Iterator[_Transaction]:
    """The transactions from start to end, checked but for the checksums of their blocks. Raises _Unusable at the first
    that does not hold, and where there is more than will be done."""
    area = header.size - header.jhdr_size
    position = header.start - header.jhdr_size
    end = header.end - header.jhdr_size
    left = area
    previous = 0
    for _ in range(_MOST_TRANSACTIONS):
        transaction = _read_transaction(volume, header, ring, position, left)
        if previous and transaction.sequence and transaction.sequence != (previous + 1) & 0xFFFFFFFF:
            raise _Unusable(f"sequence number {transaction.sequence} after {previous}")
        left -= transaction.bytes_used
        if area - left > _MOST_REPLAYED:
            raise _Unusable(f"more than the {_MOST_REPLAYED >> 20} MiB that are replayed wait in it")
        yield transaction
        previous = transaction.sequence
        position = transaction.next
        if position == end:
            return
    raise _Unusable(f"more than the {_MOST_TRANSACTIONS} transactions that are replayed wait in it")


def _read_transaction(volume: ByteSource, header: _Header, ring: RunSource, position: int, left: int) -> _Transaction:
    """The block list at `position` of the ring, checked against the journal and the volume. left: bytes of the journal
    not yet used up, which is what ends a chain that never comes to `end`."""
    place = f"block list at {header.jhdr_size + position:#x} of the journal"
    if left < header.blhdr_size:
        raise _Unusable(f"{place}: the transactions do not meet their end within the journal")
    raw = bytes(ring.read(position, header.blhdr_size))
    max_blocks, num_blocks, bytes_used, recorded, flags = struct.unpack_from(header.order + _LIST_FIELDS, raw)
    zeroed = raw[:_LIST_CHECKSUM_AT] + bytes(4) + raw[_LIST_CHECKSUM_AT + 4 : _LIST_CHECKSUMMED]
    if checksum(zeroed) != recorded:
        raise _Unusable(f"{place}: checksum {recorded:#010x}, computed {checksum(zeroed):#010x}")
    room = (header.blhdr_size - _INFO_SIZE) // _INFO_SIZE
    if not 1 <= num_blocks <= max_blocks <= room:
        raise _Unusable(f"{place}: {num_blocks} of {max_blocks} blocks, there is room for {room}")
    infos = list(struct.iter_unpack(header.order + "QII", raw[_INFO_SIZE : _INFO_SIZE * (num_blocks + 1)]))
    if not header.blhdr_size <= bytes_used <= left or bytes_used % SECTOR:
        raise _Unusable(f"{place}: bytes_used {bytes_used:#x}, {left:#x} bytes of the journal are left")
    blocks = []
    data = header.blhdr_size
    for number, (bnum, size, block_sum) in enumerate(infos[1:], 1):
        if size % SECTOR or not 0 < size <= _LARGEST_BLOCK or data + size > bytes_used:
            raise _Unusable(f"{place}: block {number} of {size} bytes in a transaction of {bytes_used}")
        if bnum != _KILLED:
            target = bnum * header.jhdr_size
            if target + size > volume.size:
                raise _Unusable(f"{place}: block {number} belongs to {target:#x}, past the volume's end")
            area = header.size - header.jhdr_size
            blocks.append(_Block(target, (position + data) % area, size, block_sum))
        data += size
    area = header.size - header.jhdr_size
    sequence: int = infos[0][2]
    return _Transaction(blocks, sequence, bool(flags & _CHECK_CHECKSUMS), bytes_used, (position + bytes_used) % area)


def _first_wrong(ring: RunSource, transactions: list[_Transaction]) -> tuple[int, int] | None:
    """Number of the first transaction with a block that does not match its checksum, and that block's target; None if
    all match. All sums are made together: one by one they would take ten times as long."""
    blocks = [
        (number, block)
        for number, transaction in enumerate(transactions)
        if transaction.checksums
        for block in transaction.blocks
    ]
    sums = checksums([ring.read(block.position, block.size) for _, block in blocks])
    for (number, block), computed in zip(blocks, sums, strict=True):
        if computed != block.checksum:
            return number, block.target
    return None


def _overlaid(volume: ByteSource, ring: RunSource, sectors: dict[int, int]) -> RunSource:
    """The volume, with neighbouring sectors that are neighbours in the journal too joined to one run."""
    runs: list[Run] = []
    behind = 0  # byte of the volume that no run covers yet
    for sector in sorted(sectors):
        start, position = sector * SECTOR, sectors[sector]
        if start > behind:
            runs.append(Run(volume, behind, start - behind))
        last = runs[-1] if runs and start == behind and runs[-1].source is ring else None
        if last is not None and last.offset + last.length == position:
            runs[-1] = Run(ring, last.offset, last.length + SECTOR)
        else:
            runs.append(Run(ring, position, SECTOR))
        behind = start + SECTOR
    if behind < volume.size:
        runs.append(Run(volume, behind, volume.size - behind))
    return RunSource(runs)
