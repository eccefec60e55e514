"""What a shadow file holds, read back: the newest log that is whole, up to the last operation that can be believed.

Rules that hold here:
- records up to the last SYNCED marker are believed by their seals; of the later ones the longest part counts in which
  every page that is in use then has the bytes its checksum says. A page may be wrong in the middle: its slot was given
  away and filled anew, and the record that frees it comes later;
- a superblock whose log has no STARTED, or whose tree has wrong pages, did not make it to the medium before a power cut:
  the other one counts;
- a snapshot is a record like any other; what a snapshot keeps is in use like what the tree has;
- seals prove that nothing was torn, not that it makes sense: what does not apply, reaches outside the file or claims a slot
  twice raises ShadowDamaged.
"""

import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from overlay.change import GoBack, Item, Keep, Place, Unkeep
from overlay.delta import delta
from overlay.disk import Disk
from overlay.errors import ShadowDamaged
from overlay.history import History, stored
from overlay.log import CHANGE, RESUMED, START, STARTED, SYNCED, Log, Record, Segment
from overlay.pages import PAGE, Run
from overlay.records import Placed, decode, encode, encode_placed
from overlay.slots import Extent
from overlay.superblock import Superblock
from overlay.tree import Node, Tree

FIRST_SLOT = 2
COUNT = struct.Struct("<BQ")
"""SYNCED: how many records were safe. START: the next new inode number. RESUMED: a random number."""

_DUMP_RECORD = 1 << 17


class Recovered(NamedTuple):
    """place: which superblock (0 or 1). log: ready to be appended to. dump_size: bytes of its first part. sums: by slot.
    free: all slots that nothing uses. history: of the tree. shortened: something unfinished was left out, so the log must
    not be appended to."""

    place: int
    superblock: Superblock
    log: Log
    dump_size: int
    sums: "array[int]"
    free: Sequence[Extent]
    history: History
    shortened: bool


def recover(disk: Disk, found: Sequence[tuple[int, Superblock]], tree: Tree) -> Recovered:
    """Fills `tree` from the first superblock of `found` (newest first) that can be believed. Raises ShadowDamaged."""
    for number, (place, superblock) in enumerate(found):
        replay = _replay(disk, superblock, tree.first_ino)
        if replay is not None:
            history = replay.history
            free = _free_slots(disk, history, replay.log)
            tree.adopt(history.tree)
            history.tree = tree
            shortened = replay.shortened or number > 0
            return Recovered(place, superblock, replay.log, replay.dump_size, replay.sums, free, history, shortened)
    raise ShadowDamaged("neither of its two logs can be read")


class _Replay:
    """One reading of a log. wrong: slots in use whose bytes are not what the records say."""

    def __init__(self, disk: Disk, superblock: Superblock, first_ino: int) -> None:
        self._disk = disk
        self._slots = disk.size // PAGE
        self.log = Log(disk, superblock.log_id, Segment(superblock.log_slot, superblock.log_length))
        self.tree = Tree(first_ino)
        self.history = History(self.tree)
        self.sums = array("I", [0]) * self._slots
        self.wrong: set[int] = set()
        self.dump_size = 0
        self.started = False
        self.shortened = False

    def apply(self, record: Record, check: bool) -> None:
        try:
            if record.kind == CHANGE:
                self._change(record, check)
            elif record.kind == START:
                self.tree.next_ino = max(self.tree.next_ino, COUNT.unpack(record.body)[1])
            elif record.kind == STARTED:
                self.started = True
                self.dump_size = self.log.size
                if self.history.snapshots:
                    self.history.settle()
            elif record.kind not in (SYNCED, RESUMED):
                raise ShadowDamaged(f"unknown record kind {record.kind}")
        except (
            KeyError,
            AssertionError,
            AttributeError,
            TypeError,
            ValueError,
            OverflowError,
            struct.error,
        ) as error:
            raise ShadowDamaged(f"record {self.log.count} does not apply ({error!r})") from error

    def _change(self, record: Record, check: bool) -> None:
        past: Item | None = None
        filled: list[Run] = []
        for item in decode(record.body, 1):
            if isinstance(item, Placed):
                self._place(item, check and not item.safe)
                filled.append(item.place.run)
                continue
            if past is not None:
                raise ValueError("something follows a snapshot")
            self.tree.apply((item,))
            if isinstance(item, (Keep, Unkeep, GoBack)):
                past = item
        if not self.started:  # what the tree gives up here, a snapshot has
            self.tree.freed = []
        free = self.history.released()
        for run in filled:
            self.history.keeps.filled(run)
        if past is not None:
            free += self.history.apply_past(past)
        for run in free:
            self.wrong.difference_update(range(run.slot, run.slot + run.length) if self.wrong else ())

    def _place(self, item: Placed, check: bool) -> None:
        _, slot, length = item.place.run
        if slot < FIRST_SLOT or slot + length > self._slots or not length:
            raise ShadowDamaged(f"record {self.log.count} refers to slots outside the file")
        self.tree.apply((item.place,))
        self.sums[slot : slot + length] = array("I", item.sums)
        if check:
            data = memoryview(self._disk.read(slot * PAGE, length * PAGE))
            for index, expected in enumerate(item.sums):
                if zlib.crc32(data[index * PAGE : (index + 1) * PAGE]) == expected:
                    self.wrong.discard(slot + index)
                else:
                    self.wrong.add(slot + index)


def _replay(disk: Disk, superblock: Superblock, first_ino: int) -> _Replay | None:
    """The log as far as it can be believed; None if not even its first part can."""
    synced = _last_synced(disk, superblock)
    replay = _Replay(disk, superblock, first_ino)
    good = 0
    for record in replay.log.read():
        replay.apply(record, check=replay.log.count > synced)
        if replay.started and not replay.wrong:
            good = replay.log.count
    if not good:
        return None
    if good < replay.log.count:
        replay = _Replay(disk, superblock, first_ino)
        for record in replay.log.read():
            replay.apply(record, check=False)
            if replay.log.count == good:
                break
        replay.shortened = True
    return replay


def _last_synced(disk: Disk, superblock: Superblock) -> int:
    synced = 0
    for record in Log(disk, superblock.log_id, Segment(superblock.log_slot, superblock.log_length)).read():
        if record.kind == SYNCED and len(record.body) == COUNT.size:
            synced = max(synced, COUNT.unpack(record.body)[1])
    return synced


def _free_slots(disk: Disk, history: History, log: Log) -> list[Extent]:
    """What neither the log nor the tree nor a snapshot uses. Within each of those a slot occurs once."""
    end = disk.size // PAGE
    used = bytearray(end)
    segments = [Extent(segment.slot, segment.length) for segment in log.segments]
    for tree in (history.tree, *history.frozen.values()):
        position = FIRST_SLOT
        for slot, length in sorted([*segments, *(Extent(run.slot, run.length) for run in stored(tree))]):
            if slot < position:
                raise ShadowDamaged(f"slot {slot} is claimed twice")
            position = slot + length
            used[slot:position] = b"\1" * length
    free: list[Extent] = []
    first = used.find(0, FIRST_SLOT)
    while first >= 0:
        stop = used.find(1, first)
        stop = end if stop < 0 else stop
        free.append(Extent(first, stop - first))
        first = used.find(0, stop)
    return free


def dump(history: History, sums: "array[int]", born: "array[int]", durable: int) -> Iterator[bytes]:
    """The tree and its snapshots as bodies of CHANGE records: the oldest snapshot out of nothing, each later one out of the
    one before. durable: pages born up to that epoch are known to be on the medium."""
    parts: list[bytes] = []
    size = 0
    for item in _stages(history):
        if isinstance(item, Place):
            slots = slice(item.run.slot, item.run.slot + item.run.length)
            encoded = encode_placed(Placed(item, sums[slots], safe=max(born[slots]) <= durable))
        else:
            encoded = b"".join(encode((item,)))
        parts.append(encoded)
        size += len(encoded)
        if size > _DUMP_RECORD or isinstance(item, Keep):
            yield bytes([CHANGE]) + b"".join(parts)
            parts, size = [], 0
    if parts:
        yield bytes([CHANGE]) + b"".join(parts)


def _stages(history: History) -> Iterator[Item]:
    nodes: Mapping[int, Node] = {}
    for name, snapshot in history.snapshots.items():
        copy = history.frozen[snapshot.moment].nodes
        yield from delta(nodes, copy)
        yield Keep(snapshot.made_ns, name)
        nodes = copy
    yield from delta(nodes, history.tree.nodes)
