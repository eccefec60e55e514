"""The on-disk structures of HFS+ and HFSX (TN1150), field names as in the specification.

Two forms of each: a construct declaration, which is the readable grammar and parses what is read once per mount (volume
header, tree headers, wrapper), and for what is read a million times a `struct.Struct` twin. A test holds the twins equal
to the declarations. Everything is big-endian and packed. Nothing here checks values; whoever parses does.
"""

import struct

from construct import Array, Bytes, Int8sb, Int8ub, Int16sb, Int16ub, Int32sb, Int32ub, Int64ub, Padding
from construct import Struct as Declaration

HFSPLUS_SIGNATURE = 0x482B  # "H+"
HFSX_SIGNATURE = 0x4858  # "HX"
HFS_SIGNATURE = 0x4244  # "BD": HFS standard, or the wrapper around HFS+

HEADER_OFFSET = 1024
HEADER_SIZE = 512

# Volume attribute bits.
UNMOUNTED = 1 << 8
JOURNALED = 1 << 13
EXPANDED_TIMES = 1 << 29

ATTRIBUTE_NAMES = {
    7: "hardware lock",
    8: "unmounted cleanly",
    9: "bad blocks spared",
    10: "no cache",
    11: "boot volume inconsistent",
    12: "catalog ids reused",
    13: "journaled",
    14: "inconsistent",
    15: "software lock",
    29: "expanded times",
    30: "content protection",
    31: "unused nodes cleared",
}

EXTENTS_PER_RECORD = 8

ForkData = Declaration(
    "logicalSize" / Int64ub,
    "clumpSize" / Int32ub,
    "totalBlocks" / Int32ub,
    "extents" / Array(EXTENTS_PER_RECORD, Declaration("startBlock" / Int32ub, "blockCount" / Int32ub)),
)
FORK_DATA = struct.Struct(">QII16I")
EXTENT_RECORD = struct.Struct(">16I")

VolumeHeader = Declaration(
    "signature" / Int16ub,
    "version" / Int16ub,
    "attributes" / Int32ub,
    "lastMountedVersion" / Bytes(4),
    "journalInfoBlock" / Int32ub,
    "createDate" / Int32ub,
    "modifyDate" / Int32ub,
    "backupDate" / Int32ub,
    "checkedDate" / Int32ub,
    "fileCount" / Int32ub,
    "folderCount" / Int32ub,
    "blockSize" / Int32ub,
    "totalBlocks" / Int32ub,
    "freeBlocks" / Int32ub,
    "nextAllocation" / Int32ub,
    "rsrcClumpSize" / Int32ub,
    "dataClumpSize" / Int32ub,
    "nextCatalogID" / Int32ub,
    "writeCount" / Int32ub,
    "encodingsBitmap" / Int64ub,
    "finderInfo" / Array(8, Int32ub),
    "allocationFile" / ForkData,
    "extentsFile" / ForkData,
    "catalogFile" / ForkData,
    "attributesFile" / ForkData,
    "startupFile" / ForkData,
)

WrapperBlock = Declaration(  # the HFS master directory block, as far as a wrapper needs it
    "drSigWord" / Int16ub,
    Padding(18),
    "drAlBlkSiz" / Int32ub,
    Padding(4),
    "drAlBlSt" / Int16ub,
    Padding(94),
    "drEmbedSigWord" / Int16ub,
    "drEmbedExtent" / Declaration("startBlock" / Int16ub, "blockCount" / Int16ub),
)

# B-trees

LEAF_NODE = -1
INDEX_NODE = 0
HEADER_NODE = 1

NodeDescriptor = Declaration(
    "fLink" / Int32ub,
    "bLink" / Int32ub,
    "kind" / Int8sb,
    "height" / Int8ub,
    "numRecords" / Int16ub,
    "reserved" / Int16ub,
)
NODE_DESCRIPTOR = struct.Struct(">IIbBHH")

VARIABLE_INDEX_KEYS = 4

CASE_FOLDING = 0xCF
BINARY_COMPARE = 0xBC

HeaderRecord = Declaration(
    "treeDepth" / Int16ub,
    "rootNode" / Int32ub,
    "leafRecords" / Int32ub,
    "firstLeafNode" / Int32ub,
    "lastLeafNode" / Int32ub,
    "nodeSize" / Int16ub,
    "maxKeyLength" / Int16ub,
    "totalNodes" / Int32ub,
    "freeNodes" / Int32ub,
    "reserved1" / Int16ub,
    "clumpSize" / Int32ub,
    "btreeType" / Int8ub,
    "keyCompareType" / Int8ub,
    "attributes" / Int32ub,
    "reserved3" / Array(16, Int32ub),
)

# Catalog

FOLDER_RECORD = 1
FILE_RECORD = 2
FOLDER_THREAD = 3
FILE_THREAD = 4

# Record flags.
HAS_FOLDER_COUNT = 0x10
HAS_LINK_CHAIN = 0x20
HAS_EXPANDED_TIMES = 0x1000

# st_flags and Finder flags that mean something to a reader.
UF_COMPRESSED = 0x20
UF_HIDDEN = 0x8000
FINDER_INVISIBLE = 0x4000

CatalogKey = Declaration("keyLength" / Int16ub, "parentID" / Int32ub, "nameLength" / Int16ub)
CATALOG_KEY = struct.Struct(">HIH")

BSDInfo = Declaration(
    "ownerID" / Int32ub,
    "groupID" / Int32ub,
    "adminFlags" / Int8ub,
    "ownerFlags" / Int8ub,
    "fileMode" / Int16ub,
    "special" / Int32ub,
)

_CATALOG_COMMON = (
    "recordType" / Int16sb,
    "flags" / Int16ub,
    "valence" / Int32ub,  # in files: reserved1
    "id" / Int32ub,
    "createDate" / Int32ub,
    "contentModDate" / Int32ub,
    "attributeModDate" / Int32ub,
    "accessDate" / Int32ub,
    "backupDate" / Int32ub,
    "bsdInfo" / BSDInfo,
    "userInfo" / Bytes(16),
    "finderInfo" / Bytes(16),
    "textEncoding" / Int32ub,
    "folderCount" / Int32ub,  # in files: reserved2
)
CatalogFolder = Declaration(*_CATALOG_COMMON)
CatalogFile = Declaration(*_CATALOG_COMMON, "dataFork" / ForkData, "resourceFork" / ForkData)
CatalogThread = Declaration(
    "recordType" / Int16sb, "reserved" / Int16sb, "parentID" / Int32ub, "nameLength" / Int16ub
)

# The twins leave out what listing does not show: clump sizes and extents. userInfo and finderInfo come as one value.
CATALOG_FOLDER = struct.Struct(">hHII5IIIBBHI32sII")
CATALOG_FILE = struct.Struct(">hHII5IIIBBHI32sIIQ4xI64xQ4xI64x")
CATALOG_THREAD = struct.Struct(">hhIH")
DATA_FORK_OFFSET = 88
RESOURCE_FORK_OFFSET = 168

# Extents overflow

DATA_FORK = 0x00
RESOURCE_FORK = 0xFF

ExtentKey = Declaration(
    "keyLength" / Int16ub, "forkType" / Int8ub, "pad" / Int8ub, "fileID" / Int32ub, "startBlock" / Int32ub
)
EXTENT_KEY = struct.Struct(">HBBII")

# Attributes

INLINE_ATTRIBUTE = 0x10
FORK_ATTRIBUTE = 0x20
EXTENTS_ATTRIBUTE = 0x30

AttributeKey = Declaration(
    "keyLength" / Int16ub,
    "pad" / Int16ub,
    "fileID" / Int32ub,
    "startBlock" / Int32ub,
    "attrNameLen" / Int16ub,
)
ATTRIBUTE_KEY = struct.Struct(">HHIIH")

InlineAttribute = Declaration("recordType" / Int32ub, "reserved" / Array(2, Int32sb), "attrSize" / Int32ub)
INLINE_ATTRIBUTE_HEADER = struct.Struct(">I8xI")
