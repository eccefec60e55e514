"""What differs between two trees, object by object: names, types, modes, owners, dates, attributes, contents.

Rules that hold here:
- folders are walked side by side; of a folder that one side lacks, everything below is named if it is new, and the folder
  alone if it is gone;
- contents are compared byte by byte, unless the caller trusts sizes and dates;
- objects are compared by name, not by number: the two may come from anywhere.
"""

import stat
from collections.abc import Iterator
from typing import NamedTuple

from overlay.vfs import Attr, Entry, Lower

_STEP = 1 << 20
_BATCH = 512


class Change(NamedTuple):
    """kind: "added", "deleted", "changed" (contents, link target, device number, type), "metadata". what: which parts."""

    kind: str
    path: bytes
    type: int
    what: tuple[str, ...]


def differences(old: Lower, new: Lower, *, quick: bool = False) -> Iterator[Change]:
    """In the order of the paths, a folder before what is in it. quick: files of one size and date have one content. Raises
    what reading either raises."""
    parts = _parts(old, new, old.root, new.root, old.getattr(old.root), new.getattr(new.root), quick)
    if parts:
        yield Change("metadata", b"", stat.S_IFDIR, parts)
    pending = [(b"", old.root, new.root)]
    while pending:
        path, one, other = pending.pop()
        below: list[tuple[bytes, int, int]] = []
        left, right = _entries(old, one), _entries(new, other)
        for name in sorted(left.keys() | right.keys()):
            at = path + b"/" + name if path else name
            before, after = left.get(name), right.get(name)
            if after is None:
                assert before is not None
                yield Change("deleted", at, before.type, ())
            elif before is None:
                yield from _added(new, after, at)
            elif before.type != after.type:
                yield Change("changed", at, after.type, ("type",))
                if after.type == stat.S_IFDIR:
                    yield from _below(new, after.ino, at)
            else:
                attrs = before.attr or old.getattr(before.ino), after.attr or new.getattr(after.ino)
                parts = _parts(old, new, before.ino, after.ino, *attrs, quick)
                if parts:
                    changed = {"content", "target", "device"} & set(parts)
                    yield Change("changed" if changed else "metadata", at, after.type, parts)
                if after.type == stat.S_IFDIR:
                    below.append((at, before.ino, after.ino))
        pending += reversed(below)


def _entries(lower: Lower, ino: int) -> dict[bytes, Entry]:
    found: dict[bytes, Entry] = {}
    after = None
    while True:
        page = lower.readdir(ino, after, _BATCH)
        found.update((entry.name, entry) for entry in page.entries)
        after = page.next
        if after is None:
            return found


def _added(lower: Lower, entry: Entry, path: bytes) -> Iterator[Change]:
    yield Change("added", path, entry.type, ())
    if entry.type == stat.S_IFDIR:
        yield from _below(lower, entry.ino, path)


def _below(lower: Lower, ino: int, path: bytes) -> Iterator[Change]:
    """All that is in a folder which the other side does not have."""
    pending = [(ino, path)]
    while pending:
        ino, path = pending.pop()
        folders = []
        for name, entry in sorted(_entries(lower, ino).items()):
            at = path + b"/" + name
            yield Change("added", at, entry.type, ())
            if entry.type == stat.S_IFDIR:
                folders.append((entry.ino, at))
        pending += reversed(folders)


def _parts(old: Lower, new: Lower, one: int, other: int, before: Attr, after: Attr, quick: bool) -> tuple[str, ...]:
    """In what two objects of one type differ."""
    parts: list[str] = []
    kind = stat.S_IFMT(before.mode)
    if kind == stat.S_IFREG:
        same = before.size == after.size and (
            (quick and before.mtime_ns == after.mtime_ns) or _same(old, new, one, other)
        )
        if not same:
            parts.append("content")
    elif kind == stat.S_IFLNK and old.readlink(one) != new.readlink(other):
        parts.append("target")
    elif kind in (stat.S_IFCHR, stat.S_IFBLK) and before.rdev != after.rdev:
        parts.append("device")
    if before.mode != after.mode:
        parts.append("mode")
    if (before.uid, before.gid) != (after.uid, after.gid):
        parts.append("owner")
    if before.mtime_ns != after.mtime_ns and kind != stat.S_IFDIR:
        parts.append("times")
    if kind not in (stat.S_IFDIR,) and before.nlink != after.nlink:
        parts.append("links")
    if _attributes(old, one) != _attributes(new, other):
        parts.append("xattrs")
    return tuple(parts)


def _same(old: Lower, new: Lower, one: int, other: int) -> bool:
    left, right = old.open(one), new.open(other)
    if left.size != right.size:
        return False
    return all(
        left.read(at, min(_STEP, left.size - at)) == right.read(at, min(_STEP, left.size - at))
        for at in range(0, left.size, _STEP)
    )


def _attributes(lower: Lower, ino: int) -> dict[bytes, bytes | None]:
    return {name: lower.getxattr(ino, name) for name in lower.listxattr(ino)}
