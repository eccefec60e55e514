"""Reading ahead: whoever reads a file from front to back finds the next chunks decoded.

Rules that hold here:
- two consecutive reads make a stream; several streams in one file (and many files) run at once; a read elsewhere starts a
  new stream, and the oldest one falls out with everything that was queued for it;
- what is read ahead and not yet read is bounded for the whole mount: so many streams of one window each as fit in the
  budget. Beyond that, reading ahead would only evict what it fetched a moment ago;
- nothing is decided from what a file claims: the loads come from `Content.cold`, and a window is clipped to the file.
"""

from collections import OrderedDict
from collections.abc import Sequence

from dmgfs.errors import DmgError
from dmgfs.fuse.pool import Flight, Pool
from dmgfs.source import Cold, Load
from overlay.vfs import Content

WINDOW = 4 << 20
"""Bytes that a stream is ahead of its reader. More gained nothing, in chunks of 256 KiB as of 1 MiB (measured)."""

REMOTE_WINDOW = 8 << 20
"""The same for an image behind a URL, where each chunk is a way to the server and back."""

NEAR = 1 << 20
"""The kernel sends the parts of one sequential read side by side, and not always in order: a read belongs to a stream if
twice its own length reaches the stream's end, and this at most. Small reads at random places do not look like a stream."""

STREAMS_PER_FILE = 8


class Stream:
    """One reader's way through a file. end: where its last read ended. ahead: up to where loads were queued."""

    __slots__ = ("ahead", "end", "flights", "reads")

    def __init__(self, end: int) -> None:
        self.end = end
        self.reads = 1
        self.ahead = end
        self.flights: list[Flight] = []


class ReadAhead:
    """Reading ahead for the whole mount, `budget` bytes at most, `window` for each stream. Used on the trio thread only."""

    def __init__(self, pool: Pool, budget: int, window: int = WINDOW) -> None:
        self._pool = pool
        self.window = max(min(window, budget // 2), 0)
        self._most = max(budget // self.window, 1) if self.window else 0
        self._active: OrderedDict[Stream, None] = OrderedDict()

    def note(self, streams: list[Stream], content: Content, offset: int, length: int) -> None:
        """Tells that [offset, offset+length) of `content` was read through the handle that owns `streams`."""
        if not self.window or length <= 0:
            return
        end = offset + length
        stream = _stream_near(streams, offset, min(2 * length, NEAR))
        if stream is None:
            streams.append(Stream(end))
            if len(streams) > STREAMS_PER_FILE:
                self._forget(streams.pop(0))
            return
        stream.reads += 1
        stream.end = max(stream.end, end)
        streams.remove(stream)
        streams.append(stream)  # the first is the one to lose
        self._advance(stream, content)

    def close(self, streams: list[Stream]) -> None:
        """The handle is gone, and with it what was queued for it."""
        for stream in streams:
            self._forget(stream)
        streams.clear()

    def _advance(self, stream: Stream, content: Content) -> None:
        start = max(stream.ahead, stream.end)
        goal = min(stream.end + self.window, content.size)
        if (goal - start < self.window // 4 and goal < content.size) or goal <= start:
            return
        stream.ahead = goal
        stream.flights = [flight for flight in stream.flights if flight.waiting]
        try:
            loads = content.cold(start, goal - start)
        except Cold as cold:
            loads = cold.loads  # where the bytes are is not in memory either: that first
        except DmgError:
            return  # the reader will find out
        self._queue(stream, loads)

    def _queue(self, stream: Stream, loads: Sequence[Load]) -> None:
        if not loads:
            return
        self._active[stream] = None
        self._active.move_to_end(stream)
        if len(self._active) > self._most:
            self._forget(next(iter(self._active)))
        for load in loads:
            flight = self._pool.read_ahead(load)
            if flight is not None:
                stream.flights.append(flight)

    def _forget(self, stream: Stream) -> None:
        self._active.pop(stream, None)
        for flight in stream.flights:
            self._pool.drop(flight)
        stream.flights.clear()
        stream.ahead = stream.end


def _stream_near(streams: list[Stream], offset: int, reach: int) -> Stream | None:
    """The stream that a read at `offset` continues: the one whose end is nearest, within `reach`."""
    near = [stream for stream in streams if abs(offset - stream.end) <= reach]
    return min(near, key=lambda stream: abs(offset - stream.end)) if near else None
