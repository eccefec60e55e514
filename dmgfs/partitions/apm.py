"""Apple Partition Map: the scheme of PowerPC disks, CDs and most older DMGs.

Rules that hold here:
- one step is used for the place of entry i (i × step) and for the unit of all offsets. A disc with 2048-byte blocks
  often carries a second map at every 512 bytes, which is the right one where both exist;
- the count comes from the first entry, at most 256 are read, and the first block that is no entry ends the map;
- status bits say nothing reliable and are not looked at.
"""

from dmgfs.partitions.partition import Partition, PartitionMap, clamped
from dmgfs.partitions.structs import APM_ENTRY, DRIVER_DESCRIPTOR
from dmgfs.source import ByteSource

STEPS = (512, 1024, 2048, 4096)
MOST_ENTRIES = 256


def read_apm(disk: ByteSource) -> PartitionMap | None:
    """The map, None if the disk has none. Raises what `disk.read` raises."""
    warnings: list[str] = []
    step = _step(disk, warnings)
    if step is None:
        return None
    count = int(_entry(disk, step).pmMapBlkCnt)
    if count > MOST_ENTRIES:
        warnings.append(f"the map claims {count} entries; at most {MOST_ENTRIES} are read")
    partitions: list[Partition] = []
    for index in range(1, min(count, MOST_ENTRIES) + 1):
        entry = _entry(disk, index * step)
        if entry is None:
            warnings.append(f"the map claims {count} entries and ends after {index - 1}")
            break
        type_ = _text(entry.pmParType).rstrip(" ")
        start, length = entry.pmPyPartStart * step, entry.pmPartBlkCnt * step
        if type_ == "Apple_Void" and length == 0:
            continue
        partitions.append(clamped(index, "APM", type_, _text(entry.pmPartName), start, length, disk.size))
    return PartitionMap("APM", step, partitions, warnings)


def _step(disk: ByteSource, warnings: list[str]) -> int | None:
    """Bytes from one entry to the next, None if this is no APM disk."""
    if disk.size < 1024:
        return None
    descriptor = DRIVER_DESCRIPTOR.parse(bytes(disk.read(0, DRIVER_DESCRIPTOR.sizeof())))
    found = [step for step in STEPS if _entry(disk, step) is not None]
    if descriptor.sbSig != b"ER":
        return found[0] if found else None
    if not found:
        return None
    block_size = int(descriptor.sbBlkSize)
    if block_size not in STEPS:
        warnings.append(f"the driver descriptor gives a block size of {block_size}; {found[0]} is used")
        return found[0]
    if block_size > 512 and 512 in found and _entry(disk, 512).pmPyPartStart == 1:
        return 512
    if block_size not in found:
        warnings.append(f"the driver descriptor gives a block size of {block_size}, the map stands at {found[0]}")
        return found[0]
    return block_size


# The return type is construct's container: its attributes are the fields of APM_ENTRY.
def _entry(disk: ByteSource, offset: int):  # type: ignore[no-untyped-def]
    """The map entry at `offset`, None if there is none."""
    size = APM_ENTRY.sizeof()
    if offset + size > disk.size:
        return None
    entry = APM_ENTRY.parse(bytes(disk.read(offset, size)))
    return entry if entry.pmSig == b"PM" else None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("mac_roman")
