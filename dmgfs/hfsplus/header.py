"""Where an HFS+ volume begins, and its volume header (TN1150 "Volume Header", "HFS Wrapper").

The primary header decides if it is sound; the copy in the last kilobyte is used only if it is not, and then with a
warning. A wrapper (a small HFS volume around the HFS+ one) is opened once, never twice.
"""

from typing import Any, NamedTuple

from dmgfs.errors import CorruptImage, NotAnImage
from dmgfs.hfsplus.structs import (
    EXTENTS_PER_RECORD,
    FORK_DATA,
    HEADER_OFFSET,
    HEADER_SIZE,
    HFS_SIGNATURE,
    HFSPLUS_SIGNATURE,
    HFSX_SIGNATURE,
    VolumeHeader,
    WrapperBlock,
)
from dmgfs.source import ByteSource, SliceSource

LAYER = "HFS+"
SECTOR = 512
MAX_BLOCK_SIZE = 1 << 30
EPOCH = 2082844800
"""Seconds from 1904-01-01, where HFS+ dates begin, to 1970-01-01."""

_VERSIONS = {HFSPLUS_SIGNATURE: 4, HFSX_SIGNATURE: 5}


class Fork(NamedTuple):
    """The part of a fork that is recorded beside its file: size in bytes, size in allocation blocks, and up to eight
    extents (start block, number of blocks). Further extents are in the extents overflow tree."""

    logical_size: int
    total_blocks: int
    extents: tuple[tuple[int, int], ...]


def used_extents(numbers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Sixteen numbers (start, count, start, count …) → pairs; the first empty extent ends the list."""
    pairs = []
    for index in range(0, len(numbers), 2):
        count = numbers[index + 1]
        if count == 0:
            break
        pairs.append((numbers[index], count))
    return tuple(pairs)


def read_fork(data: bytes, offset: int) -> Fork:
    """The fork described by the 80 bytes at `offset` of `data`, which must hold them."""
    numbers = FORK_DATA.unpack_from(data, offset)
    return Fork(numbers[0], numbers[2], used_extents(numbers[3:]))


class Header(NamedTuple):
    """The volume header. Dates as on disk: seconds since 1904, 0 not set; `created` alone is local time."""

    signature: int
    attributes: int
    last_mounted_by: bytes
    journal_info_block: int
    created: int
    modified: int
    backed_up: int
    checked: int
    files: int
    folders: int
    block_size: int
    total_blocks: int
    free_blocks: int
    encodings: int
    volume_id: int
    extents: Fork
    catalog: Fork
    attributes_tree: Fork

    @property
    def kind(self) -> str:
        return "HFS+" if self.signature == HFSPLUS_SIGNATURE else "HFSX"


def _fork(declared: Any) -> Fork:
    assert len(declared.extents) == EXTENTS_PER_RECORD
    numbers = tuple(number for extent in declared.extents for number in (extent.startBlock, extent.blockCount))
    return Fork(declared.logicalSize, declared.totalBlocks, used_extents(numbers))


def parse(data: bytes, offset: int) -> Header:
    """The volume header in 512 bytes that stood at `offset` of the volume. Raises NotAnImage if they are none,
    CorruptImage if they are one that cannot be used."""
    raw = VolumeHeader.parse(data)
    version = _VERSIONS.get(raw.signature)
    if version is None:
        raise NotAnImage("no HFS+ volume header")
    why = None
    if raw.version != version:
        why = f"version {raw.version}, {version} expected"
    elif raw.blockSize & (raw.blockSize - 1) or not SECTOR <= raw.blockSize <= MAX_BLOCK_SIZE:
        why = f"allocation block size {raw.blockSize}, a power of two from {SECTOR} expected"
    elif raw.totalBlocks == 0:
        why = "no allocation blocks"
    elif raw.catalogFile.totalBlocks == 0:
        why = "no catalog"
    if why is not None:
        raise CorruptImage(LAYER, "volume header", why, offset)
    return Header(
        raw.signature,
        raw.attributes,
        raw.lastMountedVersion,
        raw.journalInfoBlock,
        raw.createDate,
        raw.modifyDate,
        raw.backupDate,
        raw.checkedDate,
        raw.fileCount,
        raw.folderCount,
        raw.blockSize,
        raw.totalBlocks,
        min(raw.freeBlocks, raw.totalBlocks),
        raw.encodingsBitmap,
        raw.finderInfo[6] << 32 | raw.finderInfo[7],
        _fork(raw.extentsFile),
        _fork(raw.catalogFile),
        _fork(raw.attributesFile),
    )


def _at(source: ByteSource, offset: int) -> bytes:
    """The sector-sized structure at `offset`; empty if the source does not reach so far."""
    if offset < 0 or offset + HEADER_SIZE > source.size:
        return b""
    return bytes(source.read(offset, HEADER_SIZE))


def _alternate_offsets(source: ByteSource, primary: bytes) -> list[int]:
    """Where a copy of the header may be: a kilobyte before the end of the partition, and before the end of the volume
    if the primary header's sizes can still be read."""
    offsets = [source.size // SECTOR * SECTOR - 1024]
    if primary:
        raw = VolumeHeader.parse(primary)
        offsets.append(raw.totalBlocks * raw.blockSize - 1024)
    return [offset for offset in dict.fromkeys(offsets) if offset > HEADER_OFFSET]


def read_header(source: ByteSource) -> tuple[Header, list[str]]:
    """The header of the volume that `source` holds, and warnings. Raises NotAnImage, CorruptImage (then neither header
    nor copy can be used; what is said is about the first)."""
    primary = _at(source, HEADER_OFFSET)
    if not primary:
        raise NotAnImage("too short for an HFS+ volume")
    try:
        return parse(primary, HEADER_OFFSET), []
    except (NotAnImage, CorruptImage) as damage:
        for offset in _alternate_offsets(source, primary):
            copy = _at(source, offset)
            try:
                header = parse(copy, offset) if copy else None
            except (NotAnImage, CorruptImage):
                continue
            if header is not None:
                return header, [f"the volume header is damaged ({damage}); its copy at offset {offset:#x} is used"]
        raise


def unwrap(source: ByteSource) -> tuple[ByteSource, list[str]]:
    """The HFS+ volume inside an HFS wrapper, and warnings; `source` itself if there is no wrapper. Raises CorruptImage if
    the wrapper points outside."""
    block = _at(source, HEADER_OFFSET)
    if not block:
        return source, []
    wrapper = WrapperBlock.parse(block)
    if wrapper.drSigWord != HFS_SIGNATURE or wrapper.drEmbedSigWord != HFSPLUS_SIGNATURE:
        return source, []
    size = wrapper.drAlBlkSiz
    start = wrapper.drAlBlSt * SECTOR + wrapper.drEmbedExtent.startBlock * size
    length = wrapper.drEmbedExtent.blockCount * size
    if size == 0 or size % SECTOR:
        raise CorruptImage("HFS wrapper", "master directory block", f"allocation block size {size}", HEADER_OFFSET)
    if length == 0 or start + HEADER_OFFSET + HEADER_SIZE > source.size:
        raise CorruptImage(
            "HFS wrapper",
            "master directory block",
            f"embedded volume of {length} bytes at {start:#x}, the wrapper has {source.size:#x}",
            HEADER_OFFSET,
        )
    warnings = []
    if start + length > source.size:
        warnings.append("the wrapped volume is longer than the wrapper; what lies beyond cannot be read")
        length = source.size - start
    return SliceSource(source, start, length), warnings
