"""Fuzzes sparse images, and the property list of sparse bundles and NetBoot folders."""

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.container import sparsebundle, sparseimage
    from dmgfs.container.plist import parse_plist

from builders.sparse import info_plist, sparse_image

from dmgfs.errors import DmgError
from dmgfs.source import MemorySource


def one_input(data: bytes) -> None:
    try:
        if data[:1] == b"<":
            sparsebundle._geometry_of(parse_plist(data, "bundle", "Info.plist", 1 << 20), "Info.plist")
            return
        source = MemorySource(data)
        if sparseimage.recognise(source):
            disk = sparseimage.open_sparseimage(source, None).disk
            disk.cold(0, 1 << 16)
            disk.read(0, min(disk.size, 1 << 16))
            disk.read(disk.size - 1, 1)
    except DmgError:
        pass


def seeds() -> list[bytes]:
    disk = bytes(range(256)) * 16
    return [
        sparse_image(disk),
        sparse_image(disk, sectors_per_band=1, order=[7, 0, 3]),
        sparse_image(disk * 130, sectors_per_band=1),
        info_plist(4096, 512),
    ]


if __name__ == "__main__":
    fuzz(one_input, seeds())
