"""Fuzzes NDIF with what carries it (MacBinary, AppleSingle, resource forks), and DiskCopy 4.2."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.container import diskcopy, ndif

from builders.macforks import adc_literals, apple_double, diskcopy42, macbinary, ndif_table, resource_fork

from dmgfs.cache import ChunkCache
from dmgfs.errors import DmgError
from dmgfs.source import MemorySource


def one_input(data: bytes) -> None:
    source = MemorySource(data)
    try:
        if ndif.recognise(source, None):
            disk = ndif.open_ndif(source, None, ChunkCache(1 << 16)).disk
            disk.read(0, min(disk.size, 1 << 14))
        if diskcopy.recognise(source):
            diskcopy.open_diskcopy(source, None)
    except DmgError:
        pass


def seeds() -> list[bytes]:
    packed = adc_literals(bytes(range(256)) * 4)
    table = ndif_table([(0, 0x83, 0, len(packed)), (2, 0, 0, 0), (3, 2, len(packed), 512)], 4)
    data, fork = packed + bytes(512), resource_fork({("bcem", 128): table, ("vers", 1): b"6"})
    return [
        macbinary(data, fork, version=1),
        macbinary(data, fork),
        apple_double(fork, data=data),
        diskcopy42(bytes(1024)),
    ]


if __name__ == "__main__":
    fuzz(one_input, seeds())
