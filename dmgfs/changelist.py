"""What differs from the image, as records of JSON: one per changed name, as the daemon sends and `--json` shows it."""

import json
import stat
from collections.abc import Callable, Iterator
from typing import Any

from overlay.diff import differences
from overlay.overlay import Overlay
from overlay.vfs import FIRST_NEW_INODE, LAYER_INODES

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
"""What types of objects are called."""


def records(view: Overlay) -> Iterator[dict[str, Any]]:
    """Of an overlay that does not change meanwhile. Bytes of names that are no UTF-8 are lone surrogates. Where read-only
    shadows belong to what it is compared with, each record says how many."""
    layers = (view.lower.end_ino - FIRST_NEW_INODE) // LAYER_INODES
    for line in differences(view.changes()):
        record: dict[str, Any] = {
            "change": line.kind,
            "path": line.path.decode("utf-8", "surrogateescape"),
            "type": KINDS.get(line.type, "object"),
            "inode": line.ino,
        }
        if line.source is not None:
            record["source"] = line.source.decode("utf-8", "surrogateescape")
        if line.what:
            record["what"] = list(line.what)
        if layers:
            record["layers"] = layers
        yield record


def write_records(view: Overlay, put: Callable[[bytes], object]) -> int:
    """One JSON object per line; how many."""
    count = 0
    for record in records(view):
        put(json.dumps(record).encode() + b"\n")
        count += 1
    return count
