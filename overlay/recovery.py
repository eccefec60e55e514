"""What a shadow file holds, read back: the newest log that is whole, up to the last operation that can be believed.

Rules that hold here:
- records up to the last SYNCED marker are believed by their seals; of the later ones the longest part counts in which
  every page that is in use then has the bytes its checksum says. A page may be wrong in the middle: its slot was given
  away and filled anew, and the record that frees it comes later;
- a superblock whose log has no STARTED, or whose tree has wrong pages, did not make it to the medium before a power cut:
  the other one counts;
- seals prove that nothing was torn, not that it makes sense: what does not apply, reaches outside the file or claims a slot
  twice raises ShadowDamaged.
"""

import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from overlay.change import Inline, Item, Limit, Mark, Name, Place, Put, Shut, Target, White, Xattr
from overlay.disk import Disk
from overlay.errors import ShadowDamaged
from overlay.log import CHANGE, RESUMED, START, STARTED, SYNCED, Log, Record, Segment
from overlay.pages import PAGE, is_stored
from overlay.records import Placed, decode, encode, encode_placed
from overlay.slots import Extent
from overlay.superblock import Superblock
from overlay.tree import Directory, File, Node, Tree

FIRST_SLOT = 2
COUNT = struct.Struct("<BQ")
"""SYNCED: how many records were safe. START: the next new inode number. RESUMED: a random number."""

_DUMP_RECORD = 1 << 17


class Recovered(NamedTuple):
    """place: which superblock (0 or 1). log: ready to be appended to. dump_size: bytes of its first part. sums: by slot.
    free: all slots that nothing uses. shortened: something unfinished was left out, so the log must not be appended to."""

    place: int
    superblock: Superblock
    log: Log
    dump_size: int
    sums: "array[int]"
    free: Sequence[Extent]
    shortened: bool


def recover(disk: Disk, found: Sequence[tuple[int, Superblock]], tree: Tree) -> Recovered:
    """Fills `tree` from the first superblock of `found` (newest first) that can be believed. Raises ShadowDamaged."""
    for number, (place, superblock) in enumerate(found):
        replay = _replay(disk, superblock, tree.first_ino)
        if replay is not None:
            tree.adopt(replay.tree)
            free = _free_slots(disk, replay.tree, replay.log)
            shortened = replay.shortened or number > 0
            return Recovered(place, superblock, replay.log, replay.dump_size, replay.sums, free, shortened)
    raise ShadowDamaged("neither of its two logs can be read")


class _Replay:
    """One reading of a log. wrong: slots in use whose bytes are not what the records say."""

    def __init__(self, disk: Disk, superblock: Superblock, first_ino: int) -> None:
        self._disk = disk
        self._slots = disk.size // PAGE
        self.log = Log(disk, superblock.log_id, Segment(superblock.log_slot, superblock.log_length))
        self.tree = Tree(first_ino)
        self.sums = array("I", [0]) * self._slots
        self.wrong: set[int] = set()
        self.dump_size = 0
        self.started = False
        self.shortened = False

    def apply(self, record: Record, check: bool) -> None:
        try:
            if record.kind == CHANGE:
                for item in decode(record.body, 1):
                    if isinstance(item, Placed):
                        self._place(item, check and not item.safe)
                    else:
                        self.tree.apply((item,))
                if self.tree.freed:
                    for run in self.tree.freed:
                        self.wrong.difference_update(range(run.slot, run.slot + run.length) if self.wrong else ())
                    self.tree.freed = []
            elif record.kind == START:
                self.tree.next_ino = max(self.tree.next_ino, COUNT.unpack(record.body)[1])
            elif record.kind == STARTED:
                self.started = True
                self.dump_size = self.log.size
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


def _free_slots(disk: Disk, tree: Tree, log: Log) -> list[Extent]:
    used = [Extent(segment.slot, segment.length) for segment in log.segments]
    used += [Extent(run.slot, run.length) for run in tree.slots() if is_stored(run.slot)]
    free: list[Extent] = []
    position = FIRST_SLOT
    for slot, length in sorted(used):
        if slot < position:
            raise ShadowDamaged(f"slot {slot} is claimed twice")
        if slot > position:
            free.append(Extent(position, slot - position))
        position = slot + length
    end = disk.size // PAGE
    if position < end:
        free.append(Extent(position, end - position))
    return free


def dump(tree: Tree, sums: "array[int]", born: "array[int]", durable: int) -> Iterator[bytes]:
    """The whole tree as bodies of CHANGE records. durable: pages born up to that epoch are known to be on the medium."""
    parts: list[bytes] = []
    size = 0
    for node in tree.nodes.values():
        for item in _items(node):
            if isinstance(item, Place):
                slots = slice(item.run.slot, item.run.slot + item.run.length)
                encoded = encode_placed(Placed(item, sums[slots], safe=max(born[slots]) <= durable))
            else:
                encoded = b"".join(encode((item,)))
            parts.append(encoded)
            size += len(encoded)
            if size > _DUMP_RECORD:
                yield bytes([CHANGE]) + b"".join(parts)
                parts, size = [], 0
    if parts:
        yield bytes([CHANGE]) + b"".join(parts)


def _items(node: Node) -> Iterator[Item]:
    """What makes this node out of nothing."""
    ino = node.attr.ino
    yield Put(node.attr, node.parent)
    for name, value in (node.xattrs or {}).items():
        yield Xattr(ino, name, value)
    body = node.body
    if isinstance(body, bytes):
        yield Target(ino, body)
    elif isinstance(body, Directory):
        if body.opaque:
            yield Shut(ino)
        for name in body.whiteouts:
            yield White(ino, name)
        for own in body.added.values():
            yield Name(ino, own.key, own.name, own.ino)
    elif isinstance(body, File):
        yield Limit(ino, body.limit)
        if body.inline is not None:
            yield Inline(ino, body.inline)
        for run in body.pages.walk() if body.pages is not None else ():
            yield Place(ino, run) if is_stored(run.slot) else Mark(ino, run)
