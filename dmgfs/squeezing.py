"""Compression for a shadow in memory, by name: `--shadow ram,compress=zstd`. zstd comes with Python from 3.14 on; before
that the package backports.zstd brings the same module. Imported when it is asked for.
"""

import importlib
from typing import Any

from dmgfs.errors import Unsupported
from overlay.ram import RamStore
from overlay.squeezed import Codec, SqueezedStore
from overlay.vfs import Buffer

_LEVEL = 1
"""Level 3 takes half as much time again for 5 % (measured)."""

_MODULES = ("compression.zstd", "backports.zstd")


def codec(name: str) -> Codec:
    """Raises Unsupported."""
    if name != "zstd":
        raise Unsupported(f"compress={name}", "write compress=zstd or compress=none")
    zstd = find_zstd()
    if zstd is None:
        raise Unsupported("compress=zstd", "it needs the Python package backports.zstd: pip install 'dmgfs[zstd]'")

    def pack(data: Buffer) -> bytes:
        packed: bytes = zstd.compress(data, _LEVEL)
        return packed

    def unpack(data: Buffer, size: int) -> bytes:
        whole: bytes = zstd.ZstdDecompressor().decompress(data, max_length=size)
        return whole

    return Codec(name, pack, unpack)


def find_zstd() -> Any:
    """The module, None without it."""
    for module in _MODULES:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    return None


def ram_store(budget: int, compress: str) -> RamStore:
    """A store in memory. compress: "none", or how its cold pages are. Raises Unsupported."""
    return RamStore(budget) if compress == "none" else SqueezedStore(budget, codec(compress))
