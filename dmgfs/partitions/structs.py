"""On-disk structures of the three partition schemes, with the field names of their specifications: Apple's driver
descriptor and partition map (Inside Macintosh: Devices, chapter 3), GPT (UEFI specification, chapter 5), MBR.

Parsed once per image, so construct alone is fast enough; there are no hot twins here.
"""

from construct import Bytes, Int8ub, Int16ub, Int16ul, Int32ub, Int32ul, Int64ul, Padding, Struct

DRIVER_DESCRIPTOR = Struct(
    "sbSig" / Bytes(2),
    "sbBlkSize" / Int16ub,
    "sbBlkCount" / Int32ub,
    "sbDevType" / Int16ub,
    "sbDevId" / Int16ub,
    "sbData" / Int32ub,
    "sbDrvrCount" / Int16ub,
)
"""The start of block 0 of an APM disk, 18 bytes."""

APM_ENTRY = Struct(
    "pmSig" / Bytes(2),
    "pmSigPad" / Int16ub,
    "pmMapBlkCnt" / Int32ub,
    "pmPyPartStart" / Int32ub,
    "pmPartBlkCnt" / Int32ub,
    "pmPartName" / Bytes(32),
    "pmParType" / Bytes(32),
    "pmLgDataStart" / Int32ub,
    "pmDataCnt" / Int32ub,
    "pmPartStatus" / Int32ub,
)
"""The start of one APM entry, 92 bytes; boot code fields follow."""

GPT_HEADER = Struct(
    "Signature" / Bytes(8),
    "Revision" / Int32ul,
    "HeaderSize" / Int32ul,
    "HeaderCRC32" / Int32ul,
    Padding(4),
    "MyLBA" / Int64ul,
    "AlternateLBA" / Int64ul,
    "FirstUsableLBA" / Int64ul,
    "LastUsableLBA" / Int64ul,
    "DiskGUID" / Bytes(16),
    "PartitionEntryLBA" / Int64ul,
    "NumberOfPartitionEntries" / Int32ul,
    "SizeOfPartitionEntry" / Int32ul,
    "PartitionEntryArrayCRC32" / Int32ul,
)
"""92 bytes."""

GPT_ENTRY = Struct(
    "PartitionTypeGUID" / Bytes(16),
    "UniquePartitionGUID" / Bytes(16),
    "StartingLBA" / Int64ul,
    "EndingLBA" / Int64ul,
    "Attributes" / Int64ul,
    "PartitionName" / Bytes(72),
)
"""128 bytes; entries may be larger, the rest is reserved."""

MBR_ENTRY = Struct(
    "BootIndicator" / Int8ub,
    "StartingCHS" / Bytes(3),
    "OSType" / Int8ub,
    "EndingCHS" / Bytes(3),
    "StartingLBA" / Int32ul,
    "SizeInLBA" / Int32ul,
)
"""16 bytes, four of them from byte 446 of the sector."""

MASTER_DIRECTORY_BLOCK = Struct(
    "drSigWord" / Bytes(2),
    Padding(18),
    "drAlBlkSiz" / Int32ub,
    Padding(4),
    "drAlBlSt" / Int16ub,
    Padding(94),
    "drEmbedSigWord" / Bytes(2),
    "xdrStABN" / Int16ub,
    "xdrNumABlks" / Int16ub,
)
"""What finding the volume inside an HFS wrapper needs of an HFS master directory block (TN1150, "HFS Wrapper")."""

BIOS_PARAMETER_BLOCK = Struct(
    "BS_jmpBoot" / Bytes(3),
    "BS_OEMName" / Bytes(8),
    "BPB_BytsPerSec" / Int16ul,
    "BPB_SecPerClus" / Int8ub,
    "BPB_RsvdSecCnt" / Int16ul,
    "BPB_NumFATs" / Int8ub,
    "BPB_RootEntCnt" / Int16ul,
    "BPB_TotSec16" / Int16ul,
    "BPB_Media" / Int8ub,
)
"""The start of a FAT boot sector, 22 bytes."""
