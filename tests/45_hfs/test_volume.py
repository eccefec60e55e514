"""Built volumes come back as they were described: trees of any depth, fragmented forks, names, numbers, dates."""

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest
from builders.hfs import CREATED, File, Folder, Image
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.hfs import roman
from dmgfs.hfs.volume import HfsVolume, open_volume
from dmgfs.source import Buffer, Cold, Load, MemorySource, forbid_blocking, may_block
from dmgfs.volume import ROOT_FOLDER, Node

T = TypeVar("T")
Walk = Callable[..., Iterator[tuple[str, Node]]]


def volume_of(root: Folder, block_size: int = 512) -> HfsVolume:
    return open_volume(MemorySource(Image(root, block_size=block_size).bytes))


def content(volume: HfsVolume, node: Node) -> bytes:
    source = volume.data(node)
    return bytes(source.read(0, source.size))


names = st.text(st.sampled_from("abcXYZ09 .-_é™ßêÊ/\x01"), min_size=1, max_size=6)
files = st.builds(
    File,
    data=st.builds(lambda seed, times: seed * times, st.binary(max_size=40), st.integers(0, 200)),
    resource=st.binary(max_size=700),
    finder_info=st.binary(min_size=32, max_size=32),
    locked=st.booleans(),
    thread=st.booleans(),
    fragments=st.integers(1, 20),
)


def distinct(children: list[tuple[str, File | Folder]]) -> dict[str, File | Folder]:
    """Only the last of names that are one to HFS."""
    return dict({roman.fold(name): (name, child) for name, child in children}.values())


trees = st.recursive(
    files,
    lambda inner: st.lists(st.tuples(names, inner), max_size=8).map(lambda drawn: Folder(distinct(drawn))),
    max_leaves=20,
)


@given(tree=st.lists(st.tuples(names, trees), max_size=10), block_size=st.sampled_from([512, 1024, 2560]))
@settings(max_examples=60, deadline=None)
def test_a_described_tree_comes_back(tree: list[tuple[str, File | Folder]], block_size: int) -> None:
    root = Folder(distinct(tree))
    volume = volume_of(root, block_size)

    def check(number: int, folder: Folder) -> None:
        page = volume.children(number, None, 1000)
        assert page.next is None
        assert [node.name for node in page.nodes] == sorted(folder.children, key=roman.fold)
        for node in page.nodes:
            described = folder.children[node.name]
            assert (node.cnid, node.parent) == (described.cnid, number)
            assert volume.find(number, node.name) == volume.node(node.cnid) == node
            assert (node.finder_info, node.has_permissions, node.nlink) == (described.finder_info, False, 1)
            if isinstance(described, Folder):
                assert stat.S_ISDIR(node.mode)
                assert node.valence == len(described.children)
                check(node.cnid, described)
                continue
            assert stat.S_ISREG(node.mode)
            assert bool(node.flags & 2) == described.locked
            assert bool(node.flags & 0x8000) == bool(described.finder_info[8] & 0x40)
            assert (node.data_size, node.resource_size) == (len(described.data), len(described.resource))
            assert content(volume, node) == described.data
            resource = volume.resource(node)
            assert resource.read(0, resource.size) == described.resource
            assert volume.attributes(node) == {}

    check(ROOT_FOLDER, root)


def test_a_large_folder(walk: Walk) -> None:
    """Four levels of the catalog, paged in odd steps; files found by number without threads."""
    children = {f"Fichier {number:04d} é": File(b"%d" % number, thread=number % 3 == 0) for number in range(3000)}
    volume = volume_of(Folder(children))
    assert volume._catalog.depth == 4
    assert [path for path, _ in walk(volume, page=7)] == sorted(children, key=roman.fold)
    for name in ("Fichier 0000 é", "FICHIER 1234 É", "fichier 2999 e\N{COMBINING ACUTE ACCENT}"):
        node = volume.find(ROOT_FOLDER, name)
        assert node is not None
        assert content(volume, node) == b"%d" % int(name[8:12])
        assert volume.node(node.cnid) == node
    assert volume.find(ROOT_FOLDER, "Fichier 3000 é") is None
    assert volume.find(ROOT_FOLDER, "") is None
    assert volume.find(ROOT_FOLDER, "x" * 32) is None
    assert volume.find(ROOT_FOLDER, "Ж") is None
    assert volume.find(99999, "Fichier 0000 é") is None
    with pytest.raises(CorruptImage, match="object 99999: there is no such object"):
        volume.node(99999)


@pytest.mark.parametrize("fragments", [1, 2, 3, 4, 6, 7, 300])
def test_fragments(fragments: int) -> None:
    data = b"".join(b"%07d\n" % number for number in range(fragments * 100))
    file = File(data, data[::-1], fragments=fragments)
    volume = volume_of(Folder({"scattered": file, "other": File(data[1:], fragments=fragments)}))
    node = volume.find(ROOT_FOLDER, "scattered")
    assert node is not None
    source = volume.data(node)
    assert source.read(0, source.size) == data
    assert source.read(len(data) // 2, 300) == data[len(data) // 2 :][:300]
    resource = volume.resource(node)
    assert resource.read(0, resource.size) == data[::-1]


def test_information() -> None:
    info = volume_of(Folder({"a": File(), "b": Folder({"c": File()})})).info
    assert (info.kind, info.name, info.case_sensitive, info.journal, info.clean) == (
        "HFS",
        "Built",
        False,
        None,
        True,
    )
    assert (info.files, info.folders, info.block_size, info.free_blocks) == (2, 1, 512, 3)
    assert (info.id, list(info.attributes), list(info.warnings)) == ("0000DEAD0000BEEF", ["unmounted cleanly"], [])


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_dates_are_wall_clock(zone: str) -> None:
    file = File(created=CREATED, modified=1, backed_up=0)
    node = volume_of(Folder({"a": file})).find(ROOT_FOLDER, "a")
    assert node is not None
    assert node.created is not None
    assert node.modified is not None
    assert time.localtime(node.created)[:6] == (1999, 1, 24, 5, 20, 0)
    assert time.localtime(node.modified)[:6] == (1904, 1, 1, 0, 0, 1)
    assert (node.changed, node.accessed, node.backed_up) == (None, None, None)


def test_the_copy_of_the_master_directory_block() -> None:
    image = Image(Folder({"a": File(b"content")}))
    damaged = bytearray(image.bytes)
    damaged[1024 + 20 : 1024 + 24] = bytes(4)
    volume = open_volume(MemorySource(damaged))
    assert "its copy is used" in volume.info.warnings[0]
    node = volume.find(ROOT_FOLDER, "a")
    assert node is not None
    assert content(volume, node) == b"content"


def test_what_is_no_hfs_volume() -> None:
    with pytest.raises(NotAnImage, match="signature 0x0000"):
        open_volume(MemorySource(bytes(4096)))
    with pytest.raises(CorruptImage, match="too short"):
        open_volume(MemorySource(bytes(1100)))
    with pytest.raises(CorruptImage, match="too short"):
        open_volume(MemorySource(b""))
    with pytest.raises(Unsupported, match="MFS"):
        open_volume(MemorySource(bytes(1024) + b"\xd2\xd7" + bytes(2000)))


class Disk:
    """A source that has to fetch each block of 512 bytes once, and says so in a thread that must not block."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self._fetched: set[int] = set()

    def _fetch(self, block: int) -> None:
        assert may_block()
        self._fetched.add(block)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        blocks = range(offset // 512, (offset + length + 511) // 512)
        missing = [block for block in blocks if block not in self._fetched]
        return [Load(block, lambda block=block: self._fetch(block)) for block in missing]

    def read(self, offset: int, length: int) -> Buffer:
        loads = self.cold(offset, length)
        if loads and not may_block():
            raise Cold(loads)
        return self._data[offset : offset + length]


def test_a_thread_that_must_not_block_is_told_what_to_load(walk: Walk) -> None:
    children: dict[str, File | Folder] = {
        f"f{number}": File(b"%d" % number * 300, fragments=5) for number in range(40)
    }
    image = Image(Folder(children))
    volume = open_volume(Disk(image.bytes))

    def patiently(question: Callable[[], T]) -> tuple[T, int]:
        for asked in range(1000):
            forbid_blocking()
            try:
                return question(), asked
            except Cold as cold:
                forbid_blocking(False)
                for load in cold.loads:
                    load.run()
            finally:
                forbid_blocking(False)
        raise AssertionError("never warm")

    page, asked = patiently(lambda: volume.children(ROOT_FOLDER, None, 100))
    assert asked > 3
    assert len(page.nodes) == 40
    node, asked = patiently(lambda: volume.node(page.nodes[20].cnid))
    assert node == page.nodes[20]
    assert asked > 0
    data, asked = patiently(lambda: content(volume, node))
    assert data == children[node.name].data  # type: ignore[union-attr]
    assert asked > 0
