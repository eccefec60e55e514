"""Fuzzes the partition maps (APM, GPT, MBR with extended chains) and the probe of what stands on each partition."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.partitions import MOST_PROBED, probe, read_map

from builders.partitions import Part, add_apm, apm_disk, gpt_disk, mbr_disk, mbr_entry, signed

from dmgfs.errors import DmgError
from dmgfs.source import MemorySource

SIZE = 48 << 10
HFS_PLUS = "48465300-0000-11aa-aa11-00306543ecac"


def one_input(data: bytes) -> None:
    disk = MemorySource(data)
    try:
        found = read_map(disk)
        for partition in found.partitions[:MOST_PROBED]:
            probe(disk, partition.start, partition.length)
    except DmgError:
        pass


def seeds() -> list[bytes]:
    parts = [Part("Apple_HFS", 16, 8, "disk image"), Part("Apple_Free", 24, 4)]
    hybrid = apm_disk([Part("Apple_HFS", 8, 4, "CD")], SIZE, block=2048)
    add_apm(hybrid, parts, 512)
    mbr = mbr_disk([mbr_entry(0xAF, 8, 16), mbr_entry(0x05, 32, 32)], SIZE)
    disks = [
        apm_disk(parts, SIZE),
        apm_disk(parts, SIZE, block=2048),
        hybrid,
        gpt_disk([Part(HFS_PLUS, 40, 8, "disk image"), None], SIZE, entries=4),
        mbr,
        signed(bytearray(SIZE), 1024, b"H+\0\4"),
    ]
    return [bytes(disk) for disk in disks]


if __name__ == "__main__":
    fuzz(one_input, seeds())
