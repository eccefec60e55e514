"""The bytes of a change into slots of a shadow file: always free ones, near the page before if that can be.

Rule: of a page that is written in part the rest must be what was written before (EIO), or its new checksum would hide
damage."""

import zlib

from overlay.change import Change, Fill, Patch, Place
from overlay.disk import Disk
from overlay.pages import HOLE, PAGE, PageMap, Run, is_stored
from overlay.records import Placed
from overlay.slots import Extent
from overlay.space import Space
from overlay.tree import Tree
from overlay.verify import require_written

_EMPTY = PageMap()


def pages_of(change: Change) -> int:
    """How many slots its bytes need."""
    return sum(
        item.length if isinstance(item, Fill) else 1 for item in change.items if isinstance(item, (Fill, Patch))
    )


def write_pages(disk: Disk, space: Space, tree: Tree, change: Change, taken: list[Extent]) -> list[Placed]:
    """Writes what `change` fills or patches. So many slots must be free. taken: the slots used are added, also if this
    raises."""
    placed: list[Placed] = []
    for item in change.items:
        if not isinstance(item, (Fill, Patch)):
            continue
        file = tree.file(item.ino)
        pages = _EMPTY if file is None or file.pages is None else file.pages
        near = pages[item.page - 1] if item.page else HOLE
        near = near + 1 if is_stored(near) else 0
        if isinstance(item, Fill):
            view = memoryview(item.data)
        else:
            slot = pages[item.page]
            page = bytearray(require_written(disk.read(slot * PAGE, PAGE), slot, space.sums, disk.path))
            page[item.start : item.start + len(item.data)] = item.data
            view = memoryview(page)
        number = item.page
        for extent in space.take(len(view) // PAGE, near):
            taken.append(extent)
            part, view = view[: extent.length * PAGE], view[extent.length * PAGE :]
            disk.write(extent.slot * PAGE, [part])
            sums = [zlib.crc32(part[at : at + PAGE]) for at in range(0, len(part), PAGE)]
            placed.append(Placed(Place(item.ino, Run(number, extent.slot, extent.length)), sums, False))
            number += extent.length
    return placed
