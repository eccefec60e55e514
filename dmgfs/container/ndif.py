"""NDIF, the disk image of Mac OS 8 and 9 (Disk Copy 6, ShrinkWrap; `.img`, `.smi`): chunks in the data fork, their table
in resource `bcem` 128 of the resource fork. It is UDIF's ancestor: its chunks are UDIF's runs with shorter fields, so its
table is rewritten as a UDIF block table and read by the same code.

Rules that hold here: raw, zero and ADC chunks are read; an image with any other coding is refused by that coding's name,
because nothing in it would be readable. Chunks ascend, and one ends where the next begins.
"""

import struct
from pathlib import Path
from typing import Any

from construct import Array, Bytes, Int8ub, Int16sb, Int16ub, Int24ub, Int32ub, Struct

from dmgfs.cache import ChunkCache
from dmgfs.container import Container
from dmgfs.container.blocktable import BlockTable
from dmgfs.container.macforks import Forks, find_forks
from dmgfs.container.resourcefork import Resource, resources_of_fork
from dmgfs.container.structs import MISH_SIZE, RAW, RUN, TERMINATOR, ZERO
from dmgfs.container.udifdisk import UdifDisk
from dmgfs.errors import CorruptImage, DmgError, Unsupported
from dmgfs.source import ByteSource, SliceSource

LAYER = "NDIF"
_RESOURCE = ("bcem", "128")

BlockTableHeader = Struct(
    "version" / Int16ub,
    "driver" / Int16sb,
    "name" / Bytes(64),
    "sectors" / Int32ub,
    "maxSectorsPerChunk" / Int32ub,
    "dataOffset" / Int32ub,
    "crc" / Int32ub,
    "segmented" / Int32ub,
    "unknown1" / Array(7, Int32ub),
    "encrypted" / Int32ub,
    "hash" / Int32ub,
    "chunks" / Int32ub,
)
Chunk = Struct("sector" / Int24ub, "type" / Int8ub, "offset" / Int32ub, "length" / Int32ub)
HEADER_SIZE: int = BlockTableHeader.sizeof()  # 128
CHUNK = struct.Struct(">III")
"""The twin of Chunk for the many: sector and type share the first word."""

_END = 0xFF
_UDIF_TYPE = {0x00: ZERO, 0x02: RAW, 0x83: 0x80000004}
_REFUSED = {0x80: "KenCode", 0x81: "RLE", 0x82: "LZH", 0xF0: "StuffIt"}
_MISH = struct.Struct(">4sIQQQII24x136xI")
assert _MISH.size == MISH_SIZE


def recognise(source: ByteSource, path: Path | None) -> bool:
    """Whether the file has a resource fork with an NDIF block table. `path`: as for open_ndif."""
    return _find(source, path) is not None


def _find(source: ByteSource, path: Path | None) -> tuple[Forks, bytes] | None:
    forks = find_forks(source, path)
    if forks is None:
        return None
    try:
        resources = resources_of_fork(forks.resource)
    except DmgError:
        return None
    return next(((forks, one.data) for one in resources if (one.kind, one.id) == _RESOURCE), None)


def open_ndif(source: ByteSource, path: Path | None, cache: ChunkCache[Any]) -> Container:
    """The disk of an NDIF file. `path`: where its resource fork is looked for unless it is in the file itself. Raises
    CorruptImage, Unsupported, OSError."""
    found = _find(source, path)
    if found is None:
        raise CorruptImage(LAYER, "resource fork", "no block table (`bcem` 128)")
    forks, table = found
    if len(table) < HEADER_SIZE:
        raise CorruptImage(LAYER, "block table", f"{len(table)} bytes long, its header alone takes {HEADER_SIZE}")
    header = BlockTableHeader.parse(table)
    if header.segmented:
        raise Unsupported("a segmented NDIF image", "join it with Disk Copy on a Mac first")
    if header.encrypted:
        raise Unsupported("an NDIF image encrypted by ShrinkWrap")
    if header.dataOffset > forks.data.size:
        why = f"data offset {header.dataOffset:#x} lies past the data fork ({forks.data.size:#x})"
        raise CorruptImage(LAYER, "block table", why)
    name = _pascal(header.name)
    block_table = BlockTable(0, Resource("blkx", "128", name, _as_udif(table, header.chunks, header.sectors)))
    fork = SliceSource(forks.data, header.dataOffset, forks.data.size - header.dataOffset)
    disk = UdifDisk([block_table], fork, header.sectors, cache)
    details: dict[str, Any] = {
        "size": disk.size,
        "name": name,
        "resource_fork": forks.where,
        "codecs": {
            kind: {"runs": tally.runs, "stored": tally.stored, "expanded": tally.expanded}
            for kind, tally in disk.tallies.items()
        },
        "warnings": [*block_table.warnings, *disk.warnings],
    }
    files = [one for one in (path, forks.path) if one is not None]
    return Container("NDIF", disk, details, files)


def _pascal(field: bytes) -> str:
    return field[1 : 1 + min(field[0], len(field) - 1)].decode("mac_roman")


def _as_udif(table: bytes, count: int, sectors: int) -> bytes:
    """The chunks as a UDIF block table (`mish`). A chunk reaches to the next one, the last to the end of the disk."""
    if count * CHUNK.size > len(table) - HEADER_SIZE:
        room = (len(table) - HEADER_SIZE) // CHUNK.size
        raise CorruptImage(LAYER, "block table", f"{count} chunks claimed, there is room for {room}")
    chunks = list(CHUNK.iter_unpack(table[HEADER_SIZE : HEADER_SIZE + count * CHUNK.size]))
    runs = []
    for number, (word, offset, length) in enumerate(chunks):
        start, kind = word >> 8, word & 0xFF
        if kind == _END:
            break
        if kind not in _UDIF_TYPE:
            raise Unsupported(
                f"NDIF compression {_REFUSED.get(kind, f'type {kind:#04x}')}", "expand it on a Mac first"
            )
        end = chunks[number + 1][0] >> 8 if number + 1 < len(chunks) else sectors
        if not start <= end <= sectors:
            why = f"covers sectors {start} to {end} of {sectors}"
            raise CorruptImage(LAYER, f"chunk {number}", why, HEADER_SIZE + number * CHUNK.size)
        runs.append(RUN.pack(_UDIF_TYPE[kind], 0, start, end - start, offset, length))
    runs.append(RUN.pack(TERMINATOR, 0, sectors, 0, 0, 0))
    return _MISH.pack(b"mish", 1, 0, sectors, 0, 0, 0, len(runs)) + b"".join(runs)
