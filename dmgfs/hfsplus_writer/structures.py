"""The structures that exist once on a volume, encoded: volume header, map of blocks, journal.

Rule: whatever a specification leaves open is what Apple's newfs_hfs writes.
"""

import struct
from collections.abc import Sequence

from dmgfs.hfsplus.journalsum import checksum
from dmgfs.hfsplus.structs import (
    EXTENTS_PER_RECORD,
    HFSPLUS_SIGNATURE,
    HFSX_SIGNATURE,
    JOURNALED,
    UNMOUNTED,
    VolumeHeader,
)
from dmgfs.hfsplus_writer.btree import used_bits
from dmgfs.hfsplus_writer.geometry import Geometry, Place
from dmgfs.source import Buffer, Load, check_range

UNUSED_NODES_ARE_ZERO = 1 << 31
_ROMAN = 1
_JOURNAL_IN_VOLUME = 1
_JOURNAL_HEADER = struct.Struct("<IIQQQIIII")
_JOURNAL_SECTOR = 512
_JOURNAL_LIST = 4096


def fork(size: int, clump: int, place: Place) -> dict[str, object]:
    """ForkData of a fork in one piece."""
    extents = [{"startBlock": place.start if place.blocks else 0, "blockCount": place.blocks}]
    extents += [{"startBlock": 0, "blockCount": 0}] * (EXTENTS_PER_RECORD - 1)
    return {"logicalSize": size, "clumpSize": clump, "totalBlocks": place.blocks, "extents": extents}


class HeaderFacts:
    """What the header says besides where things are. Dates as on disk. clumps: of data and of resource forks."""

    def __init__(
        self,
        *,
        hfsx: bool,
        created: int,
        files: int,
        folders: int,
        next_number: int,
        volume_id: int,
        clumps: tuple[int, int],
    ) -> None:
        self.hfsx = hfsx
        self.created = created
        self.files = files
        self.folders = folders
        self.next_number = next_number
        self.volume_id = volume_id
        self.clumps = clumps


def volume_header(geometry: Geometry, facts: HeaderFacts) -> bytes:
    journaled = geometry.journal.blocks > 0
    bytes_of = geometry.block_size

    def whole(place: Place) -> dict[str, object]:
        return fork(place.blocks * bytes_of, geometry.clump(place), place)

    header: bytes = VolumeHeader.build(
        {
            "signature": HFSX_SIGNATURE if facts.hfsx else HFSPLUS_SIGNATURE,
            "version": 5 if facts.hfsx else 4,
            "attributes": UNUSED_NODES_ARE_ZERO | UNMOUNTED | (JOURNALED if journaled else 0),
            "lastMountedVersion": b"HFSJ" if journaled else b"10.0",
            "journalInfoBlock": geometry.journal_info.start,
            "createDate": facts.created,
            "modifyDate": facts.created,
            "backupDate": 0,
            "checkedDate": facts.created,
            "fileCount": facts.files,
            "folderCount": facts.folders,
            "blockSize": geometry.block_size,
            "totalBlocks": geometry.total,
            "freeBlocks": geometry.free,
            "nextAllocation": geometry.used if geometry.free else 0,
            "rsrcClumpSize": facts.clumps[1],
            "dataClumpSize": facts.clumps[0],
            "nextCatalogID": facts.next_number,
            "writeCount": 0,
            "encodingsBitmap": _ROMAN,
            "finderInfo": [0, 0, 0, 0, 0, 0, facts.volume_id >> 32, facts.volume_id & 0xFFFFFFFF],
            "allocationFile": whole(geometry.bitmap),
            "extentsFile": whole(geometry.extents),
            "catalogFile": whole(geometry.catalog),
            "attributesFile": whole(geometry.attributes),
            "startupFile": fork(0, 0, Place(0, 0)),
        }
    )
    return header


def journal_info(geometry: Geometry) -> bytes:
    """The journal info block."""
    place = geometry.journal
    return struct.pack(
        ">I32xQQ",
        _JOURNAL_IN_VOLUME,
        place.start * geometry.block_size,
        place.blocks * geometry.block_size,
    )


def journal_header(size: int) -> bytes:
    """The header of an empty journal of `size` bytes: nothing waits in it."""
    fields = [
        0x4A4E4C78, 0x12345678, _JOURNAL_SECTOR, _JOURNAL_SECTOR, size, _JOURNAL_LIST, 0, _JOURNAL_SECTOR, 1,
    ]  # fmt: skip
    fields[6] = checksum(_JOURNAL_HEADER.pack(*fields)[:44])
    return _JOURNAL_HEADER.pack(*fields)


class BlockMap:
    """The allocation file as a ByteSource: the first `used` blocks are taken, and the last `tail` of all."""

    def __init__(self, geometry: Geometry) -> None:
        self.size = geometry.bitmap.blocks * geometry.block_size
        self._geometry = geometry

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "map of blocks")
        first = 8 * offset
        map_ = bytearray(used_bits(self._geometry.used, first, length))
        end = self._geometry.total
        for block in range(max(end - self._geometry.tail, first), min(end, first + 8 * length)):
            map_[block - first >> 3] |= 0x80 >> (block & 7)
        return map_

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return ()
