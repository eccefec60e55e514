"""Sparse image (`sprs`): one file that holds bands of a disk in the order in which they were first written. Index nodes
of 4096 bytes, each followed by its bands, say which band of the disk lies in which place; a band without a place is zeros.

Rules that hold here: all integers are big-endian and a sector has 512 bytes; a node begins behind the bands of the node
before it, so the chain of nodes cannot loop; a place is listed once and a band lies in one place. What we keep is two
arrays, 16 bytes for each stored band.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from construct import Bytes, Const, Int32ub, Int64ub, Struct

from dmgfs.container import Container
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.source import Buffer, ByteSource, Cold, Load, check_range

MAGIC = b"sprs"
NODE_SIZE = 4096
SECTOR = 512
LAYER = "sparse image"
MOST_BAND_SIZE = 1 << 30
MOST_STORED_BANDS = 4 << 20  # 4 TiB of data at the usual 1 MiB a band

Header = Struct(
    "signature" / Const(MAGIC),
    "version" / Int32ub,
    "sectorsPerBand" / Int32ub,
    "flags" / Int32ub,
    "totalSectorsLow" / Int32ub,
    "nextNodeOffset" / Int64ub,
    "totalSectors" / Int64ub,
    "reserved" / Bytes(28),
)

Node = Struct(
    "signature" / Const(MAGIC),
    "number" / Int32ub,
    "flags" / Int32ub,
    "nextNodeOffset" / Int64ub,
    "reserved" / Bytes(36),
)

HEADER_FIELDS: int = Header.sizeof()  # 64, then 1008 band numbers
NODE_FIELDS: int = Node.sizeof()  # 56, then 1010 band numbers


def recognise(source: ByteSource) -> bool:
    """Whether the bytes begin as a sparse image does."""
    return source.size >= 4 and source.read(0, 4) == MAGIC


def open_sparseimage(source: ByteSource, path: Path | None) -> Container:
    """The disk inside a sparse image. `source`: the file's bytes, decrypted if they were encrypted. Raises CorruptImage,
    Unsupported."""
    header = Header.parse(_node_bytes(source, 0)[:HEADER_FIELDS])
    if header.version != 3:
        raise Unsupported(f"sparse image version {header.version}")
    band_size = header.sectorsPerBand * SECTOR
    if not SECTOR <= band_size <= MOST_BAND_SIZE:
        raise CorruptImage(LAYER, "header", f"bands of {header.sectorsPerBand} sectors", 8)
    # Writers other than Apple's leave the 64-bit field empty.
    sectors = header.totalSectors or header.totalSectorsLow
    warnings = []
    if sectors & 0xFFFFFFFF != header.totalSectorsLow:
        warnings.append(f"the two sector counts differ: {sectors} (used) and {header.totalSectorsLow}")
    if not 0 < sectors * SECTOR < 1 << 63:
        raise CorruptImage(LAYER, "header", f"a disk of {sectors} sectors", 28)
    disk = SparseImageSource(source, sectors * SECTOR, band_size, header.nextNodeOffset)
    details = {
        "size": disk.size,
        "band_size": band_size,
        "bands": -(-disk.size // band_size),
        "bands_stored": disk.bands_stored,
        "index_nodes": disk.index_nodes,
        "warnings": warnings,
    }
    return Container("sparse image", disk, details, [path] if path else [])


def _node_bytes(source: ByteSource, offset: int) -> bytes:
    if offset + NODE_SIZE > source.size:
        why = f"needs {NODE_SIZE} bytes, the file ends at {source.size:#x}: the image is truncated"
        raise CorruptImage(LAYER, "index node", why, offset)
    return bytes(source.read(offset, NODE_SIZE))


def _band_numbers(data: bytes) -> "array[int]":  # (array takes no parameter at run time before Python 3.12)
    numbers = array("I", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


class SparseImageSource:
    """The disk: `size` bytes, bands of `band_size` bytes read straight from `source`, nothing kept."""

    def __init__(self, source: ByteSource, size: int, band_size: int, next_node: int) -> None:
        self.size = size
        self.band_size = band_size
        self._source = source
        self._bands, self._places, self.index_nodes = self._read_index(next_node)
        self.bands_stored = len(self._bands)

    def _read_index(self, next_node: int) -> "tuple[array[int], array[int], int]":
        """Band numbers from 0 in ascending order, the file offset of each, and the number of index nodes."""
        total = -(-self.size // self.band_size)
        bands, places = array("Q"), array("Q")
        node, fields, nodes = 0, HEADER_FIELDS, 0
        while True:
            nodes += 1
            data = _node_bytes(self._source, node)
            if node:
                next_node = self._next_of(data, node)
            numbers = _band_numbers(data[fields:])
            for slot, number in enumerate(numbers):
                if number > total:
                    raise CorruptImage(LAYER, "index node", f"slot {slot}: band {number} of {total}", node)
                if number:
                    bands.append(number - 1)
                    places.append(node + NODE_SIZE + slot * self.band_size)
            if len(bands) > MOST_STORED_BANDS:
                raise Unsupported(f"a sparse image of more than {MOST_STORED_BANDS} stored bands")
            if next_node == 0:
                break
            if next_node < node + NODE_SIZE + len(numbers) * self.band_size:
                why = f"points to {next_node:#x}, which is not behind its own bands"
                raise CorruptImage(LAYER, "index node", why, node)
            if not numbers:
                raise CorruptImage(LAYER, "index node", "has no bands and yet a successor", node)
            node, fields = next_node, NODE_FIELDS
        return *_sorted(bands, places), nodes

    @staticmethod
    def _next_of(data: bytes, node: int) -> int:
        if data[:4] != MAGIC:
            raise CorruptImage(LAYER, "index node", "does not begin with `sprs`", node)
        offset: int = Node.parse(data[:NODE_FIELDS]).nextNodeOffset
        return offset

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int | None, int]]:
        """(file offset or None for zeros, length) for every stretch of the range. Raises CorruptImage at a band that the
        file should hold and does not."""
        while length > 0:
            band, skip = divmod(offset, self.band_size)
            step = min(length, self.band_size - skip)
            offset += step
            length -= step
            index = bisect_left(self._bands, band)
            if index == len(self._bands) or self._bands[index] != band:
                yield None, step
                continue
            place = self._places[index]
            if place >= self._source.size:
                why = f"should be there, the file ends at {self._source.size:#x}: the image is truncated"
                raise CorruptImage(LAYER, f"band {band}", why, place)
            # The file may end inside its last band: what was never written is zeros.
            stored = max(0, min(step, self._source.size - place - skip))
            if stored:
                yield place + skip, stored
            if step > stored:
                yield None, step - stored

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, LAYER)
        read = self._source.read
        try:
            parts = [bytes(size) if at is None else read(at, size) for at, size in self._pieces(offset, length)]
        except Cold:
            raise Cold(self.cold(offset, length)) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return ()
        loads: dict[Load, None] = {}
        try:
            for at, size in self._pieces(offset, length):
                if at is not None:
                    loads.update(dict.fromkeys(self._source.cold(at, size)))
        except CorruptImage:
            pass  # the read itself says what is damaged
        return tuple(loads)


def _sorted(bands: "array[int]", places: "array[int]") -> "tuple[array[int], array[int]]":
    """Both arrays in the order of the first. Raises CorruptImage where one band has two places."""
    order = sorted(range(len(bands)), key=bands.__getitem__)
    bands = array("Q", [bands[index] for index in order])
    places = array("Q", [places[index] for index in order])
    for index in range(1, len(bands)):
        if bands[index] == bands[index - 1]:
            why = f"lies in two places, {places[index - 1]:#x} and {places[index]:#x}"
            raise CorruptImage(LAYER, f"band {bands[index]}", why)
    return bands, places
