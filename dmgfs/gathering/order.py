"""Which files of a new volume come first: those that a start opened, in that order.

Rules that hold here:
- an order is good for nothing but speed: names that the new volume does not have are counted, and no error;
- a playlist knows files by their numbers in its own image, so that image is asked for their names. Of a hard link any name
  will do.
"""

import stat
from collections.abc import Iterable, Iterator

from dmgfs.errors import CorruptImage
from dmgfs.gathering.translation import Left, disk_name
from dmgfs.hfsplus.unicode import encode
from dmgfs.hfsplus_writer.inventory import Inventory
from dmgfs.volume import ROOT_FOLDER, Volume

Path = tuple[bytes, ...]
"""Names as a volume stores them, from the root on."""

_MOST_LEVELS = 4096
_PAGE = 512


def place_first(inventory: Inventory, paths: Iterable[Path]) -> tuple[int, int]:
    """Has the contents of these files laid out before all others. inventory: everything was added, nothing settled. Returns
    how many were found, and how many not."""
    found = missing = 0
    for path in paths:
        number, known = ROOT_FOLDER, None
        for name in path:
            known = inventory.child(number, name)
            if known is None:
                break
            number = known.link or known.number
        if known is None:
            missing += 1
        else:
            found += 1
            inventory.place_first(number)
    return found, missing


def named(lines: Iterable[bytes]) -> Iterator[Path]:
    """A path a line, as Linux names it, from the root of the volume on. Names that HFS+ cannot hold lead nowhere."""
    for line in lines:
        names = [disk_name(name, Left()) for name in line.rstrip(b"\n").split(b"/") if name not in (b"", b".")]
        if names:
            yield tuple(name if isinstance(name, bytes) else b"" for name in names)


def by_number(volume: Volume, numbers: Iterable[int]) -> list[Path]:
    """The paths of files of an image, in the same order; () for those that cannot be found."""
    wanted = list(numbers)
    places = {number: _upwards(volume, number) for number in wanted}
    linked = {number for number, path in places.items() if path is None}
    if linked:
        places |= _downwards(volume, linked)
    return [places[number] or () for number in wanted]


def _upwards(volume: Volume, number: int) -> Path | None:
    """None for what has several names: its own record stands where nobody finds it."""
    names: list[bytes] = []
    while number != ROOT_FOLDER:
        try:
            node = volume.node(number)
        except CorruptImage:
            return ()
        if node.nlink > 1 and not names:
            return None
        names.append(encode(node.name))
        number = node.parent
        if len(names) > _MOST_LEVELS:
            return ()
    return tuple(reversed(names))


def _downwards(volume: Volume, wanted: set[int]) -> dict[int, Path]:
    """A name of each, by walking the whole volume, or as much of it as it takes."""
    found: dict[int, Path] = {}
    seen = {ROOT_FOLDER}
    pending: list[tuple[int, Path]] = [(ROOT_FOLDER, ())]
    while pending and len(found) < len(wanted):
        folder, path = pending.pop()
        after = None
        while True:
            page = volume.children(folder, after, _PAGE)
            for node in page.nodes:
                here = (*path, encode(node.name))
                if node.cnid in wanted:
                    found.setdefault(node.cnid, here)
                elif stat.S_ISDIR(node.mode) and node.cnid not in seen:
                    seen.add(node.cnid)
                    pending.append((node.cnid, here))
            after = page.next
            if after is None:
                break
    return found
