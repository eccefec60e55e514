"""The contents of a new volume, in the order in which they lie on it: data forks, resource forks, large attributes, one
behind the other, object by object. Read from where they come from when their place on the disk is read.

Rule: any thread may read; what the source cannot give is an error that names the object.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from dmgfs.hfsplus.unicode import encode
from dmgfs.hfsplus_writer.geometry import blocks_of
from dmgfs.hfsplus_writer.inventory import RESOURCE_FORK, Inventory
from dmgfs.source import Buffer, Load, check_range

_DATA, _RESOURCE, _ATTRIBUTE = range(3)
_BATCH = 2000
_LINK_BITS, _TYPE_BITS = 0o120000, 0o170000

LARGEST_INLINE = 3802
"""Bytes of an attribute that stands in its record: the most that Apple puts there, with nodes of 8 KiB."""


class Origin(Protocol):
    """Where contents come from."""

    def read(self, source: object, offset: int, length: int) -> Buffer:
        """Exactly that part of the contents of the object whose `source` this is. Called in many threads. Raises OSError
        or DmgError, naming the object."""
        ...


class _Fork(NamedTuple):
    cnid: int
    kind: int
    name: bytes
    size: int


def place_contents(inventory: Inventory, block_size: int, take: Callable[[int], int]) -> None:
    """Gives every fork that has none its place. take: the first of so many blocks that nobody has."""
    database = inventory.database
    for batch in _batches(_forks(inventory)):
        pieces = [(take(blocks_of(fork.size, block_size)), *fork) for fork in batch]
        database.executemany("INSERT INTO piece VALUES (?,?,?,?,?)", pieces)
        for kind, statement in _SET_START.items():
            places = [(start, cnid, name) for start, cnid, its, name, _ in pieces if its == kind]
            database.executemany(statement, places)


_SET_START = {
    _DATA: "UPDATE object SET start=?1 WHERE cnid=?2 AND ?3 IS NOT NULL",
    _RESOURCE: "UPDATE object SET resource_start=?1 WHERE cnid=?2 AND ?3 IS NOT NULL",
    _ATTRIBUTE: "UPDATE attribute SET start=?1 WHERE cnid=?2 AND name=?3",
}


def _batches(forks: Iterator[_Fork]) -> Iterator[list[_Fork]]:
    batch: list[_Fork] = []
    for fork in forks:
        batch.append(fork)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    yield batch


def _forks(inventory: Inventory) -> Iterator[_Fork]:
    """Every fork that takes blocks, in the order of the volume. Read in batches: the tables change meanwhile."""
    database = inventory.database
    resource = encode(RESOURCE_FORK)
    have_large = "SELECT DISTINCT cnid FROM attribute WHERE length(value) > ? AND name<>?"
    large = {row[0] for row in database.execute(have_large, (LARGEST_INLINE, resource))}

    def of(cnid: int, size: int, resource_size: int) -> Iterator[_Fork]:
        if size:
            yield _Fork(cnid, _DATA, b"", size)
        if resource_size:
            yield _Fork(cnid, _RESOURCE, resource, resource_size)
        if cnid in large:
            rows = database.execute(
                "SELECT name, length(value) FROM attribute WHERE cnid=? AND name<>? AND length(value)>? ORDER BY name",
                (cnid, resource, LARGEST_INLINE),
            ).fetchall()
            for name, length in rows:
                yield _Fork(cnid, _ATTRIBUTE, bytes(name), length)

    forks = "cnid, size * (1 - kept), resource * (1 - resource_kept)"
    for order, rest in (
        ("rank", f"{forks} FROM first JOIN object USING (cnid) WHERE rank > ?"),
        ("cnid", f"{forks} FROM object WHERE cnid > ? AND cnid NOT IN (SELECT cnid FROM first)"),
    ):
        query = f"SELECT {order}, {rest} ORDER BY {order} LIMIT ?"
        last = 0
        while rows := database.execute(query, (last, _BATCH)).fetchall():
            last = rows[-1][0]
            for _, *row in rows:
                yield from of(*row)


class ContentsSource:
    """The contents as a ByteSource, `blocks` of them."""

    def __init__(self, inventory: Inventory, origin: Origin, blocks: int, block_size: int) -> None:
        self.size = blocks * block_size
        self._database = inventory.database
        self._origin = origin
        self._packed = inventory.packed
        self._block_size = block_size
        self._lock = inventory.lock

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "contents")
        rows = self._pieces(offset // self._block_size, (offset + length - 1) // self._block_size)
        parts: list[Buffer] = []
        at, end = offset, offset + length
        for start, size, kind, mode, source, value, packed in rows:
            begin = start * self._block_size
            first, last = max(begin, at), min(begin + size, end)
            if first >= last:
                continue
            if first > at:
                parts.append(bytes(first - at))
            if kind == _RESOURCE and packed is not None and self._packed is not None:
                parts.append(self._packed.read(packed + first - begin, last - first))
            elif kind != _DATA:
                parts.append(bytes(value[first - begin : last - begin]))
            elif mode & _TYPE_BITS == _LINK_BITS:
                parts.append(bytes(source[first - begin : last - begin]))
            else:
                parts.append(self._origin.read(source, first - begin, last - first))
            at = last
        if at < end:
            parts.append(bytes(end - at))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pieces(self, first: int, last: int) -> list[tuple[Any, ...]]:
        with self._lock:
            nearest = "SELECT coalesce(max(start), 0) FROM piece WHERE start<=?"
            (before,) = self._database.execute(nearest, (first,)).fetchone()
            return self._database.execute(
                "SELECT p.start, p.size, p.kind, o.mode, o.source, a.value, o.packed FROM piece p"
                " JOIN object o USING (cnid) LEFT JOIN attribute a ON p.kind<>0 AND a.cnid=p.cnid AND a.name=p.name"
                " WHERE p.start BETWEEN ? AND ? ORDER BY p.start",
                (before, last),
            ).fetchall()

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return ()


class RewrittenFork:
    """One fork in whole blocks, its contents asked of their origin, zeros behind them."""

    def __init__(self, origin: Origin, source: object, size: int, block_size: int) -> None:
        self.size = blocks_of(size, block_size) * block_size
        self._origin = origin
        self._source = source
        self._contents = size

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "contents")
        known = min(length, self._contents - offset)
        if known <= 0:
            return bytes(length)
        data = self._origin.read(self._source, offset, known)
        return data if known == length else bytes(data) + bytes(length - known)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return ()
