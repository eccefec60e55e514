"""Disks with partition maps, built from the specification's tables with struct alone (not with dmgfs's structures), so
that a wrong field in the parser cannot be wrong here in the same way. Every builder returns a bytearray to damage."""

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

HFS_GUID = "48465300-0000-11AA-AA11-00306543ECAC"
APFS_GUID = "7C3457EF-0000-11AA-AA11-00306543ECAC"
EFI_GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
BOOT_GUID = "426F6F74-0000-11AA-AA11-00306543ECAC"


@dataclass(frozen=True)
class Part:
    """A partition to build: first and count in blocks of the scheme."""

    type: str
    first: int
    count: int
    name: str = ""


def signed(disk: bytearray, offset: int, signature: bytes) -> bytearray:
    """The disk with `signature` of a volume that starts at `offset`: H+, HX, BD and MFS at 1024, NXSB at 32."""
    place = offset + (32 if signature == b"NXSB" else 1024)
    disk[place : place + len(signature)] = signature
    return disk


def apm_entry(part: Part, entries: int) -> bytes:
    return struct.pack(
        ">2sHIII32s32sIII",
        b"PM",
        0,
        entries,
        part.first,
        part.count,
        part.name.encode("mac_roman"),
        part.type.encode("ascii"),
        0,
        part.count,
        0,
    )


def apm_disk(parts: Sequence[Part], size: int, *, block: int = 512, ddm_block: int | None = None) -> bytearray:
    """An APM disk. `block`: step of the map. `ddm_block`: what the driver descriptor says, None: the same, 0: no
    descriptor."""
    disk = bytearray(size)
    said = block if ddm_block is None else ddm_block
    if said:
        struct.pack_into(">2sHI", disk, 0, b"ER", said, size // said)
    add_apm(disk, parts, block)
    return disk


def add_apm(disk: bytearray, parts: Sequence[Part], block: int) -> None:
    for index, part in enumerate(parts, 1):
        entry = apm_entry(part, len(parts))
        disk[index * block : index * block + len(entry)] = entry


def gpt_disk(
    parts: Sequence[Part | None], size: int, *, block: int = 512, entries: int = 128, entry_size: int = 128
) -> bytearray:
    """A GPT disk with primary and backup header; a None leaves that entry empty. `type` of a Part is a GUID."""
    disk = bytearray(size)
    table = bytearray(entries * entry_size)
    for index, part in enumerate(parts):
        if part is not None:
            struct.pack_into(
                "<16s16sQQQ72s",
                table,
                index * entry_size,
                uuid.UUID(part.type).bytes_le,
                uuid.uuid5(uuid.NAMESPACE_OID, str(index)).bytes_le,
                part.first,
                part.first + part.count - 1,
                0,
                part.name.encode("utf-16-le"),
            )
    blocks = size // block
    table_blocks = -(-len(table) // block)
    for here, other, at in ((1, blocks - 1, 2), (blocks - 1, 1, blocks - 1 - table_blocks)):
        disk[at * block : at * block + len(table)] = table
        header = bytearray(92)
        struct.pack_into("<8sII", header, 0, b"EFI PART", 0x10000, 92)
        struct.pack_into("<QQQQ", header, 24, here, other, 2 + table_blocks, blocks - 2 - table_blocks)
        struct.pack_into("<QIII", header, 72, at, entries, entry_size, zlib.crc32(table))
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        disk[here * block : here * block + 92] = header
    disk[446:462] = mbr_entry(0xEE, 1, min(blocks - 1, 0xFFFFFFFF))
    disk[510:512] = b"\x55\xaa"
    return disk


def mbr_entry(type_: int, first: int, count: int, status: int = 0) -> bytes:
    return struct.pack("<B3sB3sII", status, b"\0\0\0", type_, b"\0\0\0", first, count)


def put_mbr(disk: bytearray, sector: int, entries: Sequence[bytes]) -> None:
    at = sector * 512
    table = b"".join(entries)
    disk[at + 446 : at + 446 + len(table)] = table
    disk[at + 510 : at + 512] = b"\x55\xaa"


def mbr_disk(entries: Sequence[bytes], size: int) -> bytearray:
    disk = bytearray(size)
    put_mbr(disk, 0, entries)
    return disk


def wrapper_volume(
    inner_start: int, inner_blocks: int, *, size: int, al_blk_siz: int = 512, al_bl_st: int = 8
) -> bytearray:
    """An HFS wrapper whose embedded extent is (inner_start, inner_blocks), with H+ where that leads."""
    volume = bytearray(size)
    volume[1024:1026] = b"BD"
    struct.pack_into(">I", volume, 1024 + 20, al_blk_siz)
    struct.pack_into(">H", volume, 1024 + 28, al_bl_st)
    struct.pack_into(">2sHH", volume, 1024 + 124, b"H+", inner_start, inner_blocks)
    place = al_bl_st * 512 + inner_start * al_blk_siz + 1024
    if place + 2 <= size and place > 1026:
        volume[place : place + 2] = b"H+"
    return volume
