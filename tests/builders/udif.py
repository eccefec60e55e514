"""Builds UDIF images of every variant in memory, right by default and wrong on request.

`build([Table("whole disk", [Piece("zlib", data), Piece("ignore", 8)])])` gives an Image: its files by name (one, or several
when segmented), the disk that must come out, and where things lie. Shares no code with dmgfs.
"""

import hashlib
import plistlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from builders.packing import pack

SECTOR = 512
TYPES = {
    "zero": 0,
    "raw": 1,
    "ignore": 2,
    "kencode": 0x80000001,
    "rle": 0x80000002,
    "lzh": 0x80000003,
    "adc": 0x80000004,
    "zlib": 0x80000005,
    "bzip2": 0x80000006,
    "lzfse": 0x80000007,
    "xz": 0x80000008,
    "comment": 0x7FFFFFFE,
}
TERMINATOR = 0xFFFFFFFF
PACKED = ("adc", "zlib", "bzip2", "lzfse", "xz")
_HASHES = {4: "md5", 6: "sha1", 7: "sha256", 8: "sha384", 9: "sha512"}

_KOLY = (
    ("Signature", "4s"), ("Version", "I"), ("HeaderSize", "I"), ("Flags", "I"), ("RunningDataForkOffset", "Q"),
    ("DataForkOffset", "Q"), ("DataForkLength", "Q"), ("RsrcForkOffset", "Q"), ("RsrcForkLength", "Q"),
    ("SegmentNumber", "I"), ("SegmentCount", "I"), ("SegmentID", "16s"), ("DataChecksum", "136s"), ("XMLOffset", "Q"),
    ("XMLLength", "Q"), ("Reserved1", "64s"), ("CodeSignatureOffset", "Q"), ("CodeSignatureLength", "Q"),
    ("Reserved2", "40s"), ("MasterChecksum", "136s"), ("ImageVariant", "I"), ("SectorCount", "Q"), ("Reserved3", "12s"),
)  # fmt: skip


@dataclass
class Piece:
    """One run. content: the expanded bytes, or for "zero", "ignore" and "comment" a number of sectors. packed: the stored
    bytes if they shall be others than the right ones. run: fields to overwrite (type, start, sectors, offset, length)."""

    codec: str
    content: bytes | int
    packed: bytes | None = None
    run: dict[str, int] = field(default_factory=dict)

    @property
    def expanded(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        return b"" if self.codec == "comment" else bytes(self.content * SECTOR)

    @property
    def stored(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if isinstance(self.content, int):
            return b""
        return pack(self.codec, self.content) if self.codec in PACKED else self.content


@dataclass
class Table:
    """One block table. start: sector on the disk, None = where the one before ended. data_offset: mish.DataOffset.
    mish: header fields to overwrite (magic, version, start, sectors, count). tail: bytes after the entries."""

    name: str
    pieces: Sequence[Piece]
    start: int | None = None
    data_offset: int = 0
    terminator: bool = True
    mish: dict[str, Any] = field(default_factory=dict)
    tail: bytes = b""


@dataclass
class Image:
    """files: by name; the first is the one to open. disk: what must be read. koly: the fields of the first trailer."""

    files: dict[str, bytes] = field(repr=False)
    disk: bytes = field(repr=False)
    koly: dict[str, Any] = field(repr=False)

    @property
    def bytes(self) -> bytes:
        return next(iter(self.files.values()))


def checksum(kind: int, data: bytes) -> bytes:
    """A UDIFChecksum record over `data`; kind 0: none."""
    if kind == 0:
        return bytes(136)
    value = struct.pack(">I", zlib.crc32(data)) if kind == 2 else hashlib.new(_HASHES[kind], data).digest()
    return struct.pack(">II", kind, 8 * len(value)) + value.ljust(128, b"\0")


def build(
    tables: Sequence[Table],
    *,
    tables_in: str = "xml",
    checksum_type: int = 2,
    data_checksum: bool = True,
    prefix: bytes = b"",
    absolute: bool = False,
    lead: bytes = b"",
    slack: bytes = b"",
    signature: bytes = b"",
    at_start: bool = False,
    segments: int = 1,
    shuffle: Callable[[list[tuple[int, int]]], None] | None = None,
    koly: dict[str, Any] | None = None,
    plist: Callable[[dict[str, Any]], Any] | None = None,
    xml: Callable[[bytes], bytes] | None = None,
    fork: Callable[[bytearray], None] | None = None,
) -> Image:
    """tables_in: "xml", "fork" (binary resource fork) or "both". prefix: bytes in front of everything, unknown to the
    offsets unless `absolute`. lead: bytes before the data fork that DataForkOffset skips. slack: bytes before the trailer.
    segments: files the data fork is cut into. shuffle: reorders where runs are stored, given [(table, piece)].
    koly, plist, xml, fork: overwrite trailer fields, the property list's tree, its text, the resource fork's bytes.
    """
    order = [(t, p) for t, table in enumerate(tables) for p in range(len(table.pieces))]
    if shuffle:
        shuffle(order)
    data, places = bytearray(), {}
    for t, p in order:
        stored = tables[t].pieces[p].stored
        places[t, p] = (len(data), len(stored))
        data += stored
    disk, blobs, sums, end = bytearray(), [], [], 0
    for t, table in enumerate(tables):
        blob, content, total, start = _mish(
            table, end, [places[t, p] for p in range(len(table.pieces))], checksum_type
        )
        blobs.append(blob)
        sums.append(total)
        disk.extend(bytes(max(0, start * SECTOR + len(content) - len(disk))))
        disk[start * SECTOR : start * SECTOR + len(content)] = content
        end = start + len(content) // SECTOR
    fields = _fields(len(disk) // SECTOR)
    fields["DataChecksum"] = checksum(checksum_type if data_checksum else 0, bytes(data))
    fields["MasterChecksum"] = checksum(checksum_type, b"".join(sums)) if checksum_type else bytes(136)
    body, files = _lay_out(data, blobs, tables, fields, locals())
    fields |= koly or {}
    trailer = _pack_koly(fields)
    whole = trailer + body[SECTOR:] if at_start else prefix + body + trailer
    return Image({"image.dmg": whole} | files, bytes(disk), fields)


def _mish(
    table: Table, end: int, places: list[tuple[int, int]], checksum_type: int
) -> tuple[bytes, bytes, bytes, int]:
    """(table with header, expanded bytes, checksum value, first sector)."""
    start = end if table.start is None else table.start
    entries, covered, content, sector = bytearray(), bytearray(), bytearray(), 0
    for piece, (offset, length) in zip(table.pieces, places, strict=True):
        expanded = piece.expanded
        run = {
            "type": TYPES[piece.codec] if piece.codec in TYPES else int(piece.codec, 0),
            "start": sector,
            "sectors": len(expanded) // SECTOR,
            "offset": offset - table.data_offset,
            "length": length,
        } | piece.run
        entries += struct.pack(">II4Q", run["type"], 0, run["start"], run["sectors"], run["offset"], run["length"])
        content += expanded
        if piece.codec != "ignore":
            covered += expanded
        sector += len(expanded) // SECTOR
    if table.terminator:
        entries += struct.pack(">II4Q", TERMINATOR, 0, sector, 0, 0, 0)
    head = {
        "magic": b"mish",
        "version": 1,
        "start": start,
        "sectors": sector,
        "count": len(entries) // 40,
    } | table.mish
    record = checksum(checksum_type, bytes(covered))
    header = struct.pack(
        ">4sIQQQIi24x136sI",
        head["magic"], head["version"], head["start"], head["sectors"], table.data_offset, 0x208, -1, record, head["count"],
    )  # fmt: skip
    size = struct.unpack_from(">I", record, 4)[0] // 8
    return header + bytes(entries) + table.tail, bytes(content), record[8 : 8 + size], start


def _fields(sectors: int) -> dict[str, Any]:
    fields: dict[str, Any] = {name: bytes(int(code[:-1])) if code.endswith("s") else 0 for name, code in _KOLY}
    return fields | {
        "Signature": b"koly",
        "Version": 4,
        "HeaderSize": SECTOR,
        "Flags": 1,
        "SegmentNumber": 1,
        "SegmentCount": 1,
        "SegmentID": bytes(range(16)),
        "ImageVariant": 1,
        "SectorCount": sectors,
    }


def _pack_koly(fields: dict[str, Any]) -> bytes:
    return struct.pack(">" + "".join(code for _, code in _KOLY), *(fields[name] for name, _ in _KOLY))


def _lay_out(
    data: bytearray, blobs: list[bytes], tables: Sequence[Table], fields: dict[str, Any], how: dict[str, Any]
) -> tuple[bytes, dict[str, bytes]]:
    """Everything but the trailer of the first file, and the other segments; sets the trailer's offsets."""
    files: dict[str, bytes] = {}
    first = bytes(data)
    if how["segments"] > 1:
        first, files = _segments(data, fields, how["segments"], how["checksum_type"])
    skip = len(how["prefix"]) if how["absolute"] else 0
    body = bytearray(bytes(SECTOR) if how["at_start"] else how["lead"])
    fields["DataForkOffset"] = skip + len(body)
    fields["DataForkLength"] = len(first)
    body += first
    if how["tables_in"] in ("xml", "both"):
        tree: Any = {
            "resource-fork": {
                "blkx": [
                    {"Attributes": "0x0050", "CFName": table.name, "Data": blob, "ID": str(n - 1), "Name": table.name}
                    for n, (table, blob) in enumerate(zip(tables, blobs, strict=True))
                ],
                "plst": [{"Attributes": "0x0050", "Data": bytes(1032), "ID": "0", "Name": ""}],
            }
        }
        if how["plist"]:
            changed = how["plist"](tree)
            tree = tree if changed is None else changed
        text = plistlib.dumps(tree) if isinstance(tree, dict) else tree
        text = how["xml"](text) if how["xml"] else text
        fields["XMLOffset"], fields["XMLLength"] = skip + len(body), len(text)
        body += text
    if how["tables_in"] in ("fork", "both"):
        packed = bytearray(
            resource_fork([("blkx", n - 1, t.name, b) for n, (t, b) in enumerate(zip(tables, blobs, strict=True))])
        )
        if how["fork"]:
            how["fork"](packed)
        fields["RsrcForkOffset"], fields["RsrcForkLength"] = skip + len(body), len(packed)
        body += packed
    if how["signature"]:
        fields["CodeSignatureOffset"], fields["CodeSignatureLength"] = skip + len(body), len(how["signature"])
        body += how["signature"]
    return bytes(body) + how["slack"], files


def _segments(
    data: bytearray, fields: dict[str, Any], count: int, checksum_type: int
) -> tuple[bytes, dict[str, bytes]]:
    cuts = [len(data) * n // count for n in range(count + 1)]
    parts = [bytes(data[a:b]) for a, b in pairwise(cuts)]
    fields["SegmentCount"] = count
    fields["DataChecksum"] = checksum(checksum_type, parts[0])
    files = {}
    for number in range(2, count + 1):
        part = parts[number - 1]
        trailer = fields | {
            "SegmentNumber": number,
            "RunningDataForkOffset": cuts[number - 1],
            "DataForkOffset": 0,
            "DataForkLength": len(part),
            "DataChecksum": checksum(checksum_type, part),
        }
        files[f"image.{number:03d}.dmgpart"] = part + _pack_koly(trailer)
    return parts[0], files


def resource_fork(resources: Sequence[tuple[str, int, str, bytes]]) -> bytes:
    """A binary Mac resource fork of (type, id, name, data)."""
    kinds = list(dict.fromkeys(kind for kind, *_ in resources))
    data, names, references = bytearray(), bytearray(), {kind: bytearray() for kind in kinds}
    for kind, number, name, blob in resources:
        encoded = name.encode("mac_roman")
        references[kind] += struct.pack(">hHB", number, len(names), 0x50) + len(data).to_bytes(3, "big") + bytes(4)
        names += bytes([len(encoded)]) + encoded
        data += struct.pack(">I", len(blob)) + blob
    types, at = struct.pack(">H", len(kinds) - 1 & 0xFFFF), 2 + 8 * len(kinds)
    for kind in kinds:
        types += struct.pack(">4sHH", kind.encode("mac_roman"), len(references[kind]) // 12 - 1, at)
        at += len(references[kind])
    lists = types + b"".join(references[kind] for kind in kinds)
    rest = bytes(8) + struct.pack(">HH", 28, 28 + len(lists)) + lists + names
    header = struct.pack(">4I", 256, 256 + len(data), len(data), 16 + len(rest))
    return header.ljust(256, b"\0") + data + header + rest
