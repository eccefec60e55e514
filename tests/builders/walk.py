"""Reading a volume whole, through `dmgfs.volume.Volume` alone."""

import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from dmgfs.cache import ChunkCache
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.source import Buffer, ByteSource, Cold, MemorySource, forbid_blocking
from dmgfs.volume import ROOT_FOLDER, Node, Volume

T = TypeVar("T")


def opened(data: Buffer, **options: bool | int) -> HfsPlusVolume:
    """The HFS+ volume in these bytes."""
    return open_volume(MemorySource(bytes(data)), cache=ChunkCache(1 << 20), **options)  # type: ignore[arg-type]


def children(volume: Volume, folder: int, page: int = 7) -> list[Node]:
    """All children of a folder, a page at a time."""
    nodes: list[Node] = []
    after = None
    while True:
        part = volume.children(folder, after, page)
        assert len(part.nodes) <= page
        nodes += part.nodes
        after = part.next
        if after is None:
            return nodes


def names(volume: Volume, folder: int = ROOT_FOLDER) -> list[str]:
    return [node.name for node in children(volume, folder)]


def walk(
    volume: Volume, folder: int = ROOT_FOLDER, path: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, Node]]:
    """(path, node) of everything below `folder`, path components joined with "/" and spelt as on Linux."""
    for node in children(volume, folder):
        here = path + node.name.replace("/", ":").replace("\0", "\u2400")
        yield here, node
        if stat.S_ISDIR(node.mode) and node.broken is None and node.cnid not in above:
            yield from walk(volume, node.cnid, here + "/", (*above, node.cnid))


def whole(source: ByteSource, step: int = 1 << 20) -> bytes:
    """All bytes of a source, `step` at a time."""
    return b"".join(
        bytes(source.read(offset, min(step, source.size - offset))) for offset in range(0, source.size, step)
    )


def without_blocking(function: Callable[[], T], limit: int = 10_000) -> tuple[T, int]:
    """The result of `function` in a thread that must not block, and how often it had to be asked; what it lacked was
    loaded in between as the driver does it."""
    for attempt in range(1, limit):
        forbid_blocking()
        try:
            return function(), attempt
        except Cold as cold:
            loads = cold.loads
        finally:
            forbid_blocking(False)
        assert loads
        for load in loads:
            load.run()
    raise AssertionError("it never became warm")
