"""Two directory trees, object by object. What must be equal: names, types, modes, owners, sizes, contents, link targets,
device numbers, `user.` attributes, which names are hard links of one inode, and times that nobody can have touched.

What may differ: inode numbers themselves, the size and (1 = not kept) the link count of directories.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from typing import NamedTuple


class Object(NamedTuple):
    """All that is compared of one object, in the order in which it is worth telling."""

    type: int
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int | None
    nlink: int | None
    target: bytes | None
    sha256: str | None
    xattrs: tuple[tuple[str, bytes], ...]


def digest(path: bytes) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def xattrs(path: bytes, without: Collection[str]) -> tuple[tuple[str, bytes], ...]:
    listed = os.listxattr(path, follow_symlinks=False)
    names = [name for name in listed if name.startswith("user.") and name not in without]
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def describe(path: bytes, status: os.stat_result, without: Collection[str]) -> Object:
    kind = stat.S_IFMT(status.st_mode)
    folder = kind == stat.S_IFDIR
    return Object(
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        rdev=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        size=None if folder else status.st_size,
        nlink=None if folder else status.st_nlink,
        target=os.readlink(path) if kind == stat.S_IFLNK else None,
        sha256=digest(path) if kind == stat.S_IFREG else None,
        xattrs=() if kind == stat.S_IFLNK else xattrs(path, without),
    )


def paths(root: bytes, relative: bytes = b"") -> Iterator[bytes]:
    """Every path below root, parents first. Names sorted by bytes."""
    with os.scandir(os.path.join(root, relative)) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, folder in found:
        path = os.path.join(relative, name)
        yield path
        if folder:
            yield from paths(root, path)


def differences(
    left: bytes, right: bytes, untouched_before: float | None = None, without: Collection[str] = ()
) -> Iterator[str]:
    """One line per difference. untouched_before: a time; where either side's mtime is older, the other's must be the
    same (file times are whole seconds on HFS+). None: mtimes are not compared. without: attributes not compared."""
    names = [set(paths(left)), set(paths(right))]
    for path in sorted(names[0] ^ names[1]):
        yield f"{path!r} is only in {(left if path in names[0] else right)!r}"
    inodes: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for path in sorted((names[0] & names[1]) | {b""}):
        places = os.path.join(left, path), os.path.join(right, path)
        status = os.lstat(places[0]), os.lstat(places[1])
        one, other = describe(places[0], status[0], without), describe(places[1], status[1], without)
        for field in Object._fields:
            if getattr(one, field) != getattr(other, field):
                yield f"{path!r}: {field} is {getattr(one, field)!r} and {getattr(other, field)!r}"
        a, b = status[0].st_ino, status[1].st_ino
        if inodes[0].setdefault(a, b) != b or inodes[1].setdefault(b, a) != a:
            yield f"{path!r}: names the same inode as another path on one side only ({a}, {b})"
        if stat.S_ISDIR(status[0].st_mode):
            count = sum(
                stat.S_ISDIR(os.lstat(os.path.join(places[1], name)).st_mode) for name in os.listdir(places[1])
            )
            for place, its in zip(places, status, strict=True):
                if its.st_nlink not in (1, count + 2):
                    yield f"{place!r}: link count {its.st_nlink}, has {count} folders"
        times = int(status[0].st_mtime), int(status[1].st_mtime)
        if untouched_before is not None and min(times) < untouched_before and times[0] != times[1]:
            yield f"{path!r}: mtime is {times[0]} and {times[1]}"
