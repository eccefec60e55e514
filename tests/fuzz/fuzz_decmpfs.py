"""Fuzzes decmpfs: header, block tables and all its decoders. An input is the length of the attribute (two bytes), the
attribute, the resource fork."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.hfsplus import decmpfs

from builders.decmpfs import BLOCK, FORK_TYPES, INLINE_TYPES, pack

from dmgfs.cache import ChunkCache
from dmgfs.errors import DmgError
from dmgfs.source import MemorySource


def one_input(data: bytes) -> None:
    length = int.from_bytes(data[:2])
    attribute, fork = data[2 : 2 + length], data[2 + length :]
    try:
        source = decmpfs.open_compressed(attribute, MemorySource(fork), ChunkCache(1 << 18), 0)
    except DmgError:
        return
    for offset in (0, BLOCK, source.size - 1):
        wanted = max(0, min(2 * BLOCK, source.size - offset))
        try:
            assert len(source.read(offset, wanted)) == wanted
        except DmgError:
            pass


def seeds() -> list[bytes]:
    content = b"".join(b"line %d\n" % number for number in range(40))
    files = [pack(kind, content) for kind in (*INLINE_TYPES, *FORK_TYPES)]
    # Of two blocks: not stored (too large for a seed), and not LZBITMAP (its decoder is ours: a second for a block).
    files += [pack(kind, bytes(BLOCK + 100)) for kind in FORK_TYPES if kind not in (10, 14)]
    return [len(attribute).to_bytes(2) + attribute + fork for attribute, fork in files]


if __name__ == "__main__":
    fuzz(one_input, seeds())
