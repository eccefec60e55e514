"""An HFS+ or HFSX volume: the parts put together as `dmgfs.volume.Volume`.

Rules that hold here:
- opening reads the header, three tree headers and the few records that name the volume and its private folders, however
  large the volume is; everything else is read when it is asked for;
- a damaged header or catalog header is an error of opening; a damaged extents or attributes tree is a warning, and an
  error of each request that needs it;
- all that is kept is a cache of decoded nodes and of the objects asked for last, so every method may be called again
  with the same arguments.
"""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from lru import LRU

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, NotAnImage
from dmgfs.hfsplus import decmpfs, journal
from dmgfs.hfsplus.attributes import DECMPFS, Attributes, AttributesOf
from dmgfs.hfsplus.btree import BTree
from dmgfs.hfsplus.catalog import Catalog, Leaf, Thread, Unfinished
from dmgfs.hfsplus.extents import Extents
from dmgfs.hfsplus.header import EPOCH, Fork, Header, read_header, unwrap
from dmgfs.hfsplus.links import Links
from dmgfs.hfsplus.structs import ATTRIBUTE_NAMES, DATA_FORK, JOURNALED, RESOURCE_FORK, UNMOUNTED
from dmgfs.hfsplus.unicode import MAX_NAME_UNITS, decode, decompose, encode, exact
from dmgfs.source import Buffer, ByteSource, MemorySource
from dmgfs.volume import ROOT_FOLDER, Node, Page, Volume, VolumeInfo

LAYER = "HFS+"
CATALOG_FILE_ID = 4
ATTRIBUTES_FILE_ID = 8

NODE_CACHE_BYTES = 16 << 20

LISTED_PLACES = 32_768
"""Files whose records need not be searched for: who lists a folder reads its files next. About 100 bytes each."""

_INDEX_BITS = 16  # more records than that do not fit in a node
_INDEX_MASK = (1 << _INDEX_BITS) - 1

RECENT_OBJECTS = 1024
"""Objects found again by their number without a look at their record: who asks for one asks again. Some
700 bytes each."""

_JOURNAL_FILES = (encode(".journal"), encode(".journal_info_block"))
_FOLDER = 0o040000
_NOTHING_HIDDEN: frozenset[str] = frozenset()
_COMPRESSION_HIDDEN = frozenset((DECMPFS,))
_MOST_WARNINGS = 100
_LARGEST_DECMPFS = 1 << 20
"""Bytes of a decmpfs attribute. Apple writes 3802 at most; the bound only keeps a forged one out of memory."""


class Followed(Node):
    """A hard link, followed: its number is that of what it leads to, its place is its own. Not what that number means."""

    __slots__ = ()


def open_volume(
    source: ByteSource,
    *,
    cache: ChunkCache[Buffer],
    node_cache_bytes: int = NODE_CACHE_BYTES,
    replay: bool = True,
    show_private: bool = False,
) -> "HfsPlusVolume":
    """The volume in `source` (or in the HFS wrapper there).

    cache: for the decompressed blocks of compressed files. node_cache_bytes: budget for decoded B-tree nodes. replay:
    apply what waits in the journal, in memory. show_private: list and find the private metadata items as well. Raises
    NotAnImage (no HFS+ volume), CorruptImage, Unsupported.
    """
    source, warnings = unwrap(source)
    header, more = read_header(source)
    warnings += more
    journal_status, journal_detail = None, ""
    if header.attributes & JOURNALED:
        replayed = journal.replay(
            source, journal_info_block=header.journal_info_block, block_size=header.block_size, apply=replay
        )
        warnings += replayed.warnings
        journal_status, journal_detail = replayed.status, replayed.reason
        if replayed.status == "replayed":
            try:
                header, _ = read_header(replayed.source)
                source = replayed.source
            except (NotAnImage, CorruptImage) as damage:
                journal_status, journal_detail = "ignored", f"it would overwrite the volume header ({damage})"
                warnings.append(f"the journal is ignored: {journal_detail}")
    elif not header.attributes & UNMOUNTED:
        warnings.append("the volume was not unmounted cleanly and has no journal")
    if header.total_blocks * header.block_size > source.size:
        warnings.append(
            f"the volume has {header.total_blocks * header.block_size} bytes, only {source.size} are there"
        )
    return HfsPlusVolume(
        source, header, (journal_status, journal_detail), warnings, cache, node_cache_bytes, show_private
    )


class HfsPlusVolume:
    """See `dmgfs.volume.Volume`; made by `open_volume`. source: the bytes of the volume, its journal replayed."""

    def __init__(
        self,
        source: ByteSource,
        header: Header,
        journal_state: tuple[str | None, str],
        warnings: list[str],
        cache: ChunkCache[Buffer],
        node_cache_bytes: int,
        show_private: bool,
    ) -> None:
        self._header = header
        self.source = source
        self._warnings = warnings
        self._cache = cache
        self._identity = object()
        self._recent: LRU[int, Node] = LRU(RECENT_OBJECTS)
        self._places: dict[int, int] = {}  # file → leaf and index of its record, as listed
        self._last_record: tuple[int, Leaf | None, int] = 0, None, 0  # who asks for an object opens it next
        nodes: ChunkCache[Any] = ChunkCache(node_cache_bytes)
        self._extents = Extents(source, header.block_size, header.total_blocks)
        try:
            self._extents.open_tree(header.extents, nodes)
        except CorruptImage as damage:
            self._warn(f"the extents overflow tree is damaged, fragmented files are incomplete ({damage})")
        self._catalog = Catalog(self._extents.special(header.catalog, "catalog file", CATALOG_FILE_ID), header, nodes)
        self._attributes: Attributes | None = None
        self._attributes_damage: CorruptImage | None = None
        if header.attributes_tree.total_blocks:
            try:
                self._attributes = self._open_attributes(source, nodes)
            except CorruptImage as damage:
                self._warn(f"the attributes tree is damaged, extended attributes are missing ({damage})")
                self._attributes_damage = damage
        root_name = self._catalog.thread(ROOT_FOLDER).name
        self._links = Links(self._catalog, header.created, root_name)
        if self._links.damage is not None:
            self._warn(f"hard links cannot be followed ({self._links.damage})")
        self._catalog.links_folder = self._links.files_folder
        self._catalog.folder_links_folder = self._links.folders_folder
        self._hidden: frozenset[int] = frozenset() if show_private else self._private_items()
        private = {self._links.files_folder, self._links.folders_folder}
        self._hidden_folders = len(private & self._hidden)
        self._info = self._describe(decode(root_name), *journal_state)

    def _open_attributes(self, source: ByteSource, nodes: ChunkCache[Any]) -> Attributes:
        header = self._header
        tree = self._extents.special(header.attributes_tree, "attributes file", ATTRIBUTES_FILE_ID)
        return Attributes(tree, source, header.block_size, header.total_blocks, nodes)

    def _private_items(self) -> frozenset[int]:
        """Numbers of what the root folder does not show."""
        items = {self._links.files_folder, self._links.folders_folder}
        if self._header.attributes & JOURNALED:
            for name in _JOURNAL_FILES:
                try:
                    place = self._catalog.find(ROOT_FOLDER, name)
                except CorruptImage:  # then the listing fails there as well
                    continue
                if place is not None:
                    items.add(self._catalog.number_at(*place))
        return frozenset(items - {0})

    def _warn(self, warning: str) -> None:
        if warning not in self._warnings and len(self._warnings) < _MOST_WARNINGS:
            self._warnings.append(warning)

    # -- the volume ----------------------------------------------------------------------------------------------------

    def _describe(self, name: str, journal_status: str | None, journal_detail: str) -> VolumeInfo:
        header = self._header

        def unix(date: int) -> int | None:
            return date - EPOCH if date else None

        return VolumeInfo(
            kind=header.kind,
            name=name,
            case_sensitive=self._catalog.folding is exact,
            journal=journal_status,
            clean=header.attributes & UNMOUNTED != 0,
            block_size=header.block_size,
            total_blocks=header.total_blocks,
            free_blocks=header.free_blocks,
            files=header.files,
            folders=header.folders,
            created=unix(header.created),
            modified=unix(header.modified),
            backed_up=unix(header.backed_up),
            checked=unix(header.checked),
            last_mounted_by=header.last_mounted_by.decode("mac_roman"),
            id=f"{header.volume_id:016x}" if header.volume_id else "",
            attributes=[name for bit, name in ATTRIBUTE_NAMES.items() if header.attributes >> bit & 1],
            encodings=header.encodings,
            warnings=(),
            journal_detail=journal_detail,
        )

    @property
    def info(self) -> VolumeInfo:
        return self._info._replace(warnings=tuple(self._warnings))

    def fold(self, name: str) -> bytes:
        return self._catalog.folding(encode(decompose(name)))

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def extents(self) -> Extents:
        return self._extents

    @property
    def named(self) -> Attributes | None:
        """The attributes tree, None if there is none."""
        return self._attributes

    def trees(self) -> list[BTree[Any]]:
        """The volume's B-trees, those that could be opened: for checking them as a whole."""
        attributes = self._attributes.tree if self._attributes is not None else None
        return [tree for tree in (self._catalog.tree, self._extents.overflow, attributes) if tree is not None]

    # -- objects -------------------------------------------------------------------------------------------------------

    def node(self, cnid: int) -> Node:
        node: Node | None = self._recent.get(cnid)
        if node is not None:
            return node
        node = self._finished(*self._record(cnid))
        if cnid == ROOT_FOLDER and node.folders is not None:
            node = node._replace(folders=max(0, node.folders - self._hidden_folders))
        if node.cnid == cnid:
            self._recent[cnid] = node
        return node

    def _record(self, cnid: int) -> tuple[Leaf, int]:
        """The catalog record with this number."""
        last, leaf, index = self._last_record
        if last == cnid and leaf is not None:
            return leaf, index
        place = self._places.get(cnid)
        if place is not None:
            leaf, index = self._catalog.tree.node(place >> _INDEX_BITS, 1), place & _INDEX_MASK
        else:
            leaf, index = self._catalog.by_number(cnid)
            number = self._catalog.number_at(leaf, index)
            if number != cnid:
                raise CorruptImage(LAYER, f"object {cnid}", f"object {number} is in its place")
        self._last_record = cnid, leaf, index
        return leaf, index

    def find(self, parent: int, name: str) -> Node | None:
        node = self._find(parent, name)
        if node is None and (stored := decompose(name)) != name:
            node = self._find(parent, stored)
        return node

    def _find(self, parent: int, name: str) -> Node | None:
        encoded = encode(name)
        if len(encoded) > 2 * MAX_NAME_UNITS:
            return None
        place = self._catalog.find(parent, encoded)
        if place is None or isinstance(self._catalog.entry(*place), Thread):
            return None
        node = self._finished(*place)
        return None if parent == ROOT_FOLDER and node.cnid in self._hidden else node

    def children(self, parent: int, after: Hashable | None, limit: int) -> Page:
        catalog = self._catalog
        hidden = self._hidden if parent == ROOT_FOLDER else frozenset()
        places = self._places
        if len(places) > LISTED_PLACES:
            places.clear()
        nodes: list[Node] = []
        # The cursor is the key of the last record seen. The smallest key of a folder is that of its thread.
        cursor = after if isinstance(after, bytes) else catalog.first_key(parent)
        place = catalog.tree.seek(cursor, beyond=True)
        while place is not None:
            leaf, start = place
            end = catalog.end_in(leaf, parent, start)
            base = leaf.number << _INDEX_BITS
            for index in range(start, end):
                if len(nodes) >= limit:
                    return Page(nodes, cursor)
                entry = leaf.memo[index] or catalog.entry(leaf, index)
                if entry.__class__ is not Node:
                    entry = self._listed(leaf, index)
                elif entry.mode & 0xF000 != _FOLDER:  # a folder's place must be that of its thread, here and always
                    places[entry.cnid] = base | index
                if entry is not None and entry.cnid not in hidden:
                    nodes.append(entry)
                cursor = leaf.keys[index]
            if end < leaf.count:
                break
            following = catalog.tree.following(leaf)
            place = None if following is None else (following, 0)
        return Page(nodes, None)

    def _listed(self, leaf: Leaf, index: int) -> Node | None:
        """The object for a listing; None and a warning if its record cannot be shown."""
        entry = self._catalog.entry(leaf, index)
        if isinstance(entry, CorruptImage):
            self._warn(str(entry))
            return None
        return None if isinstance(entry, Thread) else self._finished(leaf, index)

    def _finished(self, leaf: Leaf, index: int) -> Node:
        """The object of a record, links followed. Raises the CorruptImage of a damaged record."""
        entry = self._catalog.entry(leaf, index)
        if isinstance(entry, Node):
            return entry
        if isinstance(entry, CorruptImage):
            raise entry.with_traceback(None)
        if isinstance(entry, Thread):
            raise CorruptImage(LAYER, f"folder {entry.parent}", "a thread stands in place of a file")
        node = self._follow(entry) if entry.link else self._measure(entry.node)
        leaf.memo[index] = node
        return node

    def _follow(self, link: Unfinished) -> Node:
        """The object behind a hard link, under the link's name; the link itself, broken, if there is none."""
        here = link.node
        try:
            place = self._links.target(link)
            if place is None:
                return self._links.without_target(link)
            target = self._finished(*place)
        except CorruptImage as damage:
            return here._replace(broken=f"hard link: {damage}")
        if (target.mode & 0xF000 == _FOLDER) != link.to_folder:
            return here._replace(broken=f"hard link to object {target.cnid}, which is of another kind")
        if link.to_folder and self._links.inside(here.parent, target.cnid):
            return here._replace(broken=f"hard link to folder {target.cnid}, which it lies in")
        return Followed._make(target._replace(parent=here.parent, name=here.name))

    # -- contents ------------------------------------------------------------------------------------------------------

    def _measure(self, node: Node) -> Node:
        """A compressed file with its size after decompression; as recorded where that cannot be told (`data` raises)."""
        try:
            value = self._compression(node.cnid, 16)
            return node._replace(data_size=decmpfs.header(value).uncompressed_size)
        except CorruptImage:
            return node

    def _compression(self, cnid: int, most: int) -> Buffer:
        """Up to `most` bytes of a file's decmpfs attribute."""
        value = self._attributes_tree().get(cnid, DECMPFS)
        if value is None:
            raise CorruptImage(LAYER, f"compressed file {cnid}", f"it has no attribute {DECMPFS}")
        return value.read(0, min(value.size, most))

    def _attributes_tree(self) -> Attributes:
        if self._attributes is not None:
            return self._attributes
        if self._attributes_damage is not None:
            raise self._attributes_damage.with_traceback(None)
        raise CorruptImage(LAYER, "attributes file", "the volume has none")

    def _forks(self, node: Node) -> tuple[Fork, Fork]:
        """Data and resource fork of a file as its record describes them."""
        last, leaf, index = self._last_record
        if last == node.cnid and leaf is not None:
            return self._catalog.forks(leaf, index)
        place = self._catalog.find(node.parent, encode(node.name))
        if place is None or self._catalog.number_at(*place) != node.cnid:
            place = self._record(node.cnid)
        return self._catalog.forks(*place)

    def data(self, node: Node) -> ByteSource:
        if node.broken is not None:
            raise CorruptImage(LAYER, f"{node.name!r} in folder {node.parent}", node.broken)
        data, resource = self._forks(node)
        name = f"data fork of file {node.cnid}"
        if not node.compressed:
            return self._extents.open(data, node.cnid, DATA_FORK, name)
        attribute = self._compression(node.cnid, _LARGEST_DECMPFS)
        packed = self._extents.open(resource, node.cnid, RESOURCE_FORK, f"resource fork of file {node.cnid}")
        return decmpfs.open_compressed(attribute, packed, self._cache, (self._identity, node.cnid))

    def resource(self, node: Node) -> ByteSource:
        if node.compressed or node.resource_size == 0 or node.broken is not None:
            return MemorySource(b"")
        _, resource = self._forks(node)
        return self._extents.open(resource, node.cnid, RESOURCE_FORK, f"resource fork of file {node.cnid}")

    def attributes(self, node: Node) -> Mapping[str, ByteSource]:
        if self._attributes_damage is not None:
            raise self._attributes_damage.with_traceback(None)
        return AttributesOf(self._attributes, node.cnid, _COMPRESSION_HIDDEN if node.compressed else _NOTHING_HIDDEN)


if TYPE_CHECKING:

    def _is_a_volume(volume: HfsPlusVolume) -> Volume:
        return volume
