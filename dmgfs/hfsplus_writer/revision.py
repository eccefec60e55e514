"""A volume written anew around what it keeps: the contents that did not change stay on their blocks, so that whoever packs
the volume again finds most of it as it was. Everything else (trees, map of blocks, new contents) goes where nothing stays.

Rules that hold here:
- what belongs to nobody keeps the bytes that it had;
- the volume never becomes smaller; where there is no room it grows, if it may;
- a journal that waited has been replayed by whoever opened the base, so the new volume's is empty.
"""

import struct
from collections.abc import Callable

from dmgfs.errors import Unsupported, Unwritable
from dmgfs.hfsplus.structs import (
    BINARY_COMPARE,
    CASE_FOLDING,
    DATA_FORK,
    HEADER_OFFSET,
    JOURNALED,
    UNMOUNTED,
    VolumeHeader,
)
from dmgfs.hfsplus_writer.base import Base
from dmgfs.hfsplus_writer.btree import BIG_KEYS
from dmgfs.hfsplus_writer.contents import ContentsSource, Origin, RewrittenFork, place_contents
from dmgfs.hfsplus_writer.dates import date
from dmgfs.hfsplus_writer.geometry import MOST_BLOCKS, Place, blocks_of, clump_of
from dmgfs.hfsplus_writer.inventory import Inventory
from dmgfs.hfsplus_writer.records import (
    attributes,
    attributes_size,
    catalog,
    catalog_size,
    overflow,
    overflow_size,
)
from dmgfs.hfsplus_writer.space import Space
from dmgfs.hfsplus_writer.structures import UNUSED_NODES_ARE_ZERO, fork, journal_header
from dmgfs.hfsplus_writer.trees import EXTENT_KEY, MOST_ATTRIBUTE_KEY, MOST_CATALOG_KEY, Trees, nodes_for
from dmgfs.source import ByteSource, MemorySource, Run, RunSource

_TREE_NODE, _EXTENTS_NODE = 8192, 4096
_LEAST_EXTENTS = 64 << 10
_GROWTH = 256
"""Blocks; a volume that grows does so in steps of this."""


class Revised:
    """source: the new volume. files, folders: as its header counts them. size, free: bytes."""

    def __init__(self, source: ByteSource, files: int, folders: int, free: int) -> None:
        self.source = source
        self.files = files
        self.folders = folders
        self.free = free


def revise_volume(
    inventory: Inventory,
    origin: Origin,
    base: Base,
    *,
    modified: int,
    may_grow: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> Revised:
    """The volume that the inventory describes, which `base` filled and somebody changed. modified: Unix seconds. Raises
    Unwritable, Unsupported, CorruptImage."""
    writer = _Writer(inventory, origin, base, advance)
    return writer.write(modified, may_grow)


class _Writer:
    def __init__(self, inventory: Inventory, origin: Origin, base: Base, advance: Callable[[int], None]) -> None:
        self._inventory = inventory
        self._origin = origin
        self._base = base
        self._block = base.block_size
        self._tail = blocks_of(1024, self._block)
        self._trees = Trees(advance)
        self._runs: list[tuple[int, Run]] = []
        self._space = Space((), 0)

    def write(self, modified: int, may_grow: bool) -> Revised:
        inventory, base = self._inventory, self._base
        if base.volume.info.journal in ("ignored", "external", "dirty"):
            raise Unsupported(f"a new image of a volume whose journal is {base.volume.info.journal}")
        inventory.finish(base.header.createDate, reserved=())
        self._space = Space(base.taken(inventory), base.header.totalBlocks - self._tail)
        forks = {"extentsFile": self._extents_tree(), "catalogFile": None, "attributesFile": None}
        place_contents(inventory, self._block, self._space.next)
        forks["catalogFile"], forks["attributesFile"] = self._catalog_tree(), self._attributes_tree()
        total, forks["allocationFile"] = self._map()
        if total > base.header.totalBlocks and not may_grow:
            missing = (total - base.header.totalBlocks) * self._block
            raise Unwritable(
                f"the changes need {missing} bytes more than the volume has, and its partition cannot grow"
            )
        contents = ContentsSource(inventory, self._origin, total, self._block)
        for start, size in inventory.database.execute("SELECT start, size FROM piece").fetchall():
            length = blocks_of(size, self._block) * self._block
            self._put(start * self._block, Run(contents, start * self._block, length))
        self._write_over()
        objects, folders = inventory.one("SELECT count(*), sum(folder) FROM object")
        header = self._header(forks, total, objects, folders, modified)
        self._put(HEADER_OFFSET, Run(MemorySource(header), 0, len(header)))
        self._put(total * self._block - 1024, Run(MemorySource(header), 0, len(header)))
        self._empty_journal()
        source = self._joined(total * self._block)
        return Revised(source, objects - folders, folders - 1, (total - self._space.used - self._tail) * self._block)

    def _write_over(self) -> None:
        """Forks that stay where they are and have other contents."""
        rows = self._inventory.rows(
            "SELECT cnid, start, size, source FROM object WHERE kept AND source IS NOT NULL AND size"
        )
        for cnid, start, size, source in rows:
            contents = RewrittenFork(self._origin, source, size, self._block)
            at = 0
            for first, blocks in self._inventory.extents.get(
                (cnid, DATA_FORK), [(start, blocks_of(size, self._block))]
            ):
                length = min(blocks * self._block, contents.size - at)
                if length > 0:
                    self._put(first * self._block, Run(contents, at, length))
                at += length

    def _put(self, at: int, run: Run) -> None:
        self._runs.append((at, run))

    def _joined(self, size: int) -> ByteSource:
        """What was put, over the base, over zeros."""
        runs: list[Run] = []
        at = 0
        old = self._base.source

        def below(until: int) -> None:
            nonlocal at
            known = min(until, old.size)
            if known > at:
                runs.append(Run(old, at, known - at))
                at = known
            runs.append(Run(None, 0, until - at))
            at = until

        for start, run in sorted(self._runs, key=lambda each: each[0]):
            below(start)
            runs.append(run)
            at = start + run.length
        below(size)
        return RunSource(runs)

    # -- trees and map ---------------------------------------------------------------------------------------------------

    def _file(self, source: ByteSource) -> dict[str, object]:
        """A file of the volume itself: placed, and its fork."""
        blocks = blocks_of(source.size, self._block)
        start = self._space.first(blocks)
        self._put(start * self._block, Run(source, 0, source.size))
        return fork(source.size, self._clump(source.size), Place(start, blocks))

    def _clump(self, size: int) -> int:
        return clump_of(size, self._base.header.totalBlocks, self._block)

    def _extents_tree(self) -> dict[str, object]:
        records = overflow_size(self._inventory)
        nodes = nodes_for(_EXTENTS_NODE, self._block, _LEAST_EXTENTS, records)
        return self._file(
            self._trees.make(
                overflow(self._inventory),
                node_size=_EXTENTS_NODE,
                nodes=nodes,
                max_key_length=EXTENT_KEY,
                flags=BIG_KEYS,
                clump=self._clump(nodes * _EXTENTS_NODE),
            )
        )

    def _catalog_tree(self) -> dict[str, object]:
        inventory, base = self._inventory, self._base
        nodes = nodes_for(_TREE_NODE, self._block, 0, catalog_size(inventory))
        compare = BINARY_COMPARE if inventory.case_sensitive else CASE_FOLDING
        return self._file(
            self._trees.make(
                catalog(inventory, hfsx=base.hfsx, base=0, block_size=self._block),
                node_size=_TREE_NODE,
                nodes=nodes,
                max_key_length=MOST_CATALOG_KEY,
                key_compare=compare if base.hfsx else 0,
                clump=self._clump(nodes * _TREE_NODE),
            )
        )

    def _attributes_tree(self) -> dict[str, object]:
        size = attributes_size(self._inventory)
        if not size[0]:
            return fork(0, 0, Place(0, 0))
        nodes = nodes_for(_TREE_NODE, self._block, 0, size)
        return self._file(
            self._trees.make(
                attributes(self._inventory, base=0, block_size=self._block),
                node_size=_TREE_NODE,
                nodes=nodes,
                max_key_length=MOST_ATTRIBUTE_KEY,
                clump=self._clump(nodes * _TREE_NODE),
            )
        )

    def _map(self) -> tuple[int, dict[str, object]]:
        """(blocks of the volume, fork of the map). The map covers itself."""
        old: int = self._base.header.totalBlocks
        blocks = blocks_of(-(-old // 8), self._block)
        trial = self._space.end + self._tail
        if trial > old:
            blocks = blocks_of(-(-(trial + blocks + 2 * _GROWTH) // 8), self._block)
        start = self._space.first(blocks)
        total = old
        if self._space.end + self._tail > old:
            total = -(-(self._space.end + self._tail) // _GROWTH) * _GROWTH
            if blocks_of(-(-total // 8), self._block) > blocks or total > MOST_BLOCKS:
                raise Unwritable("the volume would have more blocks than its map can count")
        size = blocks * self._block
        map_ = MemorySource(self._space.map(total, self._tail, size))
        self._put(start * self._block, Run(map_, 0, size))
        return total, fork(size, self._clump(size), Place(start, blocks))

    # -- what is there once ----------------------------------------------------------------------------------------------

    def _header(
        self, forks: "dict[str, dict[str, object] | None]", total: int, objects: int, folders: int, modified: int
    ) -> bytes:
        old = self._base.header
        header: bytes = VolumeHeader.build(
            {
                **old,
                **forks,
                "attributes": old.attributes | UNMOUNTED | UNUSED_NODES_ARE_ZERO,
                "modifyDate": date(modified),
                "fileCount": objects - folders,
                "folderCount": folders - 1,
                "totalBlocks": total,
                "freeBlocks": total - self._space.used - self._tail,
                "nextAllocation": min(self._space.end, total - 1),
                "nextCatalogID": self._inventory.next_number,
                "writeCount": old.writeCount + 1 & 0xFFFFFFFF,
            }
        )
        return header

    def _empty_journal(self) -> None:
        if not self._base.header.attributes & JOURNALED or self._base.volume.info.journal != "replayed":
            return
        at = self._base.header.journalInfoBlock * self._block
        _, offset, size = struct.unpack(">I32xQQ", self._base.source.read(at, 52))
        header = journal_header(size)
        self._put(offset, Run(MemorySource(header), 0, len(header)))
