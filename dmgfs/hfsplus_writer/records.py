"""The records of catalog and attributes tree, encoded in the order of their keys.

Rule: a million of these are made, so each is one `struct` call; a test reads them back with the parser's declarations.
"""

import struct
from collections.abc import Iterator
from typing import Any

from dmgfs.hfsplus.structs import (
    ATTRIBUTE_KEY,
    CATALOG_KEY,
    CATALOG_THREAD,
    DATA_FORK,
    EXTENT_KEY,
    EXTENT_RECORD,
    EXTENTS_PER_RECORD,
    FILE_RECORD,
    FILE_THREAD,
    FOLDER_RECORD,
    FOLDER_THREAD,
    FORK_ATTRIBUTE,
    FORK_DATA,
    HAS_FOLDER_COUNT,
    HAS_LINK_CHAIN,
    INLINE_ATTRIBUTE,
    INLINE_ATTRIBUTE_HEADER,
    RESOURCE_FORK,
)
from dmgfs.hfsplus.unicode import MAX_NAME_UNITS, encode
from dmgfs.hfsplus_writer.contents import LARGEST_INLINE
from dmgfs.hfsplus_writer.geometry import blocks_of
from dmgfs.hfsplus_writer.inventory import RESOURCE_FORK as RESOURCE_ATTRIBUTE
from dmgfs.hfsplus_writer.inventory import Inventory

Record = tuple[bytes, bytes, int]
"""Key with its length field, data, and how much room it wants in its node."""

_COMMON = ">hHII5IIIBBHI32sII"
FOLDER = struct.Struct(_COMMON)
FILE_SIZE = FOLDER.size + 2 * FORK_DATA.size
FORK = struct.Struct(">QIIII56x")
_FORK_OF_ATTRIBUTE = struct.Struct(">I4xQIIII56x")

HAS_THREAD, HAS_ATTRIBUTES = 0x02, 0x04
LARGEST_THREAD = CATALOG_KEY.size + CATALOG_THREAD.size
THREAD_ROOM = CATALOG_KEY.size + CATALOG_THREAD.size + 2 * MAX_NAME_UNITS
"""A thread is declared with room for the longest name, and there are readers (The Sleuth Kit) that give up on a folder if
so much is not left in the node."""

_EMPTY_FORK = bytes(FORK_DATA.size)
_NO_FINDER_INFO = bytes(32)

_ORDERED = (
    "SELECT cnid, parent, key, name, mode, uid, gid, special, created, modified, changed, accessed, flags, finder, size,"
    " link, counted, folders, attributed, start, resource, resource_start, folder, backup, encoding, record_flags"
    " FROM object ORDER BY parent, key"
)
_THREADS = "SELECT cnid, parent, key, name, folder FROM object ORDER BY cnid"


def catalog_size(inventory: Inventory) -> tuple[int, int, int, int]:
    """(records, their bytes, bytes of the largest, of the largest key) of the catalog."""
    objects, names, longest, folders = inventory.one(
        "SELECT count(*), sum(length(coalesce(name, key))), max(length(coalesce(name, key))), sum(folder) FROM object"
    )
    threads = objects * LARGEST_THREAD + names
    own = objects * CATALOG_KEY.size + names + folders * FOLDER.size + (objects - folders) * FILE_SIZE
    largest_key = CATALOG_KEY.size + longest
    return 2 * objects, threads + own, max(largest_key + FILE_SIZE, THREAD_ROOM), largest_key


def catalog(inventory: Inventory, *, hfsx: bool, base: int, block_size: int) -> Iterator[Record]:
    """All records. base: the block at which the contents begin."""
    fork = _Forks(inventory, base, block_size)
    objects = inventory.rows(_ORDERED)
    row = next(objects, None)
    key_of = CATALOG_KEY.pack
    thread_of = CATALOG_THREAD.pack
    for cnid, parent, key, name, folder in inventory.rows(_THREADS):
        # A folder's thread has an empty name, so it stands before its children.
        while row is not None and row[1] < cnid:
            yield _object(row, hfsx, fork)
            row = next(objects, None)
        stored = key if name is None else name
        kind = FOLDER_THREAD if folder else FILE_THREAD
        yield key_of(6, cnid, 0), thread_of(kind, 0, parent, len(stored) // 2) + stored, THREAD_ROOM
    while row is not None:
        yield _object(row, hfsx, fork)
        row = next(objects, None)


def _object(row: tuple[Any, ...], hfsx: bool, fork: "_Forks") -> Record:
    (
        cnid, parent, key, name, mode, uid, gid, special, created, modified, changed, accessed, flags, finder, size, link,
        counted, folders, attributed, start, resource, resource_start, folder, backup, encoding, record_flags,
    ) = row  # fmt: skip
    stored = key if name is None else name
    record_flags |= HAS_THREAD | (HAS_ATTRIBUTES if attributed else 0)
    head = CATALOG_KEY.pack(6 + len(stored), parent, len(stored) // 2) + stored
    dates = (created, modified, changed, accessed, backup)
    admin, own = flags >> 16 & 0xFF, flags & 0xFF
    finder = finder or _NO_FINDER_INFO
    if folder:
        # A folder always has a thread, so nothing says so.
        record_flags = record_flags & ~HAS_THREAD | (HAS_FOLDER_COUNT if hfsx else 0)
        return head, FOLDER.pack(
            FOLDER_RECORD, record_flags, counted, cnid, *dates, uid, gid, admin, own, mode, special, finder, encoding,
            folders if hfsx else 0,
        ), 0  # fmt: skip
    if link is not None or counted:
        record_flags |= HAS_LINK_CHAIN
    data = FOLDER.pack(
        FILE_RECORD, record_flags, counted, cnid, *dates, uid, gid, admin, own, mode, special, finder, encoding, 0
    )
    return head, data + fork(cnid, DATA_FORK, size, start) + fork(cnid, RESOURCE_FORK, resource, resource_start), 0


class _Forks:
    """Encodes forks. base: the block from which the starts in the inventory count."""

    def __init__(self, inventory: Inventory, base: int, block_size: int) -> None:
        self._extents = inventory.extents
        self._base = base
        self._block_size = block_size

    def __call__(self, cnid: int, fork_type: int, size: int, start: int) -> bytes:
        extents = self._extents.get((cnid, fork_type)) if self._extents else None
        if extents is not None:
            padded = [*extents[:EXTENTS_PER_RECORD], *[(0, 0)] * (EXTENTS_PER_RECORD - len(extents))]
            numbers = (number for extent in padded for number in extent)
            return FORK_DATA.pack(size, 0, sum(blocks for _, blocks in extents), *numbers)
        if not size:
            return _EMPTY_FORK
        blocks = -(-size // self._block_size)
        return FORK.pack(size, 0, blocks, self._base + start, blocks)


def overflow(inventory: Inventory) -> Iterator[Record]:
    """The records of the extents tree: what of the kept forks does not fit into their file's record."""
    for (cnid, fork_type), extents in sorted(inventory.extents.items()):
        covered = sum(blocks for _, blocks in extents[:EXTENTS_PER_RECORD])
        for at in range(EXTENTS_PER_RECORD, len(extents), EXTENTS_PER_RECORD):
            part = extents[at : at + EXTENTS_PER_RECORD]
            padded = [*part, *[(0, 0)] * (EXTENTS_PER_RECORD - len(part))]
            numbers = (number for extent in padded for number in extent)
            yield EXTENT_KEY.pack(EXTENT_KEY.size - 2, fork_type, 0, cnid, covered), EXTENT_RECORD.pack(*numbers), 0
            covered += sum(blocks for _, blocks in part)


def overflow_size(inventory: Inventory) -> tuple[int, int, int, int]:
    """As `catalog_size`, of the extents tree."""
    records = sum(1 for _ in overflow(inventory))
    size = EXTENT_KEY.size + EXTENT_RECORD.size
    return records, records * size, size if records else 0, EXTENT_KEY.size


def attributes_size(inventory: Inventory) -> tuple[int, int, int, int]:
    """As `catalog_size`, of the attributes tree; all 0 if there are none."""
    fork = _FORK_OF_ATTRIBUTE.size
    head = INLINE_ATTRIBUTE_HEADER.size
    body = f"CASE WHEN length(value) > {LARGEST_INLINE} THEN {fork} ELSE {head} + (length(value) + 1) / 2 * 2 END"
    records, total, largest, longest = inventory.one(
        f"SELECT count(*), sum({ATTRIBUTE_KEY.size} + length(name) + {body}),"
        f" max({ATTRIBUTE_KEY.size} + length(name) + {body}), max(length(name)) FROM attribute WHERE name<>?",
        encode(RESOURCE_ATTRIBUTE),
    )
    return records, total, largest, ATTRIBUTE_KEY.size + longest


def attributes(inventory: Inventory, *, base: int, block_size: int) -> Iterator[Record]:
    """All records of the attributes tree."""
    rows = inventory.rows(
        "SELECT cnid, name, CASE WHEN length(value) > ?1 THEN NULL ELSE value END, length(value), start FROM attribute"
        " WHERE name<>?2 ORDER BY cnid, name",
        LARGEST_INLINE,
        encode(RESOURCE_ATTRIBUTE),
    )
    for cnid, name, value, size, start in rows:
        key = ATTRIBUTE_KEY.pack(ATTRIBUTE_KEY.size - 2 + len(name), 0, cnid, 0, len(name) // 2) + name
        if value is None:
            blocks = blocks_of(size, block_size)
            yield key, _FORK_OF_ATTRIBUTE.pack(FORK_ATTRIBUTE, size, 0, blocks, base + start, blocks), 0
        else:
            yield key, INLINE_ATTRIBUTE_HEADER.pack(INLINE_ATTRIBUTE, size) + value, 0
