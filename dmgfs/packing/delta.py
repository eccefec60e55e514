"""A delta: what it takes to make one file out of another, byte for byte. Made for images that share most of their
stored runs, as `dmgfs commit` makes them.

    dmgfs delta 1
    {"from": {"size": …, "sha256": …}, "to": {"size": …, "sha256": …}}
    xz: records of (kind, offset, length); 0 copies from the old file, 1 is followed by so many bytes, 2 ends

Rules that hold here:
- both files are known by size and SHA-256, before and after: a delta is applied to the right file or not at all;
- what a delta says is checked against what there is before it is used; memory is that of one piece;
- the new file is cut where its runs begin (a UDIF) or every 64 KiB, and each piece is looked for in the old file.
"""

import hashlib
import json
import lzma
import os
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from dmgfs.cache import ChunkCache
from dmgfs.container import open_container
from dmgfs.container.udifdisk import UdifDisk
from dmgfs.errors import CorruptImage, DmgError, NotAnImage
from dmgfs.packing.output import Output
from dmgfs.source import FileSource

MAGIC = b"dmgfs delta 1\n"
LAYER = "delta"
BLOCK = 64 << 10
_MOST_HEADER = 1 << 12
_STEP = 1 << 20
_RECORD = struct.Struct(">BQQ")
_COPY, _DATA, _END = range(3)


class Side(NamedTuple):
    """A file as a delta knows it."""

    size: int
    sha256: str


class Made(NamedTuple):
    """copied, new: bytes of the new file that the old one has and has not. size: of the delta."""

    copied: int
    new: int
    size: int


def make_delta(old: str, new: str, out: str, *, replace: bool = False) -> Made:
    """Raises OSError (FileExistsError among them)."""
    known: dict[bytes, tuple[int, int]] = {}
    with _opened(old) as a, _opened(new) as b, Output(out, replace=replace) as output:
        for start, length in _pieces(a):
            for at, size in _split(start, length):
                known.setdefault(_digest(a.read(at, size)), (at, size))
        header = {"from": _side(a)._asdict(), "to": _side(b)._asdict()}
        output.append(MAGIC + json.dumps(header).encode() + b"\n")
        packer = lzma.LZMACompressor(preset=6)
        copied = fresh = 0
        pending: tuple[int, int] | None = None  # a copy that may go on

        def put(data: bytes) -> None:
            output.append(packer.compress(data))

        for start, length in _pieces(b):
            for at, size in _split(start, length):
                data = bytes(b.read(at, size))
                found = known.get(_digest(data))
                if found is not None and pending is not None and pending[0] + pending[1] == found[0]:
                    pending = pending[0], pending[1] + size
                    copied += size
                    continue
                if pending is not None:
                    put(_RECORD.pack(_COPY, *pending))
                pending = found
                if found is not None:
                    copied += size
                else:
                    put(_RECORD.pack(_DATA, 0, size))
                    put(data)
                    fresh += size
        if pending is not None:
            put(_RECORD.pack(_COPY, *pending))
        put(_RECORD.pack(_END, 0, 0))
        output.append(packer.flush())
        output.commit()
        return Made(copied, fresh, output.size)


def apply_delta(old: str, delta: str, out: str, *, replace: bool = False) -> int:
    """Makes `out`; its size. Raises NotAnImage (no delta), CorruptImage (damaged, or made for another file), OSError."""
    with open(delta, "rb") as file, _opened(old) as a:
        known, wanted = _header(file)
        if a.size != known.size or _side(a).sha256 != known.sha256:
            raise CorruptImage(LAYER, "header", f"made for another file than {old}")
        digest = hashlib.sha256()
        with Output(out, replace=replace) as output:
            for data in _parts(a, file):
                if output.size + len(data) > wanted.size:
                    raise CorruptImage(LAYER, "records", f"more than the {wanted.size} bytes that were promised")
                digest.update(data)
                output.append(data)
            if output.size != wanted.size or digest.hexdigest() != wanted.sha256:
                raise CorruptImage(LAYER, "records", "what they make is not the file that the delta was made of")
            output.commit()
            return output.size


class _opened:
    """A FileSource that is closed at the end."""

    def __init__(self, path: str) -> None:
        self._source = FileSource(path)

    def __enter__(self) -> FileSource:
        return self._source

    def __exit__(self, *_: object) -> None:
        self._source.close()


def _digest(data: bytes | bytearray | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=20).digest()


def _side(file: FileSource) -> Side:
    digest = hashlib.sha256()
    for at in range(0, file.size, _STEP):
        digest.update(file.read(at, min(_STEP, file.size - at)))
    return Side(file.size, digest.hexdigest())


def _split(start: int, length: int) -> Iterator[tuple[int, int]]:
    """In steps that memory can hold."""
    for at in range(start, start + length, _STEP):
        yield at, min(_STEP, start + length - at)


def _pieces(file: FileSource) -> Iterator[tuple[int, int]]:
    """(offset, length) that tile the file, cut where the same bytes may stand elsewhere in another."""
    runs = _stored_runs(file)
    if not runs:
        for at in range(0, file.size, BLOCK):
            yield at, min(BLOCK, file.size - at)
        return
    end = 0
    for start, length in runs:
        if start < end or start + length > file.size:
            continue
        if start > end:
            yield end, start - end
        yield start, length
        end = start + length
    if end < file.size:
        yield end, file.size - end


def _stored_runs(file: FileSource) -> list[tuple[int, int]]:
    """Of a UDIF; none of anything else, and of one that cannot be opened."""
    try:
        container = open_container(os.fspath(file.path), cache=ChunkCache(1 << 20))
    except (DmgError, OSError):
        return []
    try:
        disk: Any = container.disk
        return sorted(disk.stored_runs()) if isinstance(disk, UdifDisk) and len(container.files) == 1 else []
    finally:
        container.close()


def _header(file: IO[bytes]) -> tuple[Side, Side]:
    if file.read(len(MAGIC)) != MAGIC:
        raise NotAnImage("no dmgfs delta of version 1")
    line = file.readline(_MOST_HEADER)
    try:
        header = json.loads(line)
        sides = [Side(int(header[key]["size"]), str(header[key]["sha256"])) for key in ("from", "to")]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptImage(LAYER, "header", f"it cannot be read ({type(error).__name__})", len(MAGIC)) from error
    return sides[0], sides[1]


def _parts(old: FileSource, file: IO[bytes]) -> Iterator[bytes]:
    """What the records say, in pieces."""
    try:
        with lzma.open(file) as stream:
            while True:
                kind, offset, length = _RECORD.unpack(_exactly(stream.read, _RECORD.size))
                if kind == _END:
                    return
                if kind not in (_COPY, _DATA) or length == 0 or (kind == _COPY and offset + length > old.size):
                    raise CorruptImage(LAYER, "records", f"one of kind {kind} for {length} bytes from {offset:#x}")
                for at, size in _split(offset, length):
                    yield bytes(old.read(at, size)) if kind == _COPY else _exactly(stream.read, size)
    except (lzma.LZMAError, EOFError) as error:
        raise CorruptImage(LAYER, "records", f"the delta is damaged ({error})") from error


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    while len(data) < size:
        more = read(size - len(data))
        if not more:
            raise EOFError("it ends too early")
        data += more
    return data
