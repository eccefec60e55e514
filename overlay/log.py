"""The log of a shadow file: records one after the other in segments that are chained.

    record:   length of the body (4) · seal (4) · body
    seal:     CRC-32 of length and body, begun with the seal of the record before (the first: with the log's id)
    body:     kind (1) · rest

Rules that hold here:
- the seals are a chain, so a record counts only if every record before it does, and nothing left over from an older use of
  the same place is ever taken for a record;
- a segment ends with a LINK to the next one; room for that is always kept;
- appending is one write. What fails is as if it had not been tried: the next record goes to the same place.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from overlay.disk import Disk
from overlay.pages import PAGE

CHANGE = 1
"""Items (`overlay.records`): one operation."""
LINK = 2
"""The log goes on in another segment."""
SYNCED = 3
"""Everything up to here was on the medium when this was written."""
START = 4
"""Begins a log: the next new inode number; what the tree was then follows as CHANGE records."""
STARTED = 5
"""The tree is complete; what follows are changes."""
RESUMED = 6
"""A number drawn anew by whoever opened the file. After a power cut records may lie behind the end, whose chain a record
like the lost one would complete; this one is like no other."""

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_LINK = struct.Struct("<BQI")
_LINK_ROOM = _HEAD.size + _LINK.size


SEGMENT_MAX = 1024
"""Slots: what is read at once."""


class Segment(NamedTuple):
    slot: int
    length: int


class Record(NamedTuple):
    """kind; body with the kind byte first."""

    kind: int
    body: bytes


class Log:
    """A log that is being read or written. segments: all of it so far. size: bytes of
    records. count: how many records, links included."""

    def __init__(self, disk: Disk, log_id: int, first: Segment) -> None:
        self._disk = disk
        self._seal = zlib.crc32(struct.pack("<Q", log_id))
        self.segments = [first]
        self._position = first.slot * PAGE
        self.size = 0
        self.count = 0

    def _sound(self, slot: int, length: int) -> bool:
        return slot >= 2 and 0 < length <= SEGMENT_MAX and (slot + length) * PAGE <= self._disk.size

    @property
    def _end(self) -> int:
        slot, length = self.segments[-1]
        return (slot + length) * PAGE

    # -- writing -----------------------------------------------------------------------------------------------------------

    def room(self, length: int) -> bool:
        """Whether a body of this length fits into the current segment."""
        return self._position + _HEAD.size + length + _LINK_ROOM <= self._end

    def slots_for(self, length: int) -> int:
        """Slots of a new segment that surely takes such a body."""
        return (_HEAD.size + length + _LINK_ROOM + PAGE - 1) // PAGE

    def append(self, body: bytes) -> None:
        """One record; its first byte is its kind. There must be room."""
        length = len(body)
        assert self._position + _HEAD.size + length <= self._end
        seal = zlib.crc32(body, zlib.crc32(_LENGTH.pack(length), self._seal))
        self._disk.write(self._position, [_HEAD.pack(length, seal) + body])
        self._seal = seal
        self._position += _HEAD.size + length
        self.size += _HEAD.size + length
        self.count += 1

    def extend(self, segment: Segment) -> None:
        """Goes on in `segment`."""
        self.append(_LINK.pack(LINK, *segment))
        self.segments.append(segment)
        self._position = segment.slot * PAGE

    # -- reading -----------------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[Record]:
        """The records up to the first that does not count; the log can be appended to from there on. LINKs are followed and
        not shown. Never fails on what it reads: damage is the end."""
        buffer, base = b"", 0
        while True:
            if buffer == b"":
                base = self._position
                slot, length = self.segments[-1]
                if not self._sound(slot, length):
                    return
                buffer = self._disk.read(base, self._end - base)
            start = self._position - base
            if start + _HEAD.size > len(buffer):
                return
            length, seal = _HEAD.unpack_from(buffer, start)
            stop = start + _HEAD.size + length
            if not length or stop > len(buffer):
                return
            body = buffer[start + _HEAD.size : stop]
            if zlib.crc32(body, zlib.crc32(_LENGTH.pack(length), self._seal)) != seal:
                return
            if body[0] == LINK:
                if length != _LINK.size:
                    return
                _, slot, slots = _LINK.unpack(body)
                following = Segment(slot, slots)
                if following in self.segments or not self._sound(slot, slots):
                    return
                self._seal = seal
                self.size += _HEAD.size + length
                self.count += 1
                self.segments.append(following)
                self._position = slot * PAGE
                buffer = b""
                continue
            self._seal = seal
            self._position = base + stop
            self.size += _HEAD.size + length
            self.count += 1
            yield Record(body[0], body)
