"""Who reads on where somebody read before, and how far ahead of him blocks are worth fetching.

Rule: nothing here waits or fetches; the caller holds its lock.
"""

from collections import deque
from dataclasses import dataclass

STREAMS = 16
NEAR = 3
"""Blocks between the end of one read and the beginning of the next, which still goes on from it: several threads read side
by side."""


@dataclass(slots=True)
class Stream:
    """Blocks. at: where its reader is. end: up to where they were asked for. window: how far ahead."""

    at: int
    end: int
    window: int = 1


class Streams:
    """Of one object of `count` blocks. most: blocks that a window grows to, twice as many each time."""

    def __init__(self, count: int, most: int) -> None:
        self._count = count
        self._most = most
        self._streams: deque[Stream] = deque(maxlen=STREAMS)

    def note(self, first: int, last: int) -> tuple[Stream, range] | None:
        """Blocks first to last-1 are being read. The stream that this goes on with and what to fetch for it, whose end the
        caller moves as far as it does; None if it goes on with none, or has enough ahead."""
        stream = next((one for one in self._streams if one.at - NEAR <= first <= one.at + NEAR), None)
        if stream is None:
            self._streams.append(Stream(last, last))
            return None
        if last <= stream.at:
            return None
        stream.at = last
        if stream.end - last > stream.window // 2:
            return None
        stream.window = min(2 * stream.window, self._most)
        return stream, range(max(stream.end, last), min(last + stream.window, self._count))
