"""The files of a new volume compressed with decmpfs, before it is laid out: what is compressed waits in a temporary file.

Rules that hold here:
- a file is compressed only where that saves blocks of the volume, room in the attributes tree included, and never if it has
  a resource fork or was compressed already;
- reading and compressing happen in worker threads, everything else in the caller's, in the order of the objects' numbers:
  the same tree gives the same bytes;
- memory does not depend on the number or the size of the files.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

from dmgfs.hfsplus.attributes import DECMPFS
from dmgfs.hfsplus.decmpfs import BLOCK
from dmgfs.hfsplus.structs import ATTRIBUTE_KEY, INLINE_ATTRIBUTE_HEADER, UF_COMPRESSED
from dmgfs.hfsplus.unicode import encode
from dmgfs.hfsplus_writer.contents import LARGEST_INLINE, Origin
from dmgfs.hfsplus_writer.decmpfs import LARGEST_FILE, ForkWriter, Scheme, attribute, block_of
from dmgfs.hfsplus_writer.geometry import blocks_of
from dmgfs.hfsplus_writer.inventory import Inventory
from dmgfs.hfsplus_writer.scratch import Scratch
from dmgfs.packing.encoders import Encoder, encoder
from dmgfs.packing.pieces import in_order, workers_of

_BATCH = 500
_JOB = 1 << 20
_MOST_PARTS = 256
_NODE, _NODE_OVERHEAD = 8192, 16
_RECORD = ATTRIBUTE_KEY.size + 2 * len(DECMPFS) + INLINE_ATTRIBUTE_HEADER.size + 3
"""Bytes of an attribute's record besides its value, its offset and padding included."""

_CANDIDATES = (
    "SELECT cnid, size, source FROM object WHERE cnid>? AND size BETWEEN 1 AND ? AND mode & 61440 = 32768 AND resource=0"
    " AND link IS NULL AND NOT EXISTS (SELECT 1 FROM attribute a WHERE a.cnid=object.cnid AND a.name=?)"
    " ORDER BY cnid LIMIT ?"
)


class Part(NamedTuple):
    """Whole blocks of a file, or its end. size: of the file."""

    cnid: int
    source: object
    size: int
    offset: int
    length: int


class Saved(NamedTuple):
    """files: that were compressed. bytes: of the volume, that this saves."""

    files: int
    bytes: int


def compress_files(
    inventory: Inventory,
    origin: Origin,
    scheme: Scheme,
    *,
    block_size: int,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Saved:
    """inventory: finished, nothing placed. advance: is told how many bytes more were looked at. Raises what reading
    raises, OSError (no room for temporary files)."""
    encode_block = encoder(scheme.codec, None, BLOCK)
    writer = _Writer(inventory, scheme, block_size)
    jobs = (partial(_encode, origin, parts, encode_block) for parts in _jobs(inventory))
    with closing(in_order(jobs, workers_of(workers), _JOB)) as results:
        for parts, blocks in results:
            with inventory.lock:
                for part, packed in zip(parts, blocks, strict=True):
                    writer.add(part, packed)
            advance(sum(part.length for part in parts))
    return Saved(writer.files, writer.saved)


def _jobs(inventory: Inventory) -> Iterator[list[Part]]:
    parts: list[Part] = []
    room = _JOB
    for part in _parts(inventory):
        parts.append(part)
        room -= part.length
        if room <= 0 or len(parts) >= _MOST_PARTS:
            yield parts
            parts, room = [], _JOB
    if parts:
        yield parts


def _parts(inventory: Inventory) -> Iterator[Part]:
    """Read in batches: the tables change meanwhile."""
    last = 0
    while True:
        with inventory.lock:
            rows = inventory.database.execute(_CANDIDATES, (last, LARGEST_FILE, encode(DECMPFS), _BATCH)).fetchall()
        if not rows:
            return
        for cnid, size, source in rows:
            for offset in range(0, size, _JOB):
                yield Part(cnid, source, size, offset, min(_JOB, size - offset))
        last = rows[-1][0]


def _encode(origin: Origin, parts: list[Part], encode_block: Encoder) -> tuple[list[Part], list[list[bytes]]]:
    found: list[list[bytes]] = []
    for part in parts:
        data = bytes(origin.read(part.source, part.offset, part.length))
        blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
        found.append([block_of(block, encode_block(block)) for block in blocks])
    return parts, found


class _Writer:
    """Takes the parts of file after file."""

    def __init__(self, inventory: Inventory, scheme: Scheme, block_size: int) -> None:
        self.files = 0
        self.saved = 0
        self._inventory = inventory
        self._scheme = scheme
        self._block_size = block_size
        self._out = Scratch()
        self._at = 0
        self._fork: ForkWriter | None = None
        inventory.packed = self._out

    def add(self, part: Part, blocks: list[bytes]) -> None:
        if part.size <= BLOCK:
            value = attribute(self._scheme.inline, part.size, blocks[0])
            if len(value) <= LARGEST_INLINE and self._room(value) < self._blocks(part.size) * self._block_size:
                self._keep(part, value, 0, self._blocks(part.size))
                return
        if part.offset == 0:
            self._fork = ForkWriter(self._scheme, part.size, self._out, self._at)
        assert self._fork is not None
        for block in blocks:
            self._fork.add(block)
        if part.offset + part.length < part.size:
            return
        self._fork.finish()
        value = attribute(self._scheme.fork, part.size)
        saved = self._blocks(part.size) - self._blocks(self._fork.length)
        if self._room(value) < saved * self._block_size:
            self._keep(part, value, self._fork.length, saved)

    def _blocks(self, size: int) -> int:
        return blocks_of(size, self._block_size)

    def _room(self, value: bytes) -> int:
        """Bytes that the attribute takes in its tree, with what is left over in a node."""
        return _NODE // ((_NODE - _NODE_OVERHEAD) // (_RECORD + len(value)))

    def _keep(self, part: Part, value: bytes, resource: int, saved: int) -> None:
        database = self._inventory.database
        database.execute(
            "UPDATE object SET size=0, source=NULL, flags=flags | ?, attributed=1, resource=?, packed=? WHERE cnid=?",
            (UF_COMPRESSED, resource, self._at if resource else None, part.cnid),
        )
        database.execute(
            "INSERT INTO attribute (cnid, name, value) VALUES (?,?,?)", (part.cnid, encode(DECMPFS), value)
        )
        self._at += resource
        self.files += 1
        self.saved += saved * self._block_size - self._room(value)
