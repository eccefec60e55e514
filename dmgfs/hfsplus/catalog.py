"""The catalog tree: names, folders, files (TN1150 "Catalog File").

A leaf's records are decoded one by one when they are first asked for and kept with the leaf (`TreeNode.memo`), so a node
that stays in the cache is decoded once. A damaged record is a CorruptImage in its own place; the others of its leaf are
not affected. What a record alone cannot tell (where a hard link leads, how long a compressed file is) is left to
`volume.py`: such entries are `Unfinished`.
"""

import stat
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.hfsplus.btree import BadKey, BTree, TreeNode
from dmgfs.hfsplus.header import EPOCH, Fork, Header, read_fork
from dmgfs.hfsplus.structs import (
    BINARY_COMPARE,
    CASE_FOLDING,
    CATALOG_FILE,
    CATALOG_FOLDER,
    CATALOG_KEY,
    CATALOG_THREAD,
    DATA_FORK_OFFSET,
    EXPANDED_TIMES,
    FILE_RECORD,
    FILE_THREAD,
    FINDER_INVISIBLE,
    FOLDER_RECORD,
    FOLDER_THREAD,
    HAS_EXPANDED_TIMES,
    HAS_FOLDER_COUNT,
    HAS_LINK_CHAIN,
    HFSX_SIGNATURE,
    RESOURCE_FORK_OFFSET,
    UF_COMPRESSED,
    UF_HIDDEN,
)
from dmgfs.hfsplus.unicode import Folding, decode, encode, exact, fold
from dmgfs.source import ByteSource
from dmgfs.volume import ROOT_FOLDER, ROOT_PARENT, Node

LAYER = "HFS+ catalog"
FIRST_USER_ID = 16
LARGEST_SIZE = (1 << 63) - 1

FILE_LINK = b"hlnkhfs+"
FOLDER_LINK = b"fdrpMACS"
_INODE_PREFIX = encode("iNode")

_FOLDER_TYPE = stat.S_IFDIR
_FILE_TYPES = frozenset((stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK))
_DEVICE_TYPES = frozenset((stat.S_IFCHR, stat.S_IFBLK))
_DEFAULT_FOLDER_MODE = stat.S_IFDIR | 0o755
_DEFAULT_FILE_MODE = stat.S_IFREG | 0o644


_make = tuple.__new__
"""Makes a Node of a tuple of all its fields in order, at half the cost of calling the class."""

_LEAST_SIZE = {
    FOLDER_RECORD: CATALOG_FOLDER.size,
    FILE_RECORD: CATALOG_FILE.size,
    FOLDER_THREAD: CATALOG_THREAD.size,
    FILE_THREAD: CATALOG_THREAD.size,
}


class Thread(NamedTuple):
    """Where the object with the key's number stands."""

    parent: int
    name: bytes


class Unfinished(NamedTuple):
    """A file whose record is not the whole truth. node: what the record says. link: the number in the name of the
    object that a hard link leads to, 0 if it is none. to_folder: of which kind. created: the record's date as on disk."""

    node: Node
    link: int
    to_folder: bool
    created: int


Entry = Node | Unfinished | Thread | CorruptImage

Leaf = TreeNode[bytes]


def key_of(parent: int, folded: bytes = b"") -> bytes:
    """The tree's key: parent, then the name's sort key; byte order is the tree's order."""
    return parent.to_bytes(4) + folded


def end_of(parent: int) -> bytes:
    """A key above all of `parent` and not above any of the next."""
    return (parent + 1).to_bytes(4) if parent < 0xFFFFFFFF else b"\xff" * 520


class KeyReader:
    """The KeyReader of a catalog whose names are compared by `folding`."""

    def __init__(self, folding: Folding) -> None:
        self.folding = folding

    def __call__(self, data: bytes, offsets: Sequence[int]) -> list[bytes]:
        folding = self.folding
        unpack = CATALOG_KEY.unpack_from
        keys = []
        start = offsets[0]
        for index, end in enumerate(offsets[1:]):
            if end - start < 8:
                raise BadKey(index, "the record is shorter than its key")
            length, _, units = unpack(data, start)
            if 6 + 2 * units > length or length > 516 or length + 2 > end - start:
                raise BadKey(index, f"{length} bytes for a name of {units} units in a record of {end - start}")
            name = data[start + 8 : start + 8 + 2 * units]
            keys.append(data[start + 2 : start + 6] + folding(name))
            start = end
        return keys


def _comparison(key_compare_type: int) -> Folding:
    """How an HFSX volume compares names. Raises Unsupported."""
    if key_compare_type == BINARY_COMPARE:
        return exact
    if key_compare_type == CASE_FOLDING:
        return fold
    raise Unsupported(f"HFSX name comparison {key_compare_type:#x}", "0xbc and 0xcf are known")


class Catalog:
    """The catalog of one volume. links_folder, folder_links_folder: numbers of the folders that hold what is behind hard
    links, 0 if there is none; whoever opens the volume finds them with `folder_number` before anything is decoded."""

    def __init__(self, source: ByteSource, header: Header, cache: ChunkCache[Any]) -> None:
        self._expanded_times = header.attributes & EXPANDED_TIMES != 0
        self.links_folder = 0
        self.folder_links_folder = 0
        reader = KeyReader(fold)
        self.tree: BTree[bytes] = BTree(source, LAYER, reader, cache)
        if header.signature == HFSX_SIGNATURE:  # on HFS+ the field means nothing
            reader.folding = _comparison(self.tree.header.key_compare_type)
        self.folding = reader.folding

    def find(self, parent: int, name: bytes) -> tuple[Leaf, int] | None:
        """The record of the child of `parent` called `name` (UTF-16BE, as stored)."""
        return self.tree.find(key_of(parent, self.folding(name)))

    def thread(self, cnid: int) -> Thread:
        """Where `cnid` stands. Raises CorruptImage if nothing says so."""
        place = self.tree.find(key_of(cnid))
        entry = None if place is None else self.entry(*place)
        if isinstance(entry, CorruptImage):
            raise entry
        if not isinstance(entry, Thread):
            raise CorruptImage(LAYER, f"object {cnid}", "there is no such object")
        return entry

    def by_number(self, cnid: int) -> tuple[Leaf, int]:
        """The record of object `cnid`, by way of its thread. Raises CorruptImage."""
        thread = self.thread(cnid)
        place = self.find(thread.parent, thread.name)
        if place is None:
            raise CorruptImage(LAYER, f"object {cnid}", f"it is not in folder {thread.parent}, where it should be")
        return place

    @staticmethod
    def _kind(leaf: Leaf, index: int) -> int:
        """The type of a record: 0 if it is too short for its type, or for any."""
        body = leaf.body(index)
        room = leaf.offsets[index + 1] - body
        kind = leaf.data[body] << 8 | leaf.data[body + 1] if room >= 2 else 0
        least = _LEAST_SIZE.get(kind)
        return 0 if least is None or room < least else kind

    def number_at(self, leaf: Leaf, index: int) -> int:
        """The number in a folder or file record, 0 if it is neither."""
        if self._kind(leaf, index) not in (FOLDER_RECORD, FILE_RECORD):
            return 0
        body = leaf.body(index)
        return int.from_bytes(leaf.data[body + 8 : body + 12])

    @staticmethod
    def first_key(folder: int) -> bytes:
        """The key before all children of `folder`: that of its thread."""
        return key_of(folder)

    def end_in(self, leaf: Leaf, parent: int, start: int) -> int:
        """The first index from `start` on in `leaf` that is no child of `parent`."""
        return bisect_left(leaf.keys, end_of(parent), start)

    # -- records ---------------------------------------------------------------------------------------------------------

    def folder_number(self, parent: int, name: bytes) -> tuple[int, int]:
        """Number and creation date (as on disk) of the folder `name` in `parent`; (0, 0) if there is none. Decodes
        nothing that is kept."""
        place = self.find(parent, name)
        if place is None:
            return 0, 0
        leaf, index = place
        if self._kind(leaf, index) != FOLDER_RECORD:
            return 0, 0
        record = CATALOG_FOLDER.unpack_from(leaf.data, leaf.body(index))
        return record[3], record[4]

    def forks(self, leaf: Leaf, index: int) -> tuple[Fork, Fork]:
        """Data and resource fork of a file record. Raises CorruptImage if it is none."""
        if self._kind(leaf, index) != FILE_RECORD:
            raise CorruptImage(LAYER, f"object {self.number_at(leaf, index)}", "it is no file, so it has no forks")
        body = leaf.body(index)
        return read_fork(leaf.data, body + DATA_FORK_OFFSET), read_fork(leaf.data, body + RESOURCE_FORK_OFFSET)

    def entry(self, leaf: Leaf, index: int) -> Entry:
        """Record `index` of `leaf`, decoded."""
        entry: Entry | None = leaf.memo[index]
        if entry is None:
            try:
                entry = self._decode(leaf, index)
            except CorruptImage as damage:
                entry = damage
            leaf.memo[index] = entry
        return entry

    def _decode(self, leaf: Leaf, index: int) -> Entry:
        data = leaf.data
        start = leaf.offsets[index]
        length, parent, units = CATALOG_KEY.unpack_from(data, start)
        name = data[start + 8 : start + 8 + 2 * units]
        body = start + 2 + ((length + 1) & ~1)
        room = leaf.offsets[index + 1] - body
        kind = data[body] << 8 | data[body + 1] if room >= 2 else 0
        if kind == FILE_RECORD and room >= CATALOG_FILE.size:
            return self._file(parent, name, CATALOG_FILE.unpack_from(data, body))
        if kind == FOLDER_RECORD and room >= CATALOG_FOLDER.size:
            return self._folder(parent, name, CATALOG_FOLDER.unpack_from(data, body))
        if kind in (FOLDER_THREAD, FILE_THREAD) and room >= CATALOG_THREAD.size:
            _, _, parent_of_this, units = CATALOG_THREAD.unpack_from(data, body)
            if CATALOG_THREAD.size + 2 * units <= room:
                at = body + CATALOG_THREAD.size
                return Thread(parent_of_this, data[at : at + 2 * units])
        raise self._damaged(parent, name, f"a record of type {kind} and {room} bytes")

    @staticmethod
    def _damaged(parent: int, name: bytes, why: str) -> CorruptImage:
        return CorruptImage(LAYER, f"{decode(name)!r} in folder {parent}", why)

    def _folder(self, parent: int, name: bytes, record: tuple[Any, ...]) -> Node:
        (
            _, flags, valence, cnid, created, modified, changed, accessed, backed_up,
            uid, gid, admin_flags, owner_flags, mode, _, finder_info, encoding, folders,
        ) = record  # fmt: skip
        if (cnid == ROOT_FOLDER) != (parent == ROOT_PARENT) or (cnid < FIRST_USER_ID and cnid != ROOT_FOLDER):
            raise self._damaged(parent, name, f"a folder must not have number {cnid} there")
        epoch = 0 if flags & HAS_EXPANDED_TIMES and self._expanded_times else EPOCH
        permitted = mode & 0xF000
        values = (
            cnid,
            parent,
            decode(name),
            _FOLDER_TYPE | mode & 0o7777 if permitted else _DEFAULT_FOLDER_MODE,
            permitted != 0,
            uid,
            gid,
            0,
            1,
            folders if flags & HAS_FOLDER_COUNT else None,
            valence,
            0,
            0,
            0,
            created - epoch if created else None,
            modified - epoch if modified else None,
            changed - epoch if changed else None,
            accessed - epoch if accessed else None,
            backed_up - epoch if backed_up else None,
            _flags(admin_flags, owner_flags, finder_info),
            finder_info,
            encoding,
            False,
            None,
        )
        return _make(Node, values)

    def _file(self, parent: int, name: bytes, record: tuple[Any, ...]) -> Node | Unfinished:
        (
            _, flags, _, cnid, created, modified, changed, accessed, backed_up,
            uid, gid, admin_flags, owner_flags, mode, special, finder_info, encoding, _,
            data_size, data_blocks, resource_size, resource_blocks,
        ) = record  # fmt: skip
        if cnid < FIRST_USER_ID:
            raise self._damaged(parent, name, f"a file must not have number {cnid}")
        kind = mode & 0xF000
        if kind not in _FILE_TYPES:
            kind = stat.S_IFREG
        nlink = 1
        if parent == self.links_folder and special > 1 and name.startswith(_INODE_PREFIX):
            nlink = special
        compressed = owner_flags & UF_COMPRESSED != 0 and kind == stat.S_IFREG
        epoch = 0 if flags & HAS_EXPANDED_TIMES and self._expanded_times else EPOCH
        values = (
            cnid,
            parent,
            decode(name),
            kind | mode & 0o7777 if mode & 0xF000 else _DEFAULT_FILE_MODE,
            mode & 0xF000 != 0,
            uid,
            gid,
            special if kind in _DEVICE_TYPES else 0,
            nlink,
            None,
            0,
            min(data_size, LARGEST_SIZE),
            min(resource_size, LARGEST_SIZE),
            data_blocks + resource_blocks if compressed else data_blocks,
            created - epoch if created else None,
            modified - epoch if modified else None,
            changed - epoch if changed else None,
            accessed - epoch if accessed else None,
            backed_up - epoch if backed_up else None,
            _flags(admin_flags, owner_flags, finder_info),
            finder_info,
            encoding,
            compressed,
            None,
        )
        node = _make(Node, values)
        if parent not in (
            self.links_folder,
            self.folder_links_folder,
        ):  # what is behind a link is never followed again
            signature = finder_info[:8]
            if signature == FILE_LINK and special:
                return Unfinished(node, special, False, created)
            if signature == FOLDER_LINK and flags & HAS_LINK_CHAIN and special >= FIRST_USER_ID:
                return Unfinished(node, special, True, created)
        return Unfinished(node, 0, False, created) if compressed else node


def _flags(admin: int, owner: int, finder_info: bytes) -> int:
    """st_flags: the owner's in the low, the administrator's in the high half; UF_HIDDEN does not fit into the record and
    comes from the Finder's flags."""
    hidden = UF_HIDDEN if finder_info[8] & (FINDER_INVISIBLE >> 8) else 0
    return admin << 16 | owner | hidden
