"""What the tests of HFS standard share: walking a volume through the `Volume` interface."""

import hashlib
import stat
from collections.abc import Callable, Iterator

import pytest

from dmgfs.hfs.volume import HfsVolume
from dmgfs.source import ByteSource
from dmgfs.volume import ROOT_FOLDER, Node

Walk = Callable[..., Iterator[tuple[str, Node]]]


def walk_volume(
    volume: HfsVolume, folder: int = ROOT_FOLDER, path: str = "", page: int = 3
) -> Iterator[tuple[str, Node]]:
    """(path, node) of everything below `folder`. A folder inside itself is not entered again."""
    stack = [(folder, path)]
    entered = {folder}
    while stack:
        number, path = stack.pop()
        after = None
        while True:
            part = volume.children(number, after, page)
            assert len(part.nodes) <= page
            for node in part.nodes:
                yield path + node.name, node
                if stat.S_ISDIR(node.mode) and node.cnid not in entered:
                    entered.add(node.cnid)
                    stack.append((node.cnid, path + node.name + "/"))
            after = part.next
            if after is None:
                break


def content(source: ByteSource) -> bytes:
    return bytes(source.read(0, source.size))


def manifest_rows(volume: HfsVolume) -> set[str]:
    """The volume as the corpus's manifests write it."""
    rows = set()
    for path, node in walk_volume(volume):
        if stat.S_ISDIR(node.mode):
            rows.add(f"d\t0\t-\t{path}")
            continue
        for kind, source, end in (("f", volume.data(node), ""), ("x", volume.resource(node), "\t[rsrc]")):
            if kind == "f" or source.size:
                digest = hashlib.sha256(content(source)).hexdigest()
                rows.add(f"{kind}\t{source.size}\t{digest}\t{path}{end}")
        rows.add(f"x\t8\t{node.finder_info[:8].hex()}\t{path}\t[type/creator]")
    return rows


@pytest.fixture(scope="session")
def walk() -> Walk:
    return walk_volume


@pytest.fixture(scope="session")
def rows() -> Callable[[HfsVolume], set[str]]:
    return manifest_rows
