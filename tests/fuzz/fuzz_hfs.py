"""Fuzzes HFS standard: opens the volume, walks it, finds everything by name and number, reads both forks."""

import stat

import atheris
from harness import fuzz

with atheris.instrument_imports(include=["dmgfs"]):
    from dmgfs.hfs.volume import open_volume

from builders.hfs import File, Folder, Image

from dmgfs.errors import DmgError
from dmgfs.source import MemorySource
from dmgfs.volume import ROOT_FOLDER

MOST = 500
"""Objects looked at in one run."""


def one_input(data: bytes) -> None:
    try:
        volume = open_volume(MemorySource(data))
    except DmgError:
        return
    folders, entered, seen = [ROOT_FOLDER], {ROOT_FOLDER}, 0
    while folders and seen < MOST:
        number, after = folders.pop(), None
        while seen < MOST:
            try:
                page = volume.children(number, after, 3)
            except DmgError:
                break
            for node in page.nodes:
                seen += 1
                if stat.S_ISDIR(node.mode) and node.cnid not in entered:
                    entered.add(node.cnid)
                    folders.append(node.cnid)
                try:
                    volume.find(number, node.name)
                    volume.node(node.cnid)
                    for source in (volume.data(node), volume.resource(node)):
                        source.read(0, min(source.size, 1 << 14))
                except DmgError:
                    pass
            after = page.next
            if after is None:
                break


def seeds() -> list[bytes]:
    small = Folder({"a": File(b"data", b"resource"), "b": Folder({"c": File(bytes(4000), fragments=8, thread=True)})})
    wide = Folder({f"file {number}": File(b"x") for number in range(30)})
    return [Image(Folder()).bytes, Image(small).bytes, Image(wide, block_size=1024).bytes]


if __name__ == "__main__":
    fuzz(one_input, seeds())
