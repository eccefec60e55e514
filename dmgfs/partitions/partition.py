"""Partition and PartitionMap: what a partition scheme says about a disk, in bytes.

Rules that hold here:
- a map is what the disk claims, clamped to the bytes that exist: `start + length` never passes the end of the disk;
- whatever had to be bent for that is in `warnings`, in plain sentences;
- the volume on a partition is found by its own signature (`dmgfs.partitions.signatures`), never by the partition's type.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NOT_VOLUMES = ("Apple_partition_map", "Apple_Free", "Apple_Void", "Apple_Driver", "Apple_Patches", "Apple_FWDriver")
"""Beginnings of APM types that never hold a volume."""

SECOND_CHOICE = ("Apple_Boot", "Apple_Recovery", "EFI")
"""Beginnings of types whose volumes are taken only when there is no other."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of a partition map.

    index: as the scheme counts (APM and GPT from 1, MBR primary 1-4 and logical from 5, 0 for a disk without a map).
    scheme: "APM", "GPT", "MBR" or "none". type: the APM type, the short name of a GPT type (its GUID if unknown), or
    the MBR type as "0xAF"; "" without a map. name: as recorded, "" where the scheme has none. start, length: bytes,
    clamped to the disk; length 0 where nothing of it exists. identifier: the GPT's unique GUID, else "".
    """

    index: int
    scheme: str
    type: str
    name: str
    start: int
    length: int
    identifier: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def may_hold_volume(self) -> bool:
        return self.length > 0 and not self.type.startswith(NOT_VOLUMES)

    @property
    def second_choice(self) -> bool:
        return self.type.startswith(SECOND_CHOICE) or self.name.startswith("Recovery HD")


@dataclass(frozen=True, slots=True)
class PartitionMap:
    """scheme: as in Partition. block_size: the unit the map counts in, bytes. Partitions in the order of the map."""

    scheme: str
    block_size: int
    partitions: Sequence[Partition]
    warnings: Sequence[str] = field(default=())


def clamped(
    index: int, scheme: str, type_: str, name: str, start: int, length: int, disk_size: int, identifier: str = ""
) -> Partition:
    """The partition as far as the disk goes, with a warning if it claimed more (threats P3)."""
    inside = max(0, min(length, disk_size - start))
    warnings: tuple[str, ...] = ()
    if length > 0 and inside == 0:
        warnings = (f"partition {index} begins at {start:#x}, past the end of the disk ({disk_size:#x})",)
    elif inside < length:
        warnings = (f"partition {index} ends at {start + length:#x}, past the end of the disk ({disk_size:#x})",)
    return Partition(index, scheme, type_, name, min(start, disk_size), inside, identifier, warnings)


def map_warnings(partitions: Iterable[Partition]) -> list[str]:
    return [warning for partition in partitions for warning in partition.warnings]
