"""A RAM disk over a directory, kept as the directory was: owner, group, mode, access lists, attributes and flags.

    plain             a tmpfs where root asks Linux for it (no daemon), else a tree in memory served by FUSE
    --union=bsd       FUSE: what is in the directory shows through where the RAM disk has no such name (`overlay.union`)
    --union=overlay   FUSE: the directory is the lower of our overlay: copies on write, whiteouts

Rules that hold here:
- the directory is opened and read before anything is mounted on it;
- either the RAM disk stands with all that it is to have, or nothing is mounted;
- standard library only, as far as tmpfs goes; what serves is imported by whoever serves.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dmgfs.fuse import mountpoint
from dmgfs.fuse.scaffold import flags_of

if TYPE_CHECKING:
    from dmgfs.cache import ChunkCache
    from dmgfs.fuse.verbs import Spelled
    from dmgfs.remote import RemoteSource
    from overlay.vfs import Buffer

Union = Literal["none", "bsd", "overlay"]

SOURCE = mountpoint.RAM_DISK

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_KEPT_FLAGS = 0x20 | 0x40 | 0x80
"""Append only, no dump, no access time. Not immutable: a RAM disk is there to be changed."""

_INODE_SHARE = 1024
"""A tmpfs may have one object per so many bytes, or objects without bytes would take memory beyond its size."""
_FEWEST_INODES = 128

_ACCESS_LISTS = ("system.posix_acl_access", "system.posix_acl_default")


@dataclass(frozen=True, slots=True)
class Covered:
    """A directory as it was before it was covered. descriptor: of it (O_PATH). xattrs: by name. flags: of chattr."""

    path: str
    descriptor: int
    status: os.stat_result
    xattrs: dict[str, bytes]
    flags: int


def look_at(path: str) -> Covered:
    """The (resolved) directory, open. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    reading = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        xattrs = {name: os.getxattr(reading, name) for name in os.listxattr(reading)}
        return Covered(path, descriptor, os.fstat(reading), xattrs, _flags(reading) & _KEPT_FLAGS)
    finally:
        os.close(reading)


def _flags(descriptor: int) -> int:
    try:
        return int(struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))[0])
    except OSError:
        return 0  # a file system without them


def cover_with_tmpfs(covered: Covered, size: int, words: Collection[str]) -> list[str]:
    """Mounts a tmpfs of `size` bytes on the directory; what of the directory could not be kept, in words. Raises OSError
    with nothing mounted."""
    flags, labels = flags_of(words)
    status = covered.status
    inodes = max(_FEWEST_INODES, size // _INODE_SHARE)
    mode = stat.S_IMODE(status.st_mode)
    options = f"size={size},nr_inodes={inodes},mode={mode:o},uid={status.st_uid},gid={status.st_gid}{labels}"
    mountpoint.mount(SOURCE, covered.path, "tmpfs", flags, options)
    try:
        return _imitate(covered)
    except BaseException:
        mountpoint.unmount(covered.path, lazy=True)
        raise


def _imitate(covered: Covered) -> list[str]:
    lost: list[str] = []
    root = os.open(covered.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name, value in covered.xattrs.items():
            try:
                os.setxattr(root, name, value)
            except OSError as error:
                lost.append(f"attribute {name} ({error.strerror})")
        if covered.flags:
            try:
                fcntl.ioctl(root, _SET_FLAGS, struct.pack("l", covered.flags))
            except OSError as error:
                lost.append(f"flags {covered.flags:#x} ({error.strerror})")
        os.utime(root, ns=(covered.status.st_atime_ns, covered.status.st_mtime_ns))
    finally:
        os.close(root)
    return lost


@dataclass(frozen=True, slots=True)
class Disk:
    """What `dmgfs status` tells of a RAM disk."""

    path: str
    cache: "ChunkCache[Buffer]"
    remote_below: "RemoteSource | None" = None


def serve_ram_disk(
    covered: Covered, size: int, union: Union, words: Collection[str], ready: Callable[[], None]
) -> None:
    """Serves until it is unmounted. Raises MountFailed, OSError, MemoryError."""
    from dmgfs.cache import ChunkCache
    from dmgfs.covered import CoveredLower, attr_of
    from dmgfs.fuse.operations import DmgOperations
    from dmgfs.fuse.treeserve import serve_tree
    from dmgfs.fuse.unionoperations import UnionOperations
    from overlay.bare import ROOT, BareLower
    from overlay.overlay import Overlay
    from overlay.ram import RamStore
    from overlay.union import Union as UnionTree
    from overlay.vfs import run

    access_lists = any(name in covered.xattrs for name in _ACCESS_LISTS)
    xattrs = {os.fsencode(name): value for name, value in covered.xattrs.items() if name not in _ACCESS_LISTS}
    bare = BareLower(attr_of(ROOT, covered.status), xattrs)
    store = RamStore(size)
    operations: type[DmgOperations] = DmgOperations
    lower: Spelled = bare
    overlay: Overlay
    if union == "none":
        overlay = Overlay(bare, store)
    elif union == "overlay":
        lower = CoveredLower(covered.descriptor, narrow=True)
        overlay = Overlay(lower, store)
    else:
        overlay = UnionTree(bare, CoveredLower(covered.descriptor), store)
        operations = UnionOperations
    for name in _ACCESS_LISTS:
        if name in covered.xattrs:
            run(overlay.setxattr(ROOT, os.fsencode(name), covered.xattrs[name]))
    serve_tree(
        Disk(SOURCE, ChunkCache(0)),
        lower,
        overlay,
        covered.path,
        operations=operations,
        part={"none": "plain", "bsd": "union", "overlay": "overlay"}[union],
        base={},
        shadow="ram",
        writable=True,
        access_lists=access_lists,
        kernel_words={*words, "allow_other"} if os.geteuid() == 0 else words,
        ready=ready,
    )
