"""A disk in memory that keeps a diary, so that it can be looked at as it was after any write: killed in the middle (every
byte up to there is in the file) or without power (what was not synced got there in part, sector by sector).
"""

import errno
import os
import random
from collections.abc import Sequence
from typing import NamedTuple

SECTOR = 512
PAGE = 4096


class Event(NamedTuple):
    """kind: "write", "sync", "size". data: what was written."""

    kind: str
    offset: int
    data: bytes


class FaultDisk:
    """limit: bytes that the medium has. fail_after: so many more writes work, the next one stops in the middle."""

    def __init__(self, data: bytes = b"", limit: int = 1 << 40) -> None:
        self.path = "fault disk"
        self.data = bytearray(data)
        self.events: list[Event] = []
        self.limit = limit
        self.fail_after: int | None = None
        self.fail_sync = False
        self.cold = False
        self.closed = False
        self.holes: set[int] = set()

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        part = bytes(self.data[offset : offset + length])
        if len(part) < length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return part

    def read_now(self, offset: int, length: int) -> bytes | None:
        return None if self.cold else self.read(offset, length)

    def _put(self, offset: int, data: bytes) -> None:
        self.data.extend(bytes(max(0, offset + len(data) - len(self.data))))
        self.data[offset : offset + len(data)] = data
        self.events.append(Event("write", offset, data))
        self.holes -= set(range(offset // PAGE, (offset + len(data) + PAGE - 1) // PAGE))

    def write(self, offset: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        data = b"".join(parts)
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self._put(offset, data[: len(data) // 2])
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        if offset + len(data) > max(self.limit, len(self.data)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._put(offset, data)

    def grow(self, size: int) -> None:
        if size > self.limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > len(self.data):
            self.data.extend(bytes(size - len(self.data)))
            self.events.append(Event("size", size, b""))

    def shrink(self, size: int) -> None:
        self.holes = {page for page in self.holes if page < size // PAGE}
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self.events.append(Event("size", size, b""))

    def allocated(self) -> int:
        return len(self.data) - len(self.holes) * PAGE

    def punch(self, offset: int, length: int) -> None:
        self._put(offset, bytes(length))
        self.holes |= set(range(offset // PAGE, (offset + length) // PAGE))

    def secure(self, offset: int, length: int) -> None:
        self.holes -= set(range(offset // PAGE, (offset + length) // PAGE))

    def room(self) -> int:
        return max(0, self.limit - len(self.data))

    def sync(self) -> None:
        if self.fail_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.events.append(Event("sync", 0, b""))

    def close(self) -> None:
        self.closed = True


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _apply(data: bytearray, event: Event) -> None:
    if event.kind == "size":
        _resize(data, event.offset)
    elif event.kind == "write":
        data.extend(bytes(max(0, event.offset + len(event.data) - len(data))))
        data[event.offset : event.offset + len(event.data)] = event.data


def killed(events: Sequence[Event], count: int, part: float) -> bytes:
    """The file after `count` events and the beginning of the next one."""
    data = bytearray()
    for event in events[:count]:
        _apply(data, event)
    if count < len(events) and events[count].kind == "write":
        event = events[count]
        _apply(data, event._replace(data=event.data[: int(len(event.data) * part)]))
    return bytes(data)


def unplugged(events: Sequence[Event], count: int, source: random.Random) -> bytes:
    """The file after a power cut: whole up to the last sync among `count` events, of the later ones any sectors."""
    synced = max((index for index in range(count) if events[index].kind == "sync"), default=0)
    data = bytearray()
    for event in events[:synced]:
        _apply(data, event)
    keep = source.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    for event in events[synced:count]:
        if event.kind != "write":
            _apply(data, event)
            continue
        if len(event.data) and source.random() < 0.3:
            keep = source.choice([0.0, 0.5, 1.0])
        end = event.offset + len(event.data)
        at = event.offset
        while at < end:
            stop = min(end, (at // SECTOR + 1) * SECTOR)
            if source.random() < keep:
                _apply(data, Event("write", at, event.data[at - event.offset : stop - event.offset]))
            at = stop
    return bytes(data)
