"""Volumes as they are written: our reader finds in them what was asked for; fsck.hfsplus finds no fault (where the fixtures
are set up)."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.errors import Unwritable
from dmgfs.hfsplus import header, structs
from dmgfs.hfsplus.check import check_tree
from dmgfs.hfsplus.unicode import decompose, encode, fold
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.hfsplus_writer import records
from dmgfs.hfsplus_writer.inventory import Inventory, Item
from dmgfs.hfsplus_writer.volume import NewVolume, Settings, write_volume
from dmgfs.source import Buffer

REPOSITORY = Path(__file__).resolve().parents[2]
FSCK = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures")) / "hfsprogs/sbin/fsck.hfsplus"
CREATED = 1_600_000_000
FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class Contents:
    """The source of an object is its contents."""

    def read(self, source: object, offset: int, length: int) -> Buffer:
        assert isinstance(source, bytes)
        assert offset + length <= len(source)
        return source[offset : offset + length]


def started(*, case_sensitive: bool = False) -> Inventory:
    inventory = Inventory(case_sensitive=case_sensitive)
    inventory.root(encode("Volume"), Item(0, b"", FOLDER, 0, 0, CREATED))
    return inventory


def add(inventory: Inventory, parent: int, name: str, data: bytes | None = None, **more: object) -> int:
    """A file, or (data is None) a folder."""
    item = Item(parent, encode(decompose(name)), FOLDER if data is None else FILE, 501, 20, CREATED)
    if data is not None:
        item = item._replace(size=len(data), source=data)
    return inventory.add(item._replace(**more))


def written(inventory: Inventory, **more: object) -> NewVolume:
    chosen = {"hfsx": inventory.case_sensitive, "created": CREATED} | more
    return write_volume(inventory, Contents(), Settings(**chosen))  # type: ignore[arg-type]


def opened(volume: NewVolume) -> HfsPlusVolume:
    reader = open_volume(volume.source, cache=ChunkCache(1 << 20))
    assert reader.info.warnings == ()
    for tree in reader.trees():
        assert list(check_tree(tree)) == []
    return reader


def judge(volume: NewVolume, path: Path) -> None:
    """fsck.hfsplus finds no fault."""
    if not FSCK.exists():
        pytest.skip("no fsck.hfsplus (scripts/fixtures/setup)")
    path.write_bytes(volume.source.read(0, volume.source.size))
    verdict = subprocess.run([FSCK, "-fn", path], capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def full(*, case_sensitive: bool) -> Inventory:
    """Everything that a volume may hold, and enough of it for trees of three levels."""
    inventory = started(case_sensitive=case_sensitive)
    folder = add(inventory, 2, "folder")
    for number in range(700):
        name = f"{'long ' * 40}{number}" if number % 3 else f"{number}"
        cnid = add(inventory, (2, folder)[number % 2], name, b"%d" % number * (number % 40))
        if number % 5 == 0:
            inventory.attribute(cnid, f"attribute {number}", b"v" * number)
    deep = folder
    for level in range(60):
        deep = add(inventory, deep, f"level {level}")
    big = add(inventory, deep, "big", os.urandom(300_000))
    inventory.attribute(big, "large", bytes(range(256)) * 40)
    inventory.attribute(big, "com.apple.ResourceFork", b"fork" * 5000)
    inventory.attribute(2, "of the root", b"value")
    target = add(inventory, 2, "first name", b"linked")
    inventory.attribute(target, "of the linked", b"1")
    for number in range(20):
        inventory.add_link((2, folder, deep)[number % 3], encode(f"link {number}"), target)
    add(inventory, 2, "symbolic", b"folder/1", mode=stat.S_IFLNK | 0o777, finder=b"slnkrhap" + bytes(24))
    add(inventory, 2, "device", None, mode=stat.S_IFCHR | 0o600, special=1 << 24 | 3)
    add(inventory, 2, "fifo", None, mode=stat.S_IFIFO | 0o600)
    add(inventory, 2, "é / \0 中", b"name")
    return inventory


@pytest.mark.parametrize("case_sensitive", [False, True])
@pytest.mark.parametrize("more", [{}, {"journal": None}, {"block_size": 512}, {"size": 80 << 20, "block_size": 8192}])
def test_fsck_finds_no_fault(case_sensitive: bool, more: dict[str, object], tmp_path: Path) -> None:
    volume = written(full(case_sensitive=case_sensitive), **more)
    judge(volume, tmp_path / "volume")


@pytest.mark.parametrize("count", [3, 60])
def test_trees_that_are_most_of_a_volume(count: int, tmp_path: Path) -> None:
    """fsck takes it for damage if a tree's file would grow by more than a quarter of the volume."""
    inventory = started()
    for number in range(count):
        inventory.attribute(add(inventory, 2, f"{'n' * 200} {number}", b""), "value", bytes(3700))
    judge(written(inventory), tmp_path / "volume")


def test_everything_is_where_it_belongs() -> None:
    reader = opened(written(full(case_sensitive=False)))
    linked = reader.find(2, "FIRST NAME")
    assert linked is not None
    assert linked.nlink == 21
    assert bytes(reader.data(linked).read(0, 6)) == b"linked"
    assert list(reader.attributes(linked)) == ["of the linked"]
    folder = reader.find(2, "folder")
    assert folder is not None
    other = reader.find(folder.cnid, "link 1")
    assert other is not None
    assert other.cnid == linked.cnid
    assert [page.name for page in reader.children(2, None, 1000).nodes if "HFS+" in page.name] == []
    device = reader.find(2, "device")
    assert device is not None
    assert (device.mode, device.special) == (stat.S_IFCHR | 0o600, 1 << 24 | 3)
    at = folder
    for level in range(60):
        below = reader.find(at.cnid, f"level {level}")
        assert below is not None
        at = below
    big = reader.find(at.cnid, "big")
    assert big is not None
    assert big.data_size == 300_000
    assert reader.resource(big).read(0, 20_000) == b"fork" * 5000
    assert reader.attributes(big)["large"].read(0, 10240) == bytes(range(256)) * 40


def test_folders_know_their_children() -> None:
    inventory = started(case_sensitive=True)
    folder = add(inventory, 2, "folder")
    add(inventory, folder, "below")
    add(inventory, folder, "Below", b"")
    reader = opened(written(inventory))
    root, found = reader.node(2), reader.find(2, "folder")
    assert found is not None
    assert (root.valence, root.folders) == (1, 1)
    assert (found.valence, found.folders) == (2, 1)


def test_contents_lie_one_behind_the_other() -> None:
    inventory = started()
    for number in range(9):
        add(inventory, 2, f"{number}", bytes([number]) * 5000)
    volume = written(inventory)
    at = volume.geometry.contents.start * 4096
    for number in range(9):
        assert volume.source.read(at + number * 8192, 5001) == bytes([number]) * 5000 + b"\0"
    # Any stretch of it, too.
    whole = bytes(volume.source.read(0, volume.source.size))
    for start in range(at - 3000, at + 40_000, 1777):
        assert volume.source.read(start, 3333) == whole[start : start + 3333]


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters=":"), min_size=1, max_size=40), st.binary(max_size=9000), max_size=30
    ),
    st.booleans(),
)
def test_any_names_and_contents(files: dict[str, bytes], case_sensitive: bool) -> None:
    chosen: dict[bytes, tuple[str, bytes]] = {}
    for name, data in files.items():
        stored = encode(decompose(name))
        if 0 < len(stored) <= 510:
            chosen[stored if case_sensitive else fold(stored)] = (name, data)
    inventory = started(case_sensitive=case_sensitive)
    for name, data in chosen.values():
        add(inventory, 2, name, data)
    volume = written(inventory)
    reader = opened(volume)
    found = {node.name: node for node in reader.children(2, None, 1000).nodes}
    assert found.keys() == {decompose(name) for name, _ in chosen.values()}
    for name, data in chosen.values():
        node = found[decompose(name)]
        assert bytes(reader.data(node).read(0, node.data_size)) == data
        assert reader.node(node.cnid) == node
    assert reader.info.files == volume.files == len(chosen)


def test_names_that_clash_are_told() -> None:
    inventory = started()
    folder = add(inventory, 2, "folder")
    for name in ("Makefile", "makefile", "other", "é", "É"):
        add(inventory, folder, name, b"")
    with pytest.raises(Unwritable) as refused:
        written(inventory)
    assert [place.split(": ")[0] for place in refused.value.places] == [
        "/folder/ 'E\u0301' and 'e\u0301'",
        "/folder/ 'Makefile' and 'makefile'",
    ]
    assert "2 names that differ only in case" in str(refused.value)


def test_names_of_the_volume_itself_are_refused() -> None:
    inventory = started(case_sensitive=True)
    add(inventory, 2, "\0\0\0\0HFS+ Private Data")
    with pytest.raises(Unwritable, match=r"names that HFS\+ needs for itself"):
        written(inventory)


def test_a_size_that_is_too_small_is_told_with_one_that_is_not() -> None:
    inventory = started()
    add(inventory, 2, "file", bytes(1 << 20))
    with pytest.raises(Unwritable, match=r"at least (\d+) are needed") as refused:
        written(inventory, size=1 << 20)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    inventory = started()
    add(inventory, 2, "file", bytes(1 << 20))
    volume = written(inventory, size=least)
    assert (volume.geometry.size, volume.geometry.free) == (least, 0)
    opened(volume)


def test_the_copy_of_the_header() -> None:
    volume = written(started())
    size = volume.source.size
    assert volume.source.read(size - 1024, 512) == volume.source.read(1024, 512)
    assert header.parse(bytes(volume.source.read(1024, 512)), 1024).free_blocks == volume.geometry.free


def test_the_same_again_gives_the_same() -> None:
    first, second = (written(full(case_sensitive=False)) for _ in range(2))
    third = written(full(case_sensitive=True))
    # (one file of `full` is random, its contents are no part of the identifier)
    assert first.id == second.id != third.id


def test_records_are_what_the_declarations_say() -> None:
    head = (1, 2, 3, 4, *range(5, 10), 10, 11, 12, 13, 14, 15, b"f" * 32, 16, 17)
    folder = structs.CatalogFolder.parse(records.FOLDER.pack(*head))
    assert (folder.recordType, folder.flags, folder.valence, folder.id, folder.createDate) == (1, 2, 3, 4, 5)
    assert (folder.bsdInfo.ownerID, folder.bsdInfo.fileMode, folder.bsdInfo.special) == (10, 14, 15)
    assert (folder.textEncoding, folder.folderCount) == (16, 17)
    inventory = started()
    inventory.extents = {(16, 0): [(7, 1), (9, 3)]}
    fork = records._Forks(inventory, 100, 4096)
    data = records.FOLDER.pack(2, *head[1:]) + fork(16, 0, 9000, 0) + fork(16, 0xFF, 200, 5)
    file = structs.CatalogFile.parse(data)
    assert len(data) == structs.CatalogFile.sizeof() == records.FILE_SIZE == 248
    for found, size, extents in ((file.dataFork, 9000, [(7, 1), (9, 3)]), (file.resourceFork, 200, [(105, 1)])):
        assert (found.logicalSize, found.totalBlocks) == (size, sum(count for _, count in extents))
        used = [(extent.startBlock, extent.blockCount) for extent in found.extents]
        assert used == extents + [(0, 0)] * (8 - len(extents))
