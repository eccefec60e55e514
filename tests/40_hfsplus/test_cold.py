"""A thread that must not block gets the same answers as one that may, once what it lacked has been loaded."""

import stat
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.walk import walk, whole, without_blocking

from dmgfs.cache import ChunkCache
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.source import Buffer, ByteSource, Load, MemorySource, check_range
from dmgfs.volume import Node

CHUNK = 1 << 12


class Chunked:
    """A compressed image's way of being read: in chunks that are cold until somebody decodes them."""

    def __init__(self, data: bytes | bytearray, chunks: int) -> None:
        self._data = bytes(data)
        self._cache: ChunkCache[bytes] = ChunkCache(chunks * CHUNK)
        self.size = len(data)
        self.decoded: list[int] = []

    def _decode(self, number: int) -> bytes:
        self.decoded.append(number)
        return self._data[number * CHUNK : (number + 1) * CHUNK]

    def _numbers(self, offset: int, length: int) -> range:
        return range(offset // CHUNK, -(-(offset + length) // CHUNK))

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "chunks")
        parts = [
            self._cache.get(number, lambda number=number: self._decode(number))
            for number in self._numbers(offset, length)
        ]  # type: ignore[misc]
        start = offset % CHUNK
        return b"".join(parts)[start : start + length]

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        loads: list[Load] = []
        for number in self._numbers(offset, min(length, self.size - offset)):
            loads += self._cache.load_for(number, lambda number=number: self._decode(number))  # type: ignore[misc]
        return loads


def rich_volume() -> bytearray:
    builder = HfsPlusBuilder(
        catalog_node_size=1024,
        extents_node_size=512,
        attributes_node_size=1024,
        records_per_node=4,
        catalog_extent_blocks=3,
    )
    for number in range(12):
        folder = builder.folder(ROOT, f"folder {number}")
        for inner in range(12):
            cnid = builder.file(folder, f"file {inner}", b"%d" % inner * 700, extent_blocks=1)
            builder.attribute(cnid, "com.example", b"value" * inner)
            builder.attribute(cnid, "com.big", b"V" * 5000, as_fork=True, extent_blocks=1)
        builder.file_link(folder, "link", 4000)
        builder.folder_link(folder, "folder link", 5000)
        builder.file(
            folder,
            "compressed",
            flags=0x20,
            attributes={"com.apple.decmpfs": b"fpmc\x03\0\0\0\x05\0\0\0\0\0\0\0\xffhello"},
        )
    builder.inode(4000, b"linked" * 1000, 12, extent_blocks=1)
    builder.file(builder.linked_folder(5000), "inside", b"in")
    return builder.build().data


def open_on(source: ByteSource, node_cache_bytes: int) -> HfsPlusVolume:
    return open_volume(source, cache=ChunkCache(1 << 20), node_cache_bytes=node_cache_bytes)


Ask = Callable[[Callable[[], Any]], Any]


def everything(ask: Ask, source: ByteSource, node_cache_bytes: int) -> list[Any]:
    """All that a volume says, every call made through `ask`."""
    volume: HfsPlusVolume = ask(lambda: open_on(source, node_cache_bytes))
    told: list[Any] = [volume.info]
    folders = [ROOT]
    while folders:
        folder = folders.pop()
        after = None
        while True:
            page = ask(lambda folder=folder, after=after: volume.children(folder, after, 5))
            for node in page.nodes:
                told.append(node)
                told += about(ask, volume, node)
                if stat.S_ISDIR(node.mode):
                    folders.append(node.cnid)
            after = page.next
            if after is None:
                break
    return told


def about(ask: Ask, volume: HfsPlusVolume, node: Node) -> list[Any]:
    told = [ask(lambda: volume.node(node.cnid)), ask(lambda: volume.find(node.parent, node.name.upper()))]
    attributes = volume.attributes(node)
    for name in ask(lambda: list(attributes)):
        value = ask(lambda name=name: attributes[name])
        told.append((name, ask(lambda value=value: whole(value))))
    if stat.S_ISREG(node.mode):
        source = ask(lambda: volume.data(node))
        told.append(ask(lambda: whole(source, 1000)))
    return told


@pytest.mark.parametrize("node_cache_bytes", [1, 40_000, 1 << 24])
def test_the_same_answers_without_blocking(node_cache_bytes: int) -> None:
    data = rich_volume()
    expected = everything(lambda call: call(), MemorySource(data), 1 << 24)
    attempts: list[int] = []

    def ask(call: Callable[[], Any]) -> Any:
        result, count = without_blocking(call)
        attempts.append(count)
        return result

    assert everything(ask, Chunked(data, 40), node_cache_bytes) == expected
    assert max(attempts) > 1, "nothing was ever cold, so nothing was tested"


def test_what_is_warm_is_not_loaded_again() -> None:
    source = Chunked(rich_volume(), 10_000)
    volume = open_on(source, 1 << 24)
    first = list(walk(volume))
    assert len(source.decoded) == len(set(source.decoded))
    decoded = len(source.decoded)
    again, attempts = without_blocking(lambda: list(walk(volume)))
    assert (again, attempts) == (first, 1)
    assert len(source.decoded) == decoded


def test_opening_and_listing_touch_little_of_a_large_volume() -> None:
    builder = HfsPlusBuilder(with_attributes=False)
    for number in range(5000):
        builder.file(builder.folder(ROOT, f"folder {number}"), "file")
    data = builder.build().data
    source = Chunked(data, 10_000)
    volume = open_on(source, 1 << 24)
    assert len(source.decoded) <= 12
    page = volume.children(ROOT, None, 20)
    assert len(page.nodes) == 20
    assert len(source.decoded) <= 24
    assert len(data) // CHUNK > 500


def test_many_threads_read_one_volume() -> None:
    source = Chunked(rich_volume(), 5)
    volume = open_on(source, 30_000)
    expected = list(walk(volume))
    results: list[object] = []

    def read() -> None:
        try:
            results.append(list(walk(volume)))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6
