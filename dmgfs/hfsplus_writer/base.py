"""A volume that is there already as the beginning of an inventory: every object with its number and all that is recorded of
it, every fork where it is.

Rule: what cannot be read makes this fail; a new volume must not lose what the old one had.
"""

import re
from array import array
from collections.abc import Iterator
from typing import Any

from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.hfsplus.attributes import Attributes
from dmgfs.hfsplus.btree import BTree, TreeNode
from dmgfs.hfsplus.header import read_fork
from dmgfs.hfsplus.links import FILES_FOLDER
from dmgfs.hfsplus.structs import (
    CATALOG_FOLDER,
    CATALOG_KEY,
    DATA_FORK,
    DATA_FORK_OFFSET,
    FILE_RECORD,
    FOLDER_RECORD,
    INLINE_ATTRIBUTE,
    INLINE_ATTRIBUTE_HEADER,
    RESOURCE_FORK,
    RESOURCE_FORK_OFFSET,
    VolumeHeader,
)
from dmgfs.hfsplus.unicode import decode, exact
from dmgfs.hfsplus.volume import HfsPlusVolume
from dmgfs.hfsplus_writer.geometry import blocks_of
from dmgfs.hfsplus_writer.inventory import Inventory
from dmgfs.volume import ROOT_FOLDER

_BATCH = 2000
_LINK = b"hlnkhfs+"
_DERIVED_FLAGS = 0x16
"""Record flags that follow from other things: thread, attributes, folder count."""

_BAD_BLOCKS = 5
_MOST_ATTRIBUTE = 64 << 20
_COLUMNS = (
    "cnid, parent, key, name, folder, record_flags, counted, created, modified, changed, accessed, backup, uid, gid, flags,"
    " mode, special, finder, encoding, size, start, kept, resource, resource_start, resource_kept, link"
)
_INSERT = f"INSERT INTO object ({_COLUMNS}) VALUES ({', '.join('?' * 26)})"


class Base:
    """Of an HFS+ volume. header: its fields, as declared."""

    def __init__(self, volume: HfsPlusVolume) -> None:
        self.volume = volume
        self.source = volume.source
        self.header: Any = VolumeHeader.parse(bytes(volume.source.read(1024, 512)))
        self.block_size: int = self.header.blockSize
        self.hfsx = self.header.signature == 0x4858
        self.case_sensitive = volume.catalog.folding is exact

    def taken(self, inventory: Inventory) -> Iterator[tuple[int, int]]:
        """(start, blocks) of all that has a place on the volume and keeps it, in order, the header among it. Forgets the
        extents of forks that are not kept any more."""
        starts, counts = array("Q"), array("Q")

        def take(start: int, blocks: int) -> None:
            if blocks:
                starts.append(start)
                counts.append(blocks)

        take(0, blocks_of(1536, self.block_size))
        for extent in self.header.startupFile.extents:
            take(extent.startBlock, extent.blockCount)
        kept = set()
        for fork_type, prefix in ((DATA_FORK, ""), (RESOURCE_FORK, "resource_")):
            size = "resource" if prefix else "size"
            rows = inventory.rows(f"SELECT cnid, {prefix}start, {size} FROM object WHERE {prefix}kept AND NOT folder")
            for cnid, start, length in rows:
                extents = inventory.extents.get((cnid, fork_type))
                if extents is None:
                    take(start, blocks_of(length, self.block_size))
                else:
                    kept.add((cnid, fork_type))
                    for extent in extents:
                        take(*extent)
        inventory.extents = {key: extents for key, extents in inventory.extents.items() if key in kept}
        order = sorted(range(len(starts)), key=starts.__getitem__)
        return ((starts[index], counts[index]) for index in order)

    def load(self, inventory: Inventory) -> None:
        """Everything into the inventory, which is empty. Raises CorruptImage, Unsupported."""
        self._refuse_bad_blocks()
        rows: list[tuple[object, ...]] = []
        for leaf, index in _records(self.volume.catalog.tree, b""):
            row = self._object(inventory, leaf, index)
            if row is not None:
                rows.append(row)
            if len(rows) >= _BATCH:
                inventory.database.executemany(_INSERT, rows)
                rows = []
        inventory.database.executemany(_INSERT, rows)
        self._resolve_links(inventory)
        if self.volume.named is not None:
            self._attributes(inventory, self.volume.named)
        elif self.header.attributesFile.totalBlocks:
            raise CorruptImage(
                "HFS+ attributes", "tree", "it cannot be read, and a new volume would have none of them"
            )
        inventory.next_number = self.header.nextCatalogID
        (highest,) = inventory.one("SELECT max(cnid) FROM object")
        inventory.reserve(highest)

    def _refuse_bad_blocks(self) -> None:
        tree = self.volume.extents.overflow
        place = None if tree is None else tree.seek((_BAD_BLOCKS, 0, 0), beyond=False)
        if place is not None and place[0].keys[place[1]][0] == _BAD_BLOCKS:
            raise Unsupported("a new image of a volume with bad blocks", "extract it and create one")

    def _object(self, inventory: Inventory, leaf: TreeNode[bytes], index: int) -> tuple[object, ...] | None:
        data, body = leaf.data, leaf.body(index)
        _, parent, units = CATALOG_KEY.unpack_from(data, leaf.offsets[index])
        at = leaf.offsets[index] + CATALOG_KEY.size
        name = data[at : at + 2 * units]
        room = leaf.offsets[index + 1] - body
        kind = int.from_bytes(data[body : body + 2])
        folder = kind == FOLDER_RECORD
        if kind not in (FOLDER_RECORD, FILE_RECORD):
            return None
        if room < (CATALOG_FOLDER.size if folder else 248):
            raise CorruptImage("HFS+ catalog", f"{decode(name)!r} in folder {parent}", f"a record of {room} bytes")
        (
            _, flags, counted, cnid, created, modified, changed, accessed, backup, uid, gid, admin, own, mode, special,
            finder, encoding, _,
        ) = CATALOG_FOLDER.unpack_from(data, body)  # fmt: skip
        key = inventory.folding(name)
        forks: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
        link = None
        if not folder:
            forks = (
                *self._fork(inventory, data, body + DATA_FORK_OFFSET, cnid, DATA_FORK),
                *self._fork(inventory, data, body + RESOURCE_FORK_OFFSET, cnid, RESOURCE_FORK),
            )
            link = -1 if finder[:8] == _LINK else None
        return (
            cnid, parent, key, None if key == name else name, folder, flags & ~_DERIVED_FLAGS, counted, created, modified,
            changed, accessed, backup, uid, gid, admin << 16 | own, mode, special, finder, encoding, *forks, link,
        )  # fmt: skip

    def _fork(self, inventory: Inventory, data: bytes, at: int, cnid: int, fork_type: int) -> tuple[int, int, int]:
        """(size, start, whether it is kept) of a fork."""
        fork = read_fork(data, at)
        if not fork.total_blocks:
            return 0, 0, 0
        extents = self.volume.extents.all_of(fork, cnid, fork_type)
        if sum(blocks for _, blocks in extents) < max(
            fork.total_blocks, blocks_of(fork.logical_size, self.block_size)
        ):
            raise CorruptImage("HFS+", f"file {cnid}", "some of its contents have no place on the volume")
        if len(extents) > 1 or extents[0][1] != blocks_of(fork.logical_size, self.block_size):
            inventory.extents[cnid, fork_type] = extents
        return fork.logical_size, extents[0][0], 1

    def _resolve_links(self, inventory: Inventory) -> None:
        """Which object each hard link leads to."""
        database = inventory.database
        folder = database.execute(
            "SELECT cnid FROM object WHERE parent=? AND key=?", (ROOT_FOLDER, inventory.folding(FILES_FOLDER))
        ).fetchone()
        targets: list[tuple[int, int]] = []
        if folder is not None:
            behind = database.execute("SELECT cnid, coalesce(name, key) FROM object WHERE parent=?", folder)
            for cnid, name in behind.fetchall():
                match = re.fullmatch(r"iNode(\d+)", decode(bytes(name)))
                if match:
                    targets.append((cnid, int(match[1])))
        database.execute("CREATE TEMP TABLE reference (number INTEGER PRIMARY KEY, cnid INTEGER)")
        database.executemany("INSERT OR IGNORE INTO reference (cnid, number) VALUES (?, ?)", targets)
        database.execute(
            "UPDATE object SET link=(SELECT r.cnid FROM reference r WHERE r.number=special) WHERE link=-1"
        )
        database.execute("DROP TABLE reference")

    def _attributes(self, inventory: Inventory, attributes: Attributes) -> None:
        rows: list[tuple[int, bytes, bytes]] = []
        for leaf, index in _records(attributes.tree, (0, b"", 0)):
            cnid, name, block = leaf.keys[index]
            if block:
                continue
            body = leaf.body(index)
            kind = int.from_bytes(leaf.data[body : body + 4])
            size = 0
            if kind == INLINE_ATTRIBUTE:
                _, size = INLINE_ATTRIBUTE_HEADER.unpack_from(leaf.data, body)
            start = body + INLINE_ATTRIBUTE_HEADER.size
            if kind == INLINE_ATTRIBUTE and start + size <= leaf.offsets[index + 1]:
                value = leaf.data[start : start + size]
            else:
                source = attributes.get(cnid, decode(name))
                assert source is not None
                if source.size > _MOST_ATTRIBUTE:
                    raise Unsupported(f"a new image of a volume with an attribute of {source.size} bytes")
                value = bytes(source.read(0, source.size))
            rows.append((cnid, name, value))
            if len(rows) >= _BATCH:
                inventory.database.executemany("INSERT INTO attribute (cnid, name, value) VALUES (?,?,?)", rows)
                rows = []
        inventory.database.executemany("INSERT INTO attribute (cnid, name, value) VALUES (?,?,?)", rows)


def _records(tree: BTree[Any], first: Any) -> Iterator[tuple[TreeNode[Any], int]]:
    """Every record, in order."""
    place = tree.seek(first, beyond=False)
    leaf = None if place is None else place[0]
    start = 0 if place is None else place[1]
    seen = 0
    while leaf is not None:
        for index in range(start, leaf.count):
            yield leaf, index
        seen += leaf.count
        if seen > tree.header.leaf_records:
            raise CorruptImage(tree.layer, f"node {leaf.number}", "more records than the tree's header claims")
        leaf, start = tree.following(leaf), 0
    if seen < tree.header.leaf_records:
        why = f"{tree.header.leaf_records} records claimed, {seen} are there"
        raise CorruptImage(tree.layer, "header record", why)
