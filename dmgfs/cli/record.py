"""One object as a record: what `ls --json` and `stat` say about it. Keys are fixed; times are seconds since 1970."""

import stat
from typing import Any

from dmgfs.cli.report import in_json
from dmgfs.cli.tree import Item, Tree
from dmgfs.flags import FINDER_FLAGS, FLAGS, flag_names
from dmgfs.forks import FIRST

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def type_name(mode: int) -> str:
    return TYPES.get(stat.S_IFMT(mode), "unknown")


def seconds(ns: int) -> int:
    return ns // 1_000_000_000


def brief(tree: Tree, item: Item) -> dict[str, Any]:
    """What `ls -l` shows. Raises CorruptImage if a link's target cannot be read."""
    attr = item.attr
    record: dict[str, Any] = {
        "path": in_json(item.path),
        "type": type_name(attr.mode),
        "inode": attr.ino,
        "mode": f"{stat.S_IMODE(attr.mode):04o}",
        "nlink": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size,
        "modified": seconds(attr.mtime_ns),
    }
    if stat.S_ISLNK(attr.mode):
        record["target"] = in_json(tree.lower.readlink(item.ino))
    if stat.S_ISCHR(attr.mode) or stat.S_ISBLK(attr.mode):
        record["device"] = attr.rdev
    return record


def full(tree: Tree, item: Item) -> dict[str, Any]:
    """Everything that `stat` shows: besides `brief`, what only a Macintosh volume knows."""
    record = brief(tree, item)
    record["blocks"] = item.attr.blocks
    if item.ino >= FIRST:
        return record  # a fork: the rest is its file's
    node = tree.volume.node(item.ino)
    finder = node.finder_info.ljust(32, b"\0")
    for key, date in (
        ("created", node.created),
        ("modified", node.modified),
        ("changed", node.changed),
        ("accessed", node.accessed),
        ("backed_up", node.backed_up),
    ):
        record[key] = date
    record["flags"] = flag_names(node.flags, FLAGS)
    record["finder_flags"] = flag_names(int.from_bytes(finder[8:10], "big") & 0xFC40, FINDER_FLAGS)
    if stat.S_ISREG(item.attr.mode):
        record["finder_type"] = finder[:4].decode("mac_roman") if any(finder[:4]) else ""
        record["finder_creator"] = finder[4:8].decode("mac_roman") if any(finder[4:8]) else ""
        record["compressed"] = node.compressed
        record["resource_size"] = tree.volume.resource(node).size
    record["text_encoding"] = node.text_encoding
    record["xattrs"] = [in_json(name) for name in tree.lower.listxattr(item.ino)]
    return record
