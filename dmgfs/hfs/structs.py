"""The on-disk structures of HFS standard (Inside Macintosh: Files, chapter 2), field names as there.

Two forms of each, as for HFS+: a construct declaration, which is the readable grammar and parses what is read once per
mount, and a `struct.Struct` twin for what is read for every file. A test holds the twins equal to the declarations.
Everything is big-endian and packed. Nothing here checks values; whoever parses does.
"""

import struct

from construct import Array, Bytes, Int8sb, Int8ub, Int16ub, Int32ub, PascalString
from construct import Struct as Declaration

HFS_SIGNATURE = 0x4244  # "BD"
MFS_SIGNATURE = 0xD2D7
HFSPLUS_SIGNATURE = 0x482B  # in drEmbedSigWord: this volume is the wrapper of an HFS+ one

SECTOR = 512
MDB_OFFSET = 1024
MDB_SIZE = 162

UNMOUNTED = 1 << 8
ATTRIBUTE_NAMES = {
    7: "hardware lock",
    8: "unmounted cleanly",
    9: "bad blocks spared",
    11: "boot volume inconsistent",
    15: "software lock",
}

EXTENTS_PER_RECORD = 3
ExtDescriptor = Declaration("xdrStABN" / Int16ub, "xdrNumABlks" / Int16ub)
ExtDataRec = Array(EXTENTS_PER_RECORD, ExtDescriptor)
EXTENT_RECORD = struct.Struct(">6H")

MasterDirectoryBlock = Declaration(
    "drSigWord" / Int16ub,
    "drCrDate" / Int32ub,
    "drLsMod" / Int32ub,
    "drAtrb" / Int16ub,
    "drNmFls" / Int16ub,
    "drVBMSt" / Int16ub,
    "drAllocPtr" / Int16ub,
    "drNmAlBlks" / Int16ub,
    "drAlBlkSiz" / Int32ub,
    "drClpSiz" / Int32ub,
    "drAlBlSt" / Int16ub,
    "drNxtCNID" / Int32ub,
    "drFreeBks" / Int16ub,
    "drVN" / Bytes(28),
    "drVolBkUp" / Int32ub,
    "drVSeqNum" / Int16ub,
    "drWrCnt" / Int32ub,
    "drXTClpSiz" / Int32ub,
    "drCTClpSiz" / Int32ub,
    "drNmRtDirs" / Int16ub,
    "drFilCnt" / Int32ub,
    "drDirCnt" / Int32ub,
    "drFndrInfo" / Array(8, Int32ub),
    "drEmbedSigWord" / Int16ub,
    "drEmbedExtent" / ExtDescriptor,
    "drXTFlSize" / Int32ub,
    "drXTExtRec" / ExtDataRec,
    "drCTFlSize" / Int32ub,
    "drCTExtRec" / ExtDataRec,
)

# B-trees

NODE_SIZE = 512
LEAF_NODE = -1
INDEX_NODE = 0
HEADER_NODE = 1

NodeDescriptor = Declaration(
    "ndFLink" / Int32ub,
    "ndBLink" / Int32ub,
    "ndType" / Int8sb,
    "ndNHeight" / Int8ub,
    "ndNRecs" / Int16ub,
    "ndResv2" / Int16ub,
)
NODE_DESCRIPTOR = struct.Struct(">IIbBHH")

BTHdrRec = Declaration(
    "bthDepth" / Int16ub,
    "bthRoot" / Int32ub,
    "bthNRecs" / Int32ub,
    "bthFNode" / Int32ub,
    "bthLNode" / Int32ub,
    "bthNodeSize" / Int16ub,
    "bthKeyLen" / Int16ub,
    "bthNNodes" / Int32ub,
    "bthFree" / Int32ub,
    "bthResv" / Bytes(76),
)

# Catalog

CATALOG_KEY_LENGTH = 37
"""Bytes that every key of an index node takes behind its length byte."""
MAX_NAME = 31

DIRECTORY_RECORD = 1
FILE_RECORD = 2
DIRECTORY_THREAD = 3
FILE_THREAD = 4

CatKeyRec = Declaration("ckrKeyLen" / Int8ub, "ckrResrv1" / Int8ub, "ckrParID" / Int32ub, "ckrCNameLen" / Int8ub)
CATALOG_KEY = struct.Struct(">BxIB")

CatalogDirectory = Declaration(
    "cdrType" / Int8sb,
    "cdrResrv2" / Int8ub,
    "dirFlags" / Int16ub,
    "dirVal" / Int16ub,
    "dirDirID" / Int32ub,
    "dirCrDat" / Int32ub,
    "dirMdDat" / Int32ub,
    "dirBkDat" / Int32ub,
    "dirUsrInfo" / Bytes(16),
    "dirFndrInfo" / Bytes(16),
    "dirResrv" / Array(4, Int32ub),
)
CATALOG_DIRECTORY = struct.Struct(">bxHHIIII32s16x")

CatalogFile = Declaration(
    "cdrType" / Int8sb,
    "cdrResrv2" / Int8ub,
    "filFlags" / Int8ub,
    "filTyp" / Int8ub,
    "filUsrWds" / Bytes(16),
    "filFlNum" / Int32ub,
    "filStBlk" / Int16ub,
    "filLgLen" / Int32ub,
    "filPyLen" / Int32ub,
    "filRStBlk" / Int16ub,
    "filRLgLen" / Int32ub,
    "filRPyLen" / Int32ub,
    "filCrDat" / Int32ub,
    "filMdDat" / Int32ub,
    "filBkDat" / Int32ub,
    "filFndrInfo" / Bytes(16),
    "filClpSize" / Int16ub,
    "filExtRec" / ExtDataRec,
    "filRExtRec" / ExtDataRec,
    "filResrv" / Int32ub,
)
CATALOG_FILE = struct.Struct(">bxBx16sI2xII2xIIIII16s2x12s12s4x")

CatalogThread = Declaration(
    "cdrType" / Int8sb,
    "cdrResrv2" / Int8ub,
    "thdResrv" / Array(2, Int32ub),
    "thdParID" / Int32ub,
    "thdCName" / PascalString(Int8ub, "mac_roman"),
)
CATALOG_THREAD = struct.Struct(">bx8xIB")

FILE_LOCKED = 0x01  # filFlags
FINDER_INVISIBLE = 0x4000
UF_IMMUTABLE = 0x2
UF_HIDDEN = 0x8000

# Extents overflow

EXTENT_KEY_LENGTH = 7
DATA_FORK = 0x00
RESOURCE_FORK = 0xFF
ExtKeyRec = Declaration("xkrKeyLen" / Int8ub, "xkrFkType" / Int8ub, "xkrFNum" / Int32ub, "xkrFABN" / Int16ub)
EXTENT_KEY = struct.Struct(">BBIH")
