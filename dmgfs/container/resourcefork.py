"""Where a UDIF keeps its block tables: in resources of type `blkx`, either in the XML property list or, in older images,
in a binary Mac resource fork. Both give the same list of resources.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, error

from dmgfs.container.plist import parse_plist
from dmgfs.container.structs import ResourceForkHeader
from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

LAYER = "UDIF"
MOST_XML = 48 << 20  # takes six times the memory while it is read; the tables of a disk of 800 GB fit
MOST_FORK = 32 << 20  # offsets in a fork have 24 bits; the map follows the data
MOST_RESOURCES = 4096
_TYPE = Struct(">4sHH")
_DATA = re.compile(rb"<data>[^<]*")
_REFERENCE = Struct(">hHB3sI")


@dataclass(frozen=True, slots=True)
class Resource:
    """kind: four characters ("blkx"). id: its number as text. data: its bytes."""

    kind: str
    id: str
    name: str
    data: bytes


def resources_of_xml(xml: Buffer) -> list[Resource]:
    """The resources of a UDIF property list, in its order. Raises CorruptImage (layer "UDIF")."""
    # expat hands text over line by line; block tables are one line of 60 characters after the other. Without the line
    # breaks, large images open four times as fast.
    text = _DATA.sub(lambda data: data[0].translate(None, b"\t\n\r "), xml)
    tree = parse_plist(text, LAYER, "property list", MOST_XML)
    fork = tree.get("resource-fork")
    if not isinstance(fork, dict):
        raise CorruptImage(LAYER, "property list", "no dictionary `resource-fork`")
    resources = []
    for kind, entries in fork.items():
        if not isinstance(entries, list):
            if kind == "blkx":
                raise CorruptImage(LAYER, "property list", "`blkx` is not an array")
            continue
        if len(entries) > MOST_RESOURCES:
            raise _too_many(kind, len(entries))
        for number, entry in enumerate(entries):
            data = entry.get("Data") if isinstance(entry, dict) else None
            if isinstance(data, bytes):
                resources.append(Resource(kind, _text(entry, "ID"), _text(entry, "CFName", "Name"), data))
            elif kind == "blkx":
                raise CorruptImage(LAYER, "property list", f"`blkx` entry {number} has no data")
    return resources


def _text(entry: dict[str, object], *keys: str) -> str:
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str | int) and value != "":
            return str(value)
    return ""


def looks_like_fork(head: Buffer, length: int) -> bool:
    """Whether a resource fork of `length` bytes could start with `head` (16 bytes)."""
    if len(head) < ResourceForkHeader.sizeof():
        return False
    header = ResourceForkHeader.parse(bytes(head))
    fits: bool = (
        header.DataOffset >= ResourceForkHeader.sizeof()
        and header.DataOffset + header.DataLength <= length
        and header.MapOffset + header.MapLength <= length
        and header.MapLength >= 28
    )
    return fits


def resources_of_fork(fork: Buffer) -> list[Resource]:
    """The resources of a binary fork, by its map; if the map is damaged, whatever in the data area is a block table, in
    order. Raises CorruptImage (layer "UDIF")."""
    fork = bytes(fork)
    if not looks_like_fork(fork[:16], len(fork)):
        raise CorruptImage(LAYER, "resource fork", "its header leads outside the fork")
    header = ResourceForkHeader.parse(fork)
    data = fork[header.DataOffset : header.DataOffset + header.DataLength]
    try:
        return _by_map(fork[header.MapOffset : header.MapOffset + header.MapLength], data)
    except (error, IndexError) as broken:
        tables = [Resource("blkx", str(n), "", blob) for n, blob in enumerate(_blobs(data)) if blob[:4] == b"mish"]
        if not tables:
            raise CorruptImage(LAYER, "resource fork", "its map is damaged", header.MapOffset) from broken
        return tables


def _by_map(table: bytes, data: bytes) -> list[Resource]:
    types_at = int.from_bytes(table[24:26], "big")
    names_at = int.from_bytes(table[26:28], "big")
    resources: list[Resource] = []
    count = int.from_bytes(table[types_at : types_at + 2], "big") + 1 & 0xFFFF
    for index in range(count):
        kind, last, references_at = _TYPE.unpack_from(table, types_at + 2 + 8 * index)
        if len(resources) + last + 1 > MOST_RESOURCES:
            raise _too_many("fork", len(resources) + last + 1)
        for reference in range(last + 1):
            number, name_at, _, place, _ = _REFERENCE.unpack_from(table, types_at + references_at + 12 * reference)
            name = ""
            if name_at != 0xFFFF:
                start = names_at + name_at
                name = table[start + 1 : start + 1 + table[start]].decode("mac_roman")
            blob = _blob(data, int.from_bytes(place, "big"))
            resources.append(Resource(kind.decode("mac_roman"), str(number), name, blob))
    return resources


def _blob(data: bytes, at: int) -> bytes:
    length = int.from_bytes(data[at : at + 4], "big")
    if at + 4 + length > len(data):
        raise IndexError(at)
    return data[at + 4 : at + 4 + length]


def _blobs(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(data):
        try:
            blob = _blob(data, at)
        except IndexError:
            return
        yield blob
        at += 4 + len(blob)


def _too_many(kind: str, count: int) -> CorruptImage:
    return CorruptImage(LAYER, "resources", f"{count} of `{kind}`, at most {MOST_RESOURCES} are read")
