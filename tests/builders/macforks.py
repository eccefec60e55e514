"""Builds resource forks and the files that carry them: MacBinary, AppleSingle, AppleDouble; NDIF block tables; DiskCopy
4.2 files."""

import binascii
import struct


def resource_fork(resources: dict[tuple[str, int], bytes]) -> bytes:
    """A binary resource fork. resources: (type, id) → data."""
    data, places = b"", {}
    for key, value in resources.items():
        places[key] = len(data)
        data += struct.pack(">I", len(value)) + value
    kinds = sorted({kind for kind, _ in resources})
    types, references = struct.pack(">H", len(kinds) - 1), b""
    for kind in kinds:
        ids = sorted(number for one, number in resources if one == kind)
        types += struct.pack(">4sHH", kind.encode("mac_roman"), len(ids) - 1, 2 + 8 * len(kinds) + len(references))
        for number in ids:
            references += struct.pack(">hHB3sI", number, 0xFFFF, 0, places[kind, number].to_bytes(3, "big"), 0)
    header = struct.pack(">IIII", 256, 256 + len(data), len(data), 28 + len(types) + len(references))
    return (
        header.ljust(256, b"\0")
        + data
        + header
        + bytes(8)
        + struct.pack(">HH", 28, 28 + len(types + references))
        + types
        + references
    )


def macbinary(data: bytes, resource: bytes, *, name: bytes = b"Disk", version: int = 2) -> bytes:
    head = bytearray(128)
    head[1] = len(name)
    head[2 : 2 + len(name)] = name
    head[65:73] = b"dImgddsk"
    head[83:91] = struct.pack(">II", len(data), len(resource))
    if version >= 2:
        head[122:124] = b"\x81\x81"
        head[124:126] = struct.pack(">H", binascii.crc_hqx(bytes(head[:124]), 0))
    return bytes(head) + _filled(data) + _filled(resource)


def _filled(fork: bytes) -> bytes:
    return fork.ljust(-(-len(fork) // 128) * 128, b"\0")


def apple_double(resource: bytes, *, data: bytes | None = None) -> bytes:
    """AppleDouble with Finder info and resource fork; AppleSingle if `data` is given."""
    entries = [(9, bytes(32)), (2, resource)] + ([(1, data)] if data is not None else [])
    out = struct.pack(">II16xH", 0x00051607 if data is None else 0x00051600, 0x00020000, len(entries))
    at = len(out) + 12 * len(entries)
    body = b""
    for kind, content in entries:
        out += struct.pack(">III", kind, at + len(body), len(content))
        body += content
    return out + body


def ndif_table(
    chunks: list[tuple[int, int, int, int]], sectors: int, *, data_offset: int = 0, **fields: int
) -> bytes:
    """The resource `bcem`. chunks: (first sector, type, offset, length); the end mark is added."""
    name = b"Disk"
    head = struct.pack(
        ">HhB63sIIIII28xIII",
        11,
        0,
        len(name),
        name,
        sectors,
        512,
        data_offset,
        0,
        fields.get("segmented", 0),
        fields.get("encrypted", 0),
        0,
        fields.get("count", len(chunks) + 1),
    )
    body = b"".join(struct.pack(">III", first << 8 | kind, at, length) for first, kind, at, length in chunks)
    return head + body + struct.pack(">III", sectors << 8 | 0xFF, 0, 0)


def adc_literals(data: bytes) -> bytes:
    """ADC that copies: runs of at most 128 literal bytes."""
    pieces = [data[at : at + 128] for at in range(0, len(data), 128)]
    return b"".join(bytes([0x7F + len(piece)]) + piece for piece in pieces)


def diskcopy42(data: bytes, *, tags: bytes = b"", name: bytes = b"Floppy") -> bytes:
    return (
        struct.pack(">B63sIIIIBB2s", len(name), name, len(data), len(tags), 0, 0, 1, 0x22, b"\x01\x00") + data + tags
    )
