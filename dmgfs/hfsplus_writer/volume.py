"""A new volume out of a finished gathering: `write_volume` settles the inventory, places everything, makes the trees, and
returns the volume as a ByteSource whose contents are read only when it is read.

Rules that hold here:
- trees are complete before this returns, so what remains to go wrong is reading the contents;
- the volume's identifier comes from its catalog: the same objects give the same, others another.
"""

from collections.abc import Callable
from typing import NamedTuple

from dmgfs.hfsplus.header import EPOCH
from dmgfs.hfsplus.links import FILES_FOLDER, FOLDERS_FOLDER
from dmgfs.hfsplus.structs import BINARY_COMPARE, CASE_FOLDING
from dmgfs.hfsplus_writer.btree import BIG_KEYS
from dmgfs.hfsplus_writer.contents import ContentsSource, Origin, place_contents
from dmgfs.hfsplus_writer.dates import date
from dmgfs.hfsplus_writer.geometry import Geometry, Needs, Place, blocks_of, lay_out
from dmgfs.hfsplus_writer.inventory import JOURNAL_NAMES, Inventory, Item
from dmgfs.hfsplus_writer.records import attributes, attributes_size, catalog, catalog_size
from dmgfs.hfsplus_writer.structures import (
    BlockMap,
    HeaderFacts,
    journal_header,
    journal_info,
    volume_header,
)
from dmgfs.hfsplus_writer.trees import EXTENT_KEY, MOST_ATTRIBUTE_KEY, MOST_CATALOG_KEY, Trees, nodes_for, whole
from dmgfs.source import ByteSource, MemorySource, Run, RunSource
from dmgfs.volume import ROOT_FOLDER

BLOCK_SIZE = 4096
JOURNAL_SIZE = 512 << 10
"""Bytes of a journal if nobody says. What newfs_hfs gives a small volume; a large one gets `MOST_JOURNAL`."""
MOST_JOURNAL = 8 << 20
_LARGE = 128 << 20

_JOURNAL_FILE = b"jrnlhfs+" + (0x5000).to_bytes(2) + bytes(22)
_REGULAR = 0o100000


class Settings(NamedTuple):
    """hfsx: the kind (what tells case apart is the inventory's). created: Unix seconds. size: bytes of the volume, None:
    the least. around: bytes of the disk that are not volume, for messages. journal: bytes, 0: none, None: what suits the
    size. *_node, *_bytes: of the trees: size of a node, and how large its file is at least. *_clump: what forks grow
    by."""

    hfsx: bool
    created: int
    size: int | None = None
    around: int = 0
    journal: int | None = 0
    block_size: int = BLOCK_SIZE
    catalog_node: int = 8192
    attributes_node: int = 8192
    extents_node: int = 4096
    catalog_bytes: int = 0
    attributes_bytes: int = 0
    extents_bytes: int = 64 << 10
    data_clump: int = 64 << 10
    resource_clump: int = 64 << 10


class NewVolume(NamedTuple):
    """source: the volume. files, folders: as its header counts them."""

    source: ByteSource
    geometry: Geometry
    files: int
    folders: int
    id: int


def write_volume(
    inventory: Inventory,
    origin: Origin,
    settings: Settings,
    advance: Callable[[int], None] = lambda count: None,
    settled: Callable[[], None] = lambda: None,
) -> NewVolume:
    """advance: is told how many records more are made. settled: is called when the inventory is finished and nothing has
    its place yet. Raises Unwritable, OSError (no room for temporary files)."""
    block_size = settings.block_size
    journaled = settings.journal != 0
    own_names = (FILES_FOLDER, FOLDERS_FOLDER, *(JOURNAL_NAMES if journaled else ()))
    inventory.finish(date(settings.created), reserved=own_names)
    settled()
    blocks = 0

    def take(count: int) -> int:
        nonlocal blocks
        start, blocks = blocks, blocks + count
        return start

    place_contents(inventory, block_size, take)
    journal = _journal_size(settings, blocks)
    if journaled:
        _add_journal_files(inventory, block_size, journal)
    catalog_nodes = nodes_for(settings.catalog_node, block_size, settings.catalog_bytes, catalog_size(inventory))
    named = attributes_size(inventory)
    attribute_nodes = 0
    if named[0] or settings.attributes_bytes:
        attribute_nodes = nodes_for(settings.attributes_node, block_size, settings.attributes_bytes, named)
    needs = Needs(
        extents=whole(settings.extents_bytes, settings.extents_node, block_size),
        catalog=catalog_nodes * settings.catalog_node,
        attributes=attribute_nodes * settings.attributes_node,
        journal=journal,
        contents=blocks,
    )
    geometry = lay_out(needs, block_size, settings.size, settings.around)
    if journaled:
        _place_journal_files(inventory, geometry)
    base = geometry.contents.start
    trees = Trees(advance)
    compare = BINARY_COMPARE if inventory.case_sensitive else CASE_FOLDING
    catalog_tree = trees.make(
        catalog(inventory, hfsx=settings.hfsx, base=base, block_size=block_size),
        node_size=settings.catalog_node,
        nodes=catalog_nodes,
        max_key_length=MOST_CATALOG_KEY,
        key_compare=compare if settings.hfsx else 0,
        clump=geometry.clump(geometry.catalog),
    )
    attributes_tree = None
    if attribute_nodes:
        attributes_tree = trees.make(
            attributes(inventory, base=base, block_size=block_size),
            node_size=settings.attributes_node,
            nodes=attribute_nodes,
            max_key_length=MOST_ATTRIBUTE_KEY,
            clump=geometry.clump(geometry.attributes),
        )
    extents_tree = trees.make(
        (),
        node_size=settings.extents_node,
        nodes=needs.extents // settings.extents_node,
        max_key_length=EXTENT_KEY,
        flags=BIG_KEYS,
        clump=geometry.clump(geometry.extents),
    )
    objects, folders = inventory.one("SELECT count(*), sum(folder) FROM object")
    facts = HeaderFacts(
        hfsx=settings.hfsx,
        created=inventory.created,
        files=objects - folders,
        folders=folders - 1,
        next_number=inventory.next_number,
        volume_id=trees.digest(),
        clumps=(settings.data_clump, settings.resource_clump),
    )
    header = volume_header(geometry, facts)
    contents = ContentsSource(inventory, origin, blocks, block_size)
    layout = _Layout(geometry)
    layout.put(Place(0, blocks_of(1536, block_size)), MemorySource(bytes(1024) + header))
    layout.put(geometry.bitmap, BlockMap(geometry))
    layout.put(geometry.extents, extents_tree)
    if journaled:
        layout.put(geometry.journal_info, MemorySource(journal_info(geometry)))
        layout.put(geometry.journal, MemorySource(journal_header(geometry.journal.blocks * block_size)))
    if attributes_tree is not None:
        layout.put(geometry.attributes, attributes_tree)
    layout.put(geometry.catalog, catalog_tree)
    layout.put(geometry.contents, contents)
    return NewVolume(layout.finish(header), geometry, facts.files, facts.folders, facts.volume_id)


class _Layout:
    """Sources laid end to end where the geometry wants them; what nobody fills is zeros."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._runs: list[Run] = []
        self._at = 0

    def put(self, place: Place, source: ByteSource) -> None:
        """Places come in the order of the volume; what `source` is shorter than its place is zeros."""
        start = place.start * self._geometry.block_size
        if place.blocks == 0:
            return
        self._gap(start)
        self._runs.append(Run(source, 0, source.size))
        self._at += source.size

    def _gap(self, until: int) -> None:
        assert until >= self._at, "two owners of one place"
        self._runs.append(Run(None, 0, until - self._at))
        self._at = until

    def finish(self, header: bytes) -> ByteSource:
        """With the copy of the header in the last kilobyte."""
        size = self._geometry.size
        self._gap(size - 1024)
        self._runs.append(Run(MemorySource(header + bytes(512)), 0, 1024))
        return RunSource(self._runs)


# -- journal -----------------------------------------------------------------------------------------------------------


def _journal_size(settings: Settings, blocks: int) -> int:
    if settings.journal is not None:
        return settings.journal
    size = max(settings.size or 0, blocks * settings.block_size)
    return JOURNAL_SIZE if size < _LARGE else MOST_JOURNAL


def _add_journal_files(inventory: Inventory, block_size: int, size: int) -> None:
    """The two files in the root folder that own the journal's blocks."""
    created = inventory.created - EPOCH
    for name, length in zip(JOURNAL_NAMES, (blocks_of(size, block_size) * block_size, block_size), strict=True):
        item = Item(ROOT_FOLDER, name, _REGULAR, 0, 0, created, special=1, size=length, finder=_JOURNAL_FILE)
        inventory.add(item)
    inventory.flush()
    inventory.database.execute("UPDATE object SET counted=counted+2 WHERE cnid=?", (ROOT_FOLDER,))


def _place_journal_files(inventory: Inventory, geometry: Geometry) -> None:
    """Their blocks are not among the contents: places are counted from where those begin."""
    places = zip(JOURNAL_NAMES, (geometry.journal, geometry.journal_info), strict=True)
    for name, place in places:
        inventory.database.execute(
            "UPDATE object SET start=? WHERE parent=? AND key=?",
            (place.start - geometry.contents.start, ROOT_FOLDER, inventory.folding(name)),
        )
