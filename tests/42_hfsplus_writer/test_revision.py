"""Volumes written anew around what they keep: what nobody changed is the same and where it was."""

import os
import subprocess
from pathlib import Path

import pytest
from builders.hfsplus import ROOT
from builders.sound import SoundBuilder
from builders.walk import walk

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, Unwritable
from dmgfs.hfsplus.check import check_tree
from dmgfs.hfsplus.unicode import encode
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.hfsplus_writer.base import Base
from dmgfs.hfsplus_writer.inventory import Inventory, Item
from dmgfs.hfsplus_writer.revision import Revised, revise_volume
from dmgfs.hfsplus_writer.space import Space
from dmgfs.source import ByteSource, MemorySource

REPOSITORY = Path(__file__).resolve().parents[2]
FSCK = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures")) / "hfsprogs/sbin/fsck.hfsplus"
NOISE = os.urandom(40 * 4096)
MODIFIED = 1_700_000_000


class Contents:
    def read(self, source: object, offset: int, length: int) -> bytes:
        assert isinstance(source, bytes)
        return source[offset : offset + length]


def built() -> MemorySource:
    """Fragmented files, links of both kinds, attributes of both kinds, a file without a thread."""
    volume = SoundBuilder()
    folder = volume.folder(ROOT, "folder")
    volume.file(ROOT, "forty", NOISE, extent_blocks=1)
    volume.file(folder, "both", NOISE[:9000], resource=NOISE[: 20 * 4096], extent_blocks=1)
    cnid = volume.file(folder, "attributes", b"contents", attributes={"com.example.small": b"1"})
    volume.attribute(cnid, "com.example.large", NOISE[:9999], as_fork=True)
    return MemorySource(bytes(volume.build().data))


def opened(source: ByteSource) -> HfsPlusVolume:
    volume = open_volume(source, cache=ChunkCache(1 << 20))
    assert volume.info.warnings == ()
    for tree in volume.trees():
        assert list(check_tree(tree)) == []
    return volume


def started(source: ByteSource) -> tuple[Inventory, Base]:
    base = Base(opened(source))
    inventory = Inventory(case_sensitive=base.case_sensitive)
    base.load(inventory)
    return inventory, base


def revised(inventory: Inventory, base: Base, **more: bool) -> Revised:
    return revise_volume(inventory, Contents(), base, modified=MODIFIED, **({"may_grow": True} | more))


def judge(volume: Revised, path: Path) -> None:
    if FSCK.exists():
        path.write_bytes(volume.source.read(0, volume.source.size))
        verdict = subprocess.run([FSCK, "-fn", path], capture_output=True, text=True, check=False)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_without_changes_it_holds_the_same(tmp_path: Path) -> None:
    source = built()
    volume = revised(*started(source))
    judge(volume, tmp_path / "volume")
    before, after = opened(source), opened(volume.source)
    assert list(walk(before)) == list(walk(after))
    assert after.info.modified == MODIFIED
    assert (after.info.id, after.info.created) == (before.info.id, before.info.created)
    # Once more, over the one that was just written: its trees leave room for the next ones.
    again = revised(*started(volume.source))
    judge(again, tmp_path / "again")
    assert again.source.size == volume.source.size
    assert list(walk(opened(again.source))) == list(walk(after))


def test_new_contents_go_where_nothing_stays(tmp_path: Path) -> None:
    source = built()
    inventory, base = started(source)
    number = inventory.add(Item(2, encode("new"), 0o100644, 1, 2, MODIFIED, len(NOISE), NOISE))
    inventory.database.execute(
        "UPDATE object SET size=5000, kept=0, source=? WHERE key=?", (NOISE[:5000], encode("forty"))
    )
    forty = inventory.one("SELECT cnid FROM object WHERE key=?", encode("forty"))[0]
    volume = revised(inventory, base)
    judge(volume, tmp_path / "volume")
    after = opened(volume.source)
    for cnid, data in ((number, NOISE), (forty, NOISE[:5000])):
        node = after.node(cnid)
        assert bytes(after.data(node).read(0, node.data_size)) == data
    kept = opened(source).find(2, "folder")
    assert kept is not None
    both = after.find(kept.cnid, "both")
    assert both is not None
    assert bytes(after.resource(both).read(0, 20 * 4096)) == NOISE[: 20 * 4096]


def test_a_volume_that_may_not_grow_says_what_is_missing() -> None:
    inventory, base = started(built())
    inventory.add(Item(2, encode("new"), 0o100644, 1, 2, MODIFIED, 100 << 20, b""))
    with pytest.raises(Unwritable, match="bytes more than the volume has"):
        revised(inventory, base, may_grow=False)


def test_space() -> None:
    space = Space([(0, 2), (5, 1), (7, 3)], 12)
    assert space.first(2) == 2
    assert space.next(1) == 4
    assert space.next(1) == 6
    assert space.next(2) == 10
    assert space.first(3) == 12
    assert (space.end, space.used) == (15, 15)
    assert space.map(20, 1, 3) == bytes((0xFF, 0xFE, 0b00010000))
    for taken in ([(0, 3), (2, 1)], [(10, 3)]):
        with pytest.raises(CorruptImage):
            Space(taken, 12)
