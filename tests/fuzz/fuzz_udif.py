"""Fuzzes UDIF: trailer, property list, resource fork, block tables, reading every run, verifying the checksums."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.container import checksum, udif

from builders.udif import Piece, Table, build

from dmgfs.cache import ChunkCache
from dmgfs.errors import DmgError
from dmgfs.source import MemorySource

MOST_EXPANDED = 1 << 16
"""Larger chunks only cost time here."""
MOST_READ = 1 << 20

checksum.MOST_BYTES = MOST_READ


def one_input(data: bytes) -> None:
    source = MemorySource(data)
    if not udif.recognise(source):
        return
    try:
        container = udif.open_udif(source, cache=ChunkCache(1 << 18), most_expanded=MOST_EXPANDED)
    except DmgError:
        return
    disk = container.disk
    for start in range(0, min(disk.size, MOST_READ), 1 << 12):
        length = min(1 << 12, disk.size - start)
        try:
            assert len(disk.read(start, length)) == length
        except DmgError:
            pass
        disk.cold(start, 2 * length)
    assert container.verify is not None
    for _ in container.verify():
        pass


def seeds() -> list[bytes]:
    content = bytes(range(256)) * 8
    pieces = [Piece(codec, content) for codec in ("raw", "adc", "zlib", "bzip2", "lzfse", "xz")]
    pieces += [Piece("comment", 0), Piece("zero", 3), Piece("ignore", 5)]
    tables = [Table("a", pieces[:4]), Table("b", pieces[4:], data_offset=7)]
    return [
        build(tables).bytes,
        build(tables, tables_in="fork", prefix=bytes(128)).bytes,
        build(tables, tables_in="both", checksum_type=7).bytes,
        build(tables[:1], at_start=True).bytes,
    ]


if __name__ == "__main__":
    fuzz(one_input, seeds())
