"""A volume of HFS standard as a `dmgfs.volume.Volume`: the master directory block, the catalog, its files.

Rules that hold here:
- objects are found by parent and name; by number through their thread record. Only folders are sure to have one, so the
  first file that is asked for by number and has none makes the volume walk its catalog once and remember where each is;
- a record that cannot be used is left out of listings, and asking for it by name raises CorruptImage.
"""

import stat
import threading
import time
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, cast

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, NotAnImage, Unsupported
from dmgfs.hfs import roman, structs
from dmgfs.hfs.btree import BTree, Place, TreeNode
from dmgfs.hfs.fork import ExtentKey, Extents, ForkSource
from dmgfs.hfs.fork import read_key as read_extent_key
from dmgfs.source import ByteSource, Cold, Load, may_block
from dmgfs.volume import ROOT_FOLDER, ROOT_PARENT, Node, Page, VolumeInfo

LAYER = "HFS catalog"
EXTENTS_FILE, CATALOG_FILE = 3, 4
FIRST_USER_ID = 16
EPOCH = 2082844800
"""Seconds from 1904 to 1970."""

_UNKNOWN_OWNER = 99
_FOLDER_MODE = stat.S_IFDIR | 0o755
_FILE_MODE = stat.S_IFREG | 0o644
# Inside Macintosh gives 65,535 files as the limit; hostile catalogs could claim millions.
_MOST_FILES = 1 << 18

CatalogKey = tuple[int, bytes]
"""Number of the folder, name as `roman.key` gives it: the order of the tree."""


class _Forks(NamedTuple):
    """(size, first extents) of the two forks of a file."""

    data: tuple[int, bytes]
    resource: tuple[int, bytes]


def read_key(data: bytes, start: int, end: int) -> CatalogKey | None:
    """The KeyReader of the catalog."""
    if end - start < 6:
        return None
    name = start + 6
    length = data[start + 5]
    if length > structs.MAX_NAME or name + length > end:
        return None
    return int.from_bytes(data[start + 1 : start + 5]), roman.key(data[name : name + length])


def unix_time(local: int) -> int | None:
    """Unix seconds of a date on the volume, None if it is not set. The volume has the wall clock of the Mac that wrote
    it; this gives the moment at which the clock of this process's zone shows the same."""
    if local == 0:
        return None
    year, month, day, hour, minute, second, *_ = time.gmtime(local - EPOCH)
    return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1)))


def open_volume(source: ByteSource, *, node_cache_bytes: int = 16 << 20) -> "HfsVolume":
    """The volume that `source` is. Raises NotAnImage if it has no master directory block, Unsupported (MFS),
    CorruptImage if the block or the head of a tree cannot be used."""
    return HfsVolume(source, node_cache_bytes)


class HfsVolume:
    """See `dmgfs.volume.Volume`."""

    def __init__(self, source: ByteSource, node_cache_bytes: int) -> None:
        self._warnings: list[str] = []
        mdb = self._read_mdb(source)
        if mdb.drAlBlSt * structs.SECTOR + mdb.drNmAlBlks * mdb.drAlBlkSiz > source.size:
            self._warnings.append("the volume is longer than its partition: what lies beyond cannot be read")
        cache: ChunkCache[Any] = ChunkCache(node_cache_bytes)
        self._extents = Extents(source, mdb.drAlBlkSiz, mdb.drAlBlSt, mdb.drNmAlBlks)
        if mdb.drXTFlSize:
            fork = self._special(mdb.drXTExtRec, mdb.drXTFlSize, EXTENTS_FILE, "extents file")
            self._extents.overflow = BTree[ExtentKey](
                fork, "HFS extents", structs.EXTENT_KEY_LENGTH, read_extent_key, cache
            )
        fork = self._special(mdb.drCTExtRec, mdb.drCTFlSize, CATALOG_FILE, "catalog file")
        self._catalog = BTree[CatalogKey](fork, LAYER, structs.CATALOG_KEY_LENGTH, read_key, cache)
        self._block_size: int = mdb.drAlBlkSiz
        self._places: dict[int, Place] | None = None
        self._walking = threading.Lock()
        name = bytes(mdb.drVN[1 : 1 + min(mdb.drVN[0], 27)])
        self._info = VolumeInfo(
            kind="HFS",
            name=roman.decode(name),
            case_sensitive=False,
            journal=None,
            clean=bool(mdb.drAtrb & structs.UNMOUNTED),
            block_size=mdb.drAlBlkSiz,
            total_blocks=mdb.drNmAlBlks,
            free_blocks=min(mdb.drFreeBks, mdb.drNmAlBlks),
            files=mdb.drFilCnt,
            folders=mdb.drDirCnt,
            created=unix_time(mdb.drCrDate),
            modified=unix_time(mdb.drLsMod),
            backed_up=unix_time(mdb.drVolBkUp),
            checked=None,
            last_mounted_by="",
            id=self._identifier(mdb.drFndrInfo),
            attributes=[text for bit, text in structs.ATTRIBUTE_NAMES.items() if mdb.drAtrb >> bit & 1],
            encodings=1,
            warnings=self._warnings,
        )

    def _read_mdb(self, source: ByteSource) -> Any:
        """The master directory block, or its copy in the last sector but one."""
        why = "the volume is too short for a master directory block"
        for offset in (structs.MDB_OFFSET, source.size - 2 * structs.SECTOR):
            if offset < structs.MDB_OFFSET or offset + structs.MDB_SIZE > source.size:
                continue
            mdb = structs.MasterDirectoryBlock.parse(bytes(source.read(offset, structs.MDB_SIZE)))
            complaint = self._complaint(mdb)
            if complaint is None:
                if offset != structs.MDB_OFFSET:
                    self._warnings.append(f"the master directory block is damaged ({why}); its copy is used")
                return mdb
            if offset == structs.MDB_OFFSET:
                why = complaint
                if mdb.drSigWord == structs.MFS_SIGNATURE:
                    raise Unsupported("MFS, the file system of 1984", "copy the files off with an emulator")
        if "signature" in why:
            raise NotAnImage(f"no HFS volume: {why}")
        raise CorruptImage("HFS", "master directory block", why, structs.MDB_OFFSET)

    @staticmethod
    def _complaint(mdb: Any) -> str | None:
        if mdb.drSigWord != structs.HFS_SIGNATURE:
            return f"signature {mdb.drSigWord:#06x}, {structs.HFS_SIGNATURE:#06x} expected"
        if mdb.drAlBlkSiz == 0 or mdb.drAlBlkSiz % structs.SECTOR:
            return f"allocation blocks of {mdb.drAlBlkSiz} bytes, a multiple of {structs.SECTOR} expected"
        return None

    def _special(self, extents: Any, size: int, number: int, name: str) -> ForkSource:
        record = b"".join(structs.ExtDescriptor.build(extent) for extent in extents)
        return self._extents.open(record, size, number, structs.DATA_FORK, name)

    @staticmethod
    def _identifier(finder_info: Any) -> str:
        number = finder_info[6] << 32 | finder_info[7]
        return f"{number:016X}" if number else ""

    # -- catalog -------------------------------------------------------------------------------------------------------

    def _entry(self, leaf: TreeNode[CatalogKey], index: int) -> tuple[Node, _Forks | None] | None:
        """The file or folder of a leaf's record; None for a thread. Raises CorruptImage."""
        start = leaf.offsets[index]
        parent, length = int.from_bytes(leaf.data[start + 2 : start + 6]), leaf.data[start + 6]
        name = roman.decode(leaf.data[start + 7 : start + 7 + length])
        record = leaf.record(index)
        kind = record[0] if record else 0
        if kind == structs.DIRECTORY_RECORD and len(record) >= structs.CATALOG_DIRECTORY.size:
            node, forks = self._folder(parent, name, record), None
        elif kind == structs.FILE_RECORD and len(record) >= structs.CATALOG_FILE.size:
            node, forks = self._file(parent, name, record)
        elif kind in (structs.DIRECTORY_THREAD, structs.FILE_THREAD):
            return None
        else:
            raise self._damaged(parent, name, f"a record of kind {kind} and {len(record)} bytes")
        if (node.cnid == ROOT_FOLDER) != (parent == ROOT_PARENT) or (
            node.cnid < FIRST_USER_ID and node.cnid != ROOT_FOLDER
        ):
            raise self._damaged(parent, name, f"number {node.cnid} must not occur there")
        return node, forks

    @staticmethod
    def _damaged(parent: int, name: str, why: str) -> CorruptImage:
        return CorruptImage(LAYER, f"{name!r} in folder {parent}", why)

    @staticmethod
    def _folder(parent: int, name: str, record: bytes) -> Node:
        _, _, valence, cnid, created, modified, backed_up, finder_info = structs.CATALOG_DIRECTORY.unpack_from(record)
        return _node(cnid, parent, name, _FOLDER_MODE, created, modified, backed_up, finder_info)._replace(
            valence=valence
        )

    def _file(self, parent: int, name: str, record: bytes) -> tuple[Node, _Forks]:
        (
            _, flags, user, cnid, size, physical, resource_size, _, created, modified, backed_up, finder,
            extents, resource_extents,
        ) = structs.CATALOG_FILE.unpack_from(record)  # fmt: skip
        node = _node(cnid, parent, name, _FILE_MODE, created, modified, backed_up, user + finder)
        node = node._replace(
            data_size=size,
            resource_size=resource_size,
            data_blocks=physical // self._block_size,
            flags=node.flags | (structs.UF_IMMUTABLE if flags & structs.FILE_LOCKED else 0),
        )
        return node, _Forks((size, extents), (resource_size, resource_extents))

    def _find(self, parent: int, name: bytes, cnid: int | None = None) -> tuple[Node, _Forks | None] | None:
        """The child of that name (and number, if it is known)."""
        key = (parent, roman.key(name))
        found = self._catalog.find(key)
        while found is not None:
            leaf, place = found
            if leaf.keys[place.slot] != key:
                return None
            entry = self._entry(leaf, place.slot)
            if entry is not None and cnid in (None, entry[0].cnid):
                return entry
            found = self._catalog.at(place._replace(slot=place.slot + 1))
        return None

    def _by_number(self, cnid: int) -> tuple[Node, _Forks | None]:
        found = self._catalog.find((cnid, b""))
        if found is not None:
            leaf, place = found
            record = leaf.record(place.slot)
            if len(record) >= structs.CATALOG_THREAD.size:
                kind, parent, length = structs.CATALOG_THREAD.unpack_from(record)
                name = record[structs.CATALOG_THREAD.size :][:length]
                if kind in (structs.DIRECTORY_THREAD, structs.FILE_THREAD) and length <= structs.MAX_NAME:
                    entry = self._find(parent, name, cnid)
                    if entry is not None:
                        return entry
        place_of = self._file_places().get(cnid)
        entry = None
        if place_of is not None:
            entry = self._entry(self._catalog.node(place_of.leaf, 1), place_of.slot)
        if entry is None:
            raise CorruptImage(LAYER, f"object {cnid}", "there is no such object")
        return entry

    def _file_places(self) -> dict[int, Place]:
        """Where the record of each file is."""
        if self._places is None:
            if not may_block():
                raise Cold((Load(("HFS files", id(self)), self._walk),))
            self._walk()
        assert self._places is not None
        return self._places

    def _walk(self) -> None:
        """Reads the whole catalog, in order; damage ends it, and what was found until then can be used."""
        with self._walking:
            if self._places is not None:
                return
            places: dict[int, Place] = {}
            try:
                place = self._catalog.seek((0, b""))
                while place is not None and len(places) < _MOST_FILES:
                    found = self._catalog.at(place)
                    if found is None:
                        break
                    leaf, place = found
                    record = leaf.record(place.slot)
                    if len(record) >= structs.CATALOG_FILE.size and record[0] == structs.FILE_RECORD:
                        places.setdefault(structs.CATALOG_FILE.unpack_from(record)[3], place)
                    place = place._replace(slot=place.slot + 1)
            except CorruptImage as error:
                self._warnings.append(f"files that stand behind the damage are not found by number: {error}")
            self._places = places

    # -- Volume --------------------------------------------------------------------------------------------------------

    @property
    def info(self) -> VolumeInfo:
        return self._info

    def fold(self, name: str) -> bytes:
        return roman.fold(name)

    def node(self, cnid: int) -> Node:
        return self._by_number(cnid)[0]

    def find(self, parent: int, name: str) -> Node | None:
        encoded = roman.encode(name)
        if not encoded or len(encoded) > structs.MAX_NAME:
            return None
        entry = self._find(parent, encoded)
        return None if entry is None else entry[0]

    def children(self, parent: int, after: Hashable | None, limit: int) -> Page:
        place = self._catalog.seek((parent, b"")) if after is None else cast(Place, after)
        nodes: list[Node] = []
        while place is not None:
            found = self._catalog.at(place)
            if found is None:
                break
            leaf, place = found
            if leaf.keys[place.slot][0] != parent:
                break
            if len(nodes) >= limit:
                return Page(nodes, place)
            try:
                entry = self._entry(leaf, place.slot)
            except CorruptImage:
                entry = None
            if entry is not None:
                nodes.append(entry[0])
            place = place._replace(slot=place.slot + 1)
        return Page(nodes, None)

    def data(self, node: Node) -> ByteSource:
        return self._fork(node, structs.DATA_FORK)

    def resource(self, node: Node) -> ByteSource:
        return self._fork(node, structs.RESOURCE_FORK)

    def _fork(self, node: Node, fork_type: int) -> ByteSource:
        entry = self._find(node.parent, roman.encode(node.name) or b"", node.cnid)
        forks = None if entry is None else entry[1]
        if forks is None:
            raise CorruptImage(LAYER, f"{node.name!r} in folder {node.parent}", "there is no such file")
        size, extents = forks.data if fork_type == structs.DATA_FORK else forks.resource
        kind = "data fork" if fork_type == structs.DATA_FORK else "resource fork"
        return self._extents.open(extents, size, node.cnid, fork_type, f"{kind} of {node.name!r}")

    def attributes(self, node: Node) -> Mapping[str, ByteSource]:
        return {}


def _node(
    cnid: int, parent: int, name: str, mode: int, created: int, modified: int, backed_up: int, finder_info: bytes
) -> Node:
    """What folders and files have in common."""
    hidden = finder_info[8] & structs.FINDER_INVISIBLE >> 8
    return Node(
        cnid=cnid,
        parent=parent,
        name=name,
        mode=mode,
        has_permissions=False,
        uid=_UNKNOWN_OWNER,
        gid=_UNKNOWN_OWNER,
        special=0,
        nlink=1,
        folders=None,
        valence=0,
        data_size=0,
        resource_size=0,
        data_blocks=0,
        created=unix_time(created),
        modified=unix_time(modified),
        changed=None,
        accessed=None,
        backed_up=unix_time(backed_up),
        flags=structs.UF_HIDDEN if hidden else 0,
        finder_info=finder_info,
        text_encoding=0,
        compressed=False,
        broken=None,
    )
