"""Whether the pages of a shadow file still hold what was written."""

import errno
import zlib
from collections.abc import Sequence

from overlay.disk import Disk
from overlay.history import History
from overlay.pages import PAGE, is_stored
from overlay.vfs import Buffer


def require_written(data: Buffer, slot: int, sums: Sequence[int], path: str) -> Buffer:
    """`data`, which the file has from `slot` on; OSError(EIO) if a page of it is not what was written."""
    view = memoryview(data)
    for at in range(0, len(view), PAGE):
        if zlib.crc32(view[at : at + PAGE]) != sums[slot + at // PAGE]:
            where = f"the page at {slot * PAGE + at:#x} does not match its checksum"
            raise OSError(errno.EIO, f"{where}: the shadow file is damaged; `dmgfs shadow check` says how much", path)
    return data


def wrong_pages(disk: Disk, sums: Sequence[int], history: History) -> list[str]:
    """Reads every page that the tree or a snapshot has, once; one sentence per inode of which some do not fit `sums`."""
    problems: list[str] = []
    names = {snapshot.moment: name for name, snapshot in history.snapshots.items()}
    seen = bytearray(len(sums))
    for moment, tree in ((None, history.tree), *history.frozen.items()):
        of = f" of snapshot {names[moment]!r}" if moment in names else ""
        for ino in sorted(tree.nodes):
            file = tree.file(ino)
            bad = 0
            for run in file.pages.walk() if file is not None and file.pages is not None else ():
                for slot in range(run.slot, run.slot + run.length) if is_stored(run.slot) else ():
                    if not seen[slot]:
                        seen[slot] = 1
                        bad += zlib.crc32(disk.read(slot * PAGE, PAGE)) != sums[slot]
            if bad:
                problems.append(f"inode {ino}{of}: {bad} pages do not match their checksums")
    return problems
