"""RemoteSource: the object as a byte source. Reads are blocks (see there), in memory, in the folder, or fetched."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from dmgfs.remote.blocks import BLOCK, MOST_SPAN, Blocks
from dmgfs.remote.cachefolder import CacheFolder
from dmgfs.remote.fetcher import Fetcher
from dmgfs.source import Buffer, Cold, Load, check_range, may_block

START = 4096
"""Bytes that opening brings where there is a folder: the first block may be in it. Signatures of formats are in these."""


class RemoteSource:
    """size: bytes. url: as it may be shown. Takes over fetcher and folder. Raises as `Fetcher.open`."""

    def __init__(self, fetcher: Fetcher, folder: CacheFolder | None) -> None:
        self._start = fetcher.open(BLOCK if folder is None else START)
        self.url = fetcher.url
        self.size = fetcher.version.size
        self._fetcher = fetcher
        self._folder = folder
        kept = None
        if folder is not None and fetcher.version.sure:
            kept = folder.of(f"{fetcher.transport.key} {fetcher.version.key} {BLOCK}")
        self._blocks = Blocks(-(-self.size // BLOCK), self._fetch, fetcher.result, kept)
        if self._start and len(self._start) == min(BLOCK, self.size):
            self._blocks.put(0, self._start)
            self._start = b""

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "network")
        if not length:
            return b""
        if offset + length <= len(self._start):
            return memoryview(self._start)[offset : offset + length]
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        blocks = self._blocks.get(first, last) if may_block() else self._blocks.in_memory(first, last)
        if blocks is None:
            raise Cold(self.cold(offset, length))
        skip = offset - first * BLOCK
        if len(blocks) == 1:
            return memoryview(blocks[0])[skip : skip + length]
        return memoryview(b"".join(blocks))[skip : skip + length]

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0 or offset + length <= len(self._start):
            return ()
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        loads = []
        for start in range(first, last, MOST_SPAN):
            end = min(start + MOST_SPAN, last)
            if self._blocks.in_memory(start, end) is None:
                loads.append(self._load(start, end))
        return tuple(loads)

    def _load(self, start: int, end: int) -> Load:
        return Load(("network", id(self), start, end), lambda: self._blocks.get(start, end))

    def _fetch(self, start: int, end: int) -> Any:
        return self._fetcher.fetch(start * BLOCK, min(end * BLOCK, self.size))

    def listen(self, notice: Callable[[str | None], None]) -> None:
        """`notice` is told what is wrong with the server from now on; None when it answers again. From another thread."""
        self._fetcher.notice = notice

    def abandon(self) -> None:
        """Ends every wait now; reads fail from here on unless what they want is in memory or in the folder."""
        self._blocks.end()
        self._fetcher.abandon()

    def close(self) -> None:
        """May be called twice."""
        self._blocks.end()
        self._fetcher.close()
        if self._folder is not None:
            self._folder.close()

    def report(self) -> dict[str, Any]:
        """Figures so far: bytes, counts; what is wrong with the server, if anything is."""
        counts, tally, trouble = self._fetcher.counts, self._blocks.tally, self._fetcher.trouble
        return {
            "url": self.url,
            "size": self.size,
            "version": str(self._fetcher.version),
            "requests": counts.requests,
            "bytes": counts.bytes,
            "retries": counts.retries,
            "failures": counts.failures,
            "blocks in memory": tally.memory,
            "blocks on disk": tally.disk,
            "blocks fetched": tally.fetched,
            "blocks ahead": tally.ahead,
            "cache": None if self._folder is None else os.path.abspath(self._folder.path),
            "trouble": None if trouble is None else trouble[0],
            "since": None if trouble is None else trouble[1],
        }
