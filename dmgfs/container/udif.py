"""UDIF, the format of nearly every .dmg: a data fork of coded runs, a property list (or resource fork) with the block
tables, and a 512-byte trailer `koly` that says where both are.

The trailer is the last 512 bytes, whatever the file's alignment; very old images have it at the start instead. All
offsets count from the start of the UDIF. If the file has something in front (MacBinary, a XAR), the structures are not
where they should be, and the distance between their end and the trailer says by how much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from construct import Container as Fields

from dmgfs.cache import ChunkCache
from dmgfs.container import Container, OpenFile
from dmgfs.container.blocktable import MOST_SECTORS, BlockTable, Checksum, read_checksum
from dmgfs.container.resourcefork import (
    LAYER,
    MOST_FORK,
    MOST_XML,
    Resource,
    looks_like_fork,
    resources_of_fork,
    resources_of_xml,
)
from dmgfs.container.segments import Segment, join, open_segments, refuse_part
from dmgfs.container.structs import KOLY_SIZE, Koly, algorithm_name
from dmgfs.container.udifdisk import UdifDisk
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.source import ByteSource, FileSource, SliceSource

if TYPE_CHECKING:
    from dmgfs.container.checksum import Progress, Verdict

_XML_STARTS = (b"<?xml", b"<!DOCTYPE", b"<plist", b"\xef\xbb\xbf<")
_SIGNATURE = b"\xfa\xde\x0c\xc0"
_FLATTENED, _INTERNET_ENABLED = 1, 2


@dataclass(frozen=True, slots=True)
class Trailer:
    """A koly with what does not stand in it. place: "end" or "start". limit: the structures lie before it. base: what
    must be added to every offset."""

    koly: Fields
    place: str
    limit: int
    base: int


@dataclass(frozen=True, slots=True)
class Udif:
    """An opened UDIF, as `checksum.verify` wants it."""

    trailer: Trailer
    tables: list[BlockTable]
    segments: list[Segment]
    disk: UdifDisk


def recognise(source: ByteSource) -> bool:
    """Whether the file ends, or starts, with a UDIF trailer."""
    size = source.size
    return size >= KOLY_SIZE and (source.read(size - KOLY_SIZE, 4) == b"koly" or source.read(0, 4) == b"koly")


def open_udif(
    source: ByteSource,
    *,
    path: Path | None = None,
    cache: ChunkCache[Any],
    most_expanded: int | None = None,
    open_file: OpenFile = FileSource,
) -> Container:
    """Opens a UDIF. `path`: where segments are looked for; `open_file` opens them. `most_expanded`: bytes, the largest
    chunk that is decoded (by default 64 MiB, or what the cache holds if that is more).

    Raises CorruptImage when the trailer or the tables are unusable, Unsupported; damage of single runs is in
    `details["warnings"]` and raised where they are read.
    """
    closers: list[Callable[[], None]] = []
    try:
        trailer = read_trailer(source)
        refuse_part(trailer.koly)
        resources = _resources(source, trailer)
        tables = [BlockTable(number, resource) for number, resource in enumerate(_tables(resources))]
        segments = [Segment(path, trailer.koly, _fork(source, trailer))]
        if trailer.koly.SegmentCount > 1:
            segments[0] = Segment(path, trailer.koly, _exact_fork(source, trailer))
            segments = open_segments(segments[0], _read_segment, closers, open_file)
            fork = join(segments)
        else:
            fork = segments[0].fork
        disk = UdifDisk(tables, fork, trailer.koly.SectorCount, cache, most_expanded)
    except BaseException:
        for close in closers:
            close()
        raise
    opened = Udif(trailer, tables, segments, disk)
    files = [segment.path for segment in segments if segment.path]
    return Container("UDIF", disk, _details(opened, resources, source), files, partial(_verify, opened), closers)


def read_trailer(source: ByteSource) -> Trailer:
    """Finds and checks the trailer. Raises CorruptImage, Unsupported."""
    end = source.size - KOLY_SIZE
    place, at, limit = "end", end, end
    if source.read(end, 4) != b"koly":
        place, at, limit = "start", 0, source.size
    koly = Koly.parse(bytes(source.read(at, KOLY_SIZE)))
    if koly.Version != 4:
        raise Unsupported(f"UDIF version {koly.Version}", "only version 4 is known")
    if koly.HeaderSize != KOLY_SIZE:
        raise CorruptImage(LAYER, "trailer", f"claims a size of {koly.HeaderSize}, {KOLY_SIZE} would be right", at)
    if koly.SectorCount > MOST_SECTORS:
        raise CorruptImage(LAYER, "trailer", f"claims {koly.SectorCount} sectors, more than a disk can have", at)
    for name in ("DataFork", "RsrcFork", "XML"):
        offset, length = koly[f"{name}Offset"], koly[f"{name}Length"]
        if length and offset + length > limit:
            raise CorruptImage(
                LAYER,
                "trailer",
                f"{name}Offset {offset:#x} + {name}Length {length:#x} lead past {limit:#x}: the image is truncated",
                at,
            )
    return Trailer(koly, place, limit, _base(source, koly, limit) if place == "end" else 0)


def _base(source: ByteSource, koly: Fields, limit: int) -> int:
    """Where the UDIF begins in the file: 0 unless the tables are found only behind something put in front."""
    tops = [koly[f"{name}Offset"] + koly[f"{name}Length"] for name in ("DataFork", "RsrcFork", "XML")]
    signature_end = koly.CodeSignatureOffset + koly.CodeSignatureLength
    candidates = [0]
    if koly.CodeSignatureLength and signature_end <= limit:  # old images have garbage in these fields
        candidates.append(limit - max(*tops, signature_end))
    candidates.append(limit - max(tops))
    for base in candidates:
        if koly.XMLLength:
            head = bytes(source.read(base + koly.XMLOffset, min(koly.XMLLength, 64))).lstrip(b"\0 \t\r\n")
            if head.startswith(_XML_STARTS):
                return base
        elif koly.RsrcForkLength >= 16 and looks_like_fork(
            source.read(base + koly.RsrcForkOffset, 16), koly.RsrcForkLength
        ):
            return base
    return 0


def _resources(source: ByteSource, trailer: Trailer) -> list[Resource]:
    """From the property list; from the resource fork where there is no list."""
    koly = trailer.koly
    if koly.XMLLength > MOST_XML:
        raise CorruptImage(LAYER, "property list", f"{koly.XMLLength} bytes long, at most {MOST_XML} are read")
    if koly.XMLLength:
        return resources_of_xml(source.read(trailer.base + koly.XMLOffset, koly.XMLLength))
    if koly.RsrcForkLength > MOST_FORK:
        raise CorruptImage(LAYER, "resource fork", f"{koly.RsrcForkLength} bytes long, at most {MOST_FORK} are read")
    if koly.RsrcForkLength:
        return resources_of_fork(source.read(trailer.base + koly.RsrcForkOffset, koly.RsrcForkLength))
    raise CorruptImage(LAYER, "trailer", "neither a property list nor a resource fork: there are no block tables")


def _tables(resources: list[Resource]) -> list[Resource]:
    tables = [resource for resource in resources if resource.kind == "blkx"]
    if not tables:
        raise CorruptImage(LAYER, "resources", "no block tables (`blkx`) among them")
    return tables


def _fork(source: ByteSource, trailer: Trailer) -> ByteSource:
    """What run offsets count from. Runs past DataForkLength but inside the file occur, so it ends with the file."""
    start = min(trailer.base + trailer.koly.DataForkOffset, source.size)
    return SliceSource(source, start, source.size - start)


def _exact_fork(source: ByteSource, trailer: Trailer) -> ByteSource:
    """The data fork alone: the next segment's continues where it ends."""
    return SliceSource(source, trailer.base + trailer.koly.DataForkOffset, trailer.koly.DataForkLength)


def _read_segment(source: ByteSource, path: Path) -> Segment:
    if not recognise(source):
        raise CorruptImage(LAYER, "segments", f"{path.name} has no UDIF trailer")
    trailer = read_trailer(source)
    return Segment(path, trailer.koly, _exact_fork(source, trailer))


def _verify(opened: Udif) -> "Iterator[Progress | Verdict]":
    from dmgfs.container.checksum import verify  # hashes and threads that a mount has no use for

    return verify(opened)


def _details(opened: Udif, resources: list[Resource], source: ByteSource) -> dict[str, Any]:
    trailer, disk = opened.trailer, opened.disk
    koly = trailer.koly
    warnings = [warning for table in opened.tables for warning in table.warnings] + disk.warnings
    if trailer.base:
        warnings.insert(0, f"the image begins {trailer.base} bytes into the file")
    if koly.SectorCount == 0:
        warnings.append("the trailer does not say how many sectors there are; the block tables do")
    kinds: dict[str, int] = {}
    for resource in resources:
        kinds[resource.kind] = kinds.get(resource.kind, 0) + 1
    return {
        "size": disk.size,
        "sectors": koly.SectorCount,
        "variant": {1: "device", 2: "partition"}.get(koly.ImageVariant, str(koly.ImageVariant)),
        "trailer": trailer.place,
        "base": trailer.base,
        "data_offset": koly.DataForkOffset,
        "data_length": sum(segment.koly.DataForkLength for segment in opened.segments),
        "flags": [
            name
            for bit, name in ((_FLATTENED, "flattened"), (_INTERNET_ENABLED, "internet-enabled"))
            if koly.Flags & bit
        ],
        "tables_in": "property list" if koly.XMLLength else "resource fork",
        "codecs": {
            name: {"runs": tally.runs, "stored": tally.stored, "expanded": tally.expanded}
            for name, tally in disk.tallies.items()
        },
        "checksums": {
            "data_fork": _checksum(read_checksum(koly.DataChecksum)),
            "master": _checksum(read_checksum(koly.MasterChecksum)),
        },
        "tables": [
            {
                "name": table.name,
                "id": table.id,
                "start": table.start,
                "sectors": table.sectors,
                "checksum": _checksum(table.checksum),
            }
            for table in opened.tables
        ],
        "segment": {"number": koly.SegmentNumber, "count": koly.SegmentCount, "id": koly.SegmentID.hex()},
        "signature": _signature(source, trailer),
        "resources": kinds,
        "warnings": warnings,
    }


def _checksum(checksum: Checksum) -> dict[str, str] | None:
    if checksum.type == 0:
        return None
    return {"type": algorithm_name(checksum.type), "value": checksum.value.hex()}


def _signature(source: ByteSource, trailer: Trailer) -> dict[str, int] | None:
    """Where the code signature lies; it is shown, never checked. The fields of unsigned old images hold garbage."""
    offset, length = trailer.koly.CodeSignatureOffset, trailer.koly.CodeSignatureLength
    at = trailer.base + offset
    if length < 8 or at + length > trailer.limit or source.read(at, 4) != _SIGNATURE:
        return None
    return {"offset": at, "length": length}
