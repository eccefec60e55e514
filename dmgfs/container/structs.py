"""On-disk structures of UDIF: the trailer, the checksum record, the block table and its entries. All integers are
big-endian, a sector is 512 bytes. Field names are those of the format's descriptions.
"""

import struct

from construct import Bytes, Const, Int32sb, Int32ub, Int64ub, Struct

SECTOR = 512
KOLY_SIZE = 512
MISH_SIZE = 204
RUN_SIZE = 40

UDIFChecksum = Struct("Type" / Int32ub, "Size" / Int32ub, "Value" / Bytes(128))
"""Type: algorithm (see `algorithm_name`). Size: of the value in bits. Value: left-aligned."""

Koly = Struct(
    "Signature" / Const(b"koly"),
    "Version" / Int32ub,
    "HeaderSize" / Int32ub,
    "Flags" / Int32ub,
    "RunningDataForkOffset" / Int64ub,
    "DataForkOffset" / Int64ub,
    "DataForkLength" / Int64ub,
    "RsrcForkOffset" / Int64ub,
    "RsrcForkLength" / Int64ub,
    "SegmentNumber" / Int32ub,
    "SegmentCount" / Int32ub,
    "SegmentID" / Bytes(16),
    "DataChecksum" / UDIFChecksum,
    "XMLOffset" / Int64ub,
    "XMLLength" / Int64ub,
    "Reserved1" / Bytes(64),
    "CodeSignatureOffset" / Int64ub,
    "CodeSignatureLength" / Int64ub,
    "Reserved2" / Bytes(40),
    "MasterChecksum" / UDIFChecksum,
    "ImageVariant" / Int32ub,
    "SectorCount" / Int64ub,
    "Reserved3" / Bytes(12),
)

Mish = Struct(
    "Signature" / Const(b"mish"),
    "Version" / Int32ub,
    "StartSector" / Int64ub,
    "SectorCount" / Int64ub,
    "DataOffset" / Int64ub,
    "BuffersNeeded" / Int32ub,
    "Descriptor" / Int32sb,
    "Reserved" / Bytes(24),
    "Checksum" / UDIFChecksum,
    "EntryCount" / Int32ub,
)

Run = Struct(
    "Type" / Int32ub,
    "Comment" / Int32ub,
    "SectorNumber" / Int64ub,
    "SectorCount" / Int64ub,
    "CompressedOffset" / Int64ub,
    "CompressedLength" / Int64ub,
)

RUN = struct.Struct(">IIQQQQ")
"""The twin of Run for the many."""

ResourceForkHeader = Struct(
    "DataOffset" / Int32ub, "MapOffset" / Int32ub, "DataLength" / Int32ub, "MapLength" / Int32ub
)


# Run types with data or without; the obsolete ones are named so that the error can name them.
ZERO, RAW, IGNORE = 0x00000000, 0x00000001, 0x00000002
COMMENT, TERMINATOR = 0x7FFFFFFE, 0xFFFFFFFF
CODEC_OF = {
    0x80000004: "adc",
    0x80000005: "zlib",
    0x80000006: "bzip2",
    0x80000007: "lzfse",
    0x80000008: "xz",
}
NAME_OF = {
    ZERO: "zero",
    RAW: "raw",
    IGNORE: "ignore",
    0x80000001: "KenCode",
    0x80000002: "RLE",
    0x80000003: "LZH",
    **CODEC_OF,
}


_ALGORITHMS = {
    1: "CRC-28",
    2: "CRC-32",
    3: "DiskCopy 4.2",
    4: "MD5",
    5: "SHA",
    6: "SHA-1",
    7: "SHA-256",
    8: "SHA-384",
    9: "SHA-512",
}


def algorithm_name(kind: int) -> str:
    """The name of a checksum type for people."""
    return _ALGORITHMS.get(kind, f"type {kind}")


def type_name(run_type: int) -> str:
    """The name of a run type for people."""
    return NAME_OF.get(run_type, f"type {run_type:#010x}")
