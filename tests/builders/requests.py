"""Everything that a mount may ask of an HFS+ volume, asked of a small one with some of everything, sound or damaged.

`read_all` is what the damage tests and the fuzzer run: each request ends in an answer or in DmgError, and soon.
"""

import time
from collections.abc import Callable

from builders.hfsplus import ROOT, HfsPlusBuilder, Image
from builders.walk import children, opened, whole
from dmgfs.errors import DmgError
from dmgfs.hfsplus.volume import HfsPlusVolume
from dmgfs.volume import Node

SECONDS = 2.0
"""Processor time for everything that is asked of one volume."""


def _sound() -> Image:
    """A small volume with some of everything, in trees of many small nodes."""
    builder = HfsPlusBuilder(
        catalog_node_size=1024, extents_node_size=512, attributes_node_size=512, records_per_node=3
    )
    for number in range(6):
        folder = builder.folder(ROOT, f"folder {number}")
        for inner in range(3):
            cnid = builder.file(folder, f"file {inner}", b"x" * 700 * inner, extent_blocks=1)
            builder.attribute(cnid, "inline", b"v" * 20)
            builder.attribute(cnid, "fork", b"w" * 600, as_fork=True, extent_blocks=1)
        builder.file_link(folder, "link", 4000)
        builder.folder_link(folder, "folder link", 5000)
        stored = b"fpmc\x03\0\0\0\x04" + bytes(7) + b"\xffdata"
        builder.file(folder, "packed", flags=0x20, attributes={"com.apple.decmpfs": stored})
    builder.file(ROOT, "shattered", b"s" * 512 * 40, resource=b"r" * 512 * 20, extent_blocks=1)
    builder.inode(4000, b"linked", 6)
    builder.file(builder.linked_folder(5000), "inside", b"in")
    return builder.build()


SOUND = _sound()

METADATA = [
    offset
    for tree in (SOUND.catalog, SOUND.extents, SOUND.attributes)
    if tree is not None
    for number in range(SOUND.nodes(tree))
    for offset in range(tree.node(number), tree.node(number) + tree.node_size)
] + list(range(1024, 1536)) * 20
"""Offsets worth damaging: header and trees."""


def _requests(volume: HfsPlusVolume, node: Node) -> list[Callable[[], object]]:
    """What a mount may ask about one object."""
    return [
        lambda: volume.node(node.cnid),
        lambda: volume.find(node.parent, node.name),
        lambda: whole(volume.data(node), 4096) if node.data_size < 1 << 20 else None,
        lambda: volume.data(node).read(0, 1),
        lambda: volume.resource(node).read(0, min(node.resource_size, 1)),
        lambda: [value.size for value in volume.attributes(node).values()],
    ]


def read_all(data: bytes | bytearray) -> None:
    """Everything in a volume, each request failing for itself with DmgError; anything else passes through."""
    start = time.process_time()
    try:
        volume = opened(data)
    except DmgError:
        return
    folders, seen = [ROOT], 0
    while folders and seen < 300:
        try:
            nodes = children(volume, folders.pop(), 50)
        except DmgError:
            continue
        for node in nodes[:100]:
            seen += 1
            if node.mode & 0o170000 == 0o040000 and node.broken is None:
                folders.append(node.cnid)
            for request in _requests(volume, node):
                try:
                    request()
                except DmgError:
                    pass
    assert time.process_time() - start < SECONDS
