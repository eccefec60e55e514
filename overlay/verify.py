"""Whether the pages of a shadow file still hold what was written."""

import zlib
from collections.abc import Sequence

from overlay.disk import Disk
from overlay.history import History
from overlay.pages import PAGE, is_stored


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
