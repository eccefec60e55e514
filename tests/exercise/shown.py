"""What a folder of Linux shows of a volume, a mount or what was extracted, against the manifest of independent readers.

Manifests are taken literally but for what they cannot know: private metadata items and a compressed file's own attributes
do not show, names may be composed, and some hard links were beyond the reader that wrote the manifest.
"""

import hashlib
import os
import stat
from pathlib import Path

from builders.manifest import Row, decomposed, is_private

from exercise.trees import digest, paths

LEFT_OUT = ("Desktop", "Desktop DB", "Desktop DF")
"""The Finder's own files, which the reference reader of HFS standard leaves out."""

XATTR_LIMIT = 64 << 10


def disagreements(root: Path, rows: list[Row], room: int = XATTR_LIMIT) -> list[str]:
    """One line per difference between what stands below `root` and the manifest. room: bytes of attributes that an object
    there can have."""
    found = []
    expected = {row.path: row for row in rows if row.type != "x" and not is_private(row.path)}
    hidden = {row.sha256 for row in rows if row.type == "f" and is_private(row.path)}
    actual = {
        decomposed(os.fsdecode(path)): os.path.join(os.fsencode(root), path) for path in paths(os.fsencode(root))
    }
    found += [f"{path!a} is missing" for path in expected.keys() - actual.keys()]
    found += [f"{path!a} is not in the manifest" for path in actual.keys() - expected.keys() - set(LEFT_OUT)]
    for path in expected.keys() & actual.keys():
        found += [f"{path!a}: {what}" for what in compare(actual[path], expected[path], hidden)]
    for row in rows:
        if row.type == "x" and row.path in actual and (row.size <= room or row.size > XATTR_LIMIT):
            found += [f"{row.path!a}: {what}" for what in compare_attribute(actual[row.path], row)]
    return found


def compare(path: bytes, row: Row, hidden: set[str]) -> list[str]:
    status = os.lstat(path)
    kinds = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "another type")
    if kind != row.type:
        return [f"type is {kind}, must be {row.type}"]
    if kind == "d":
        return []
    if kind == "l":
        found = hashlib.sha256(os.readlink(path)).hexdigest()
        return [] if found == row.sha256 else [f"target is {os.readlink(path)!r}, must have sha256 {row.sha256}"]
    found = digest(path)
    if row.sha256.startswith("ERR"):
        # The reference reader did not follow this hard link: it must be one of the inodes of the private folder.
        return (
            [] if found in hidden and status.st_nlink > 1 else ["is no hard link to an inode of the private folder"]
        )
    if status.st_size != row.size:
        return [f"size is {status.st_size}, must be {row.size}"]
    return [] if found == row.sha256 else [f"sha256 is {found}, must be {row.sha256}"]


def compare_attribute(path: bytes, row: Row) -> list[str]:
    if row.attribute == "com.apple.decmpfs":
        hidden = "user.com.apple.decmpfs" not in os.listxattr(path)
        return [] if hidden else ["com.apple.decmpfs of a compressed file shows"]
    if row.attribute == "[type/creator]":
        shown = "user.com.apple.FinderInfo" in os.listxattr(path)
        found = os.getxattr(path, "user.com.apple.FinderInfo")[:8].hex() if shown else "00" * 8
        return [] if found == row.sha256 else [f"type and creator are {found}, must be {row.sha256}"]
    if os.path.islink(path):
        return []  # Linux does not ask a FUSE file system for attributes of symbolic links
    name = "com.apple.ResourceFork" if row.attribute == "[rsrc]" else row.attribute
    if not name.startswith(("user.", "trusted.", "security.")):  # those come from Linux and stay what they were
        name = "user." + name
    if row.size > XATTR_LIMIT:
        return [f"{name} shows and cannot be read"] if name in os.listxattr(path) else []
    try:
        value = os.getxattr(path, name)
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    same = len(value) == row.size and hashlib.sha256(value).hexdigest() == row.sha256
    return [] if same else [f"{name} has {len(value)} bytes, must have {row.size} with sha256 {row.sha256}"]
