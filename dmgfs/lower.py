"""A volume as Linux sees it: the Lower of the overlay. Here Macintosh names become bytes, owners and dates become stat
fields, Finder information becomes extended attributes. The names are in `dmgfs.names`, what can be chosen is a `View`.

Rules that hold here:
- an inode number is the catalog's number (CNID), for hard links that of the file they lead to;
- every method is a pure function of its arguments and may raise CorruptImage for the one object it was asked for, and Cold;
- what could not exist on Linux is shown as something that can, or as an error, and never hides its neighbours.
"""

import errno
import os
import stat
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage
from dmgfs.flags import FLAGS, flag_names
from dmgfs.names import Names
from dmgfs.source import ByteSource
from dmgfs.volume import ROOT_FOLDER, Node, Volume
from overlay.vfs import FIRST_NEW_INODE, Attr, Content, Entry, Listing, Usage

NAME_MAX = 3 * 255 + 16
"""255 UTF-16 units are at most 765 bytes of UTF-8; a name that had to be changed carries its number besides."""

UNKNOWN_OWNER = 99
"""HFS+'s "whoever looks at it"."""

LINUX_DRIVER = "H+Lx"
"""What the Linux driver writes as the implementation that last mounted a volume."""

LISTINGS_BYTES = 24 << 20
"""For listings as they were shown: whoever walks a tree twice, or has its parts listed one after the other, gets them again
without a look at the volume. About 40,000 entries."""

TARGETS_BYTES = 1 << 20
"""For the targets of symbolic links: each would cost the decoding of a chunk again."""

_ENTRY_BYTES = 560
"""Entry, name, Attr and its numbers (measured)."""

LINK_TARGET_MAX = 4095
XATTR_NAME_MAX = 255
XATTR_VALUE_MAX = 64 << 10
XATTR_LIST_MAX = 64 << 10
FINDER_INFO = "com.apple.FinderInfo"
RESOURCE_FORK = "com.apple.ResourceFork"
PRIVATE_PREFIX = "com.apple.system."
LINUX_NAMESPACES = ("user.", "trusted.", "security.")
"""A name on disk that begins like this was written by Linux and is shown as it is."""

FLAGS_ATTRIBUTE = b"user.dmgfs.flags"
CREATED_ATTRIBUTE = b"user.dmgfs.created"
"""Made here, and not listed, so that copies do not carry them: the BSD flags by their names in chflags(1), "-" for none;
the date of creation in seconds since 1970. Neither has a place in Linux's stat."""

NANOSECONDS = 10**9
LARGEST_SIZE = (1 << 63) - 1
S_IFMT = 0o170000


def device_number(special: int, last_mounted_by: str) -> int:
    """st_rdev of a device node: Darwin has 8 bits of major number and 24 of minor, the Linux driver stores Linux's own
    12 and 20. Nothing in a record tells them apart; the Linux driver, too, reads all nodes its own way."""
    bits = 20 if last_mounted_by == LINUX_DRIVER else 24
    return os.makedev(special >> bits, special & (1 << bits) - 1)


@dataclass(frozen=True, slots=True)
class View:
    """How a volume is shown.

    names: composed ("nfc", what people type) or as stored ("nfd"). owners: "image" as recorded, "mounter" all objects
    belong to `uid` and `gid`. uid, gid, umask: of objects that carry no permissions. xattrs: "user" puts "user." before
    the names that do not begin with a namespace of Linux, "raw" shows all as they are, "none" hides them.
    """

    names: Literal["nfc", "nfd"] = "nfc"
    owners: Literal["image", "mounter"] = "image"
    uid: int = 0
    gid: int = 0
    umask: int = 0o022
    xattrs: Literal["user", "raw", "none"] = "user"


def _weight(listing: Listing) -> int:
    return 400 + _ENTRY_BYTES * len(listing.entries)


class VolumeLower:
    """`volume` through `view`. opened: is told every file whose contents somebody opens, and every
    symbolic link that somebody reads."""

    name_max = NAME_MAX
    end_ino = FIRST_NEW_INODE

    def __init__(self, volume: Volume, view: View | None = None) -> None:
        self.opened: Callable[[int], None] | None = None
        self._volume = volume
        self._view = view or View()
        self._names = Names(volume, compose=self._view.names == "nfc")
        self._block_size = volume.info.block_size
        self._owners_of_image = self._view.owners == "image"
        self._listings: ChunkCache[Listing] = ChunkCache(LISTINGS_BYTES, _weight)
        self._targets: ChunkCache[bytes] = ChunkCache(TARGETS_BYTES, lambda target: len(target) + 150)

    @property
    def root(self) -> int:
        return ROOT_FOLDER

    def fold(self, name: bytes) -> bytes:
        return self._names.fold(name)

    def only_spelling(self, name: bytes) -> bool:
        """Whether no other bytes could name the same object: then what is known about this name stays known."""
        return self._names.only_spelling(name)

    # -- objects -------------------------------------------------------------------------------------------------------

    def getattr(self, ino: int) -> Attr:
        return self._attr(self._sound(ino))

    def parent(self, ino: int) -> int:
        return ROOT_FOLDER if ino == ROOT_FOLDER else self._volume.node(ino).parent

    def place(self, ino: int) -> tuple[int, bytes] | None:
        """From the object's own record; that of a hard link's target stands in a private folder, which nobody finds."""
        if ino == ROOT_FOLDER:
            return None
        node = self._volume.node(ino)
        name = self._names.show(node)
        found = self._names.find(node.parent, name)
        return (node.parent, name) if found is not None and found.cnid == ino and node.nlink <= 1 else None

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        node = self._names.find(parent, name)
        return None if node is None else self._entry(node)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        return self._listings.get_inline((ino, after, limit), lambda: self._listing(ino, after, limit))

    def _listing(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        page = self._volume.children(ino, after, limit)
        return Listing([self._entry(node) for node in page.nodes], page.next)

    def open(self, ino: int) -> Content:
        node = self._sound(ino)
        if not stat.S_ISREG(node.mode):
            raise OSError(errno.EINVAL, "only regular files have contents")
        if self.opened is not None:
            self.opened(ino)
        return self._volume.data(node)

    def resource(self, ino: int) -> Content:
        """The resource fork of a regular file; size 0 where there is none, or where it only carries compressed data."""
        node = self._sound(ino)
        if not stat.S_ISREG(node.mode):
            raise OSError(errno.EINVAL, "only regular files have forks")
        return self._volume.resource(node)

    def readlink(self, ino: int) -> bytes:
        return self._targets.get_inline(ino, lambda: self._target(ino))

    def _target(self, ino: int) -> bytes:
        if self.opened is not None:
            self.opened(ino)
        node = self._sound(ino)
        if not stat.S_ISLNK(node.mode):
            raise OSError(errno.EINVAL, "not a symbolic link")
        source = self._volume.data(node)
        if not 0 < source.size <= LINK_TARGET_MAX:
            raise self._corrupt(ino, f"a link target has 1 to {LINK_TARGET_MAX} bytes, this one {source.size}")
        target = bytes(source.read(0, source.size))
        if b"\0" in target:
            raise self._corrupt(ino, "the link target contains a NUL byte")
        return target

    def statfs(self) -> Usage:
        info = self._volume.info
        free = min(max(info.free_blocks, 0), info.total_blocks)
        return Usage(info.block_size, info.total_blocks, free, info.files + info.folders + 1, 0, NAME_MAX)

    # -- extended attributes -------------------------------------------------------------------------------------------

    def listxattr(self, ino: int) -> Sequence[bytes]:
        node = self._sound(ino)
        if self._view.xattrs == "none":
            return ()
        names = [FINDER_INFO] if _finder_info(node) else []
        if 0 < self._resource_size(node) <= XATTR_VALUE_MAX:
            names.append(RESOURCE_FORK)
        names += [name for name, value in self._volume.attributes(node).items() if value.size <= XATTR_VALUE_MAX]
        shown: dict[bytes, None] = {}
        room = XATTR_LIST_MAX
        for name in names:
            text = self._xattr_name(name)
            if text is not None and text not in shown and len(text) < room and self._may_have(node, text):
                shown[text] = None
                room -= len(text) + 1
        return list(shown)

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        """OSError(E2BIG) for a value that Linux cannot pass."""
        if self._view.xattrs == "none":
            return None
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        stored = self._stored_names(text)
        if not stored:
            return None  # no look at the volume
        node = self._sound(ino)
        if name in (FLAGS_ATTRIBUTE, CREATED_ATTRIBUTE):
            return _computed(node, name)
        if not self._may_have(node, name):
            return None
        for wanted in stored:
            value = self._value(node, wanted)
            if value is not None:
                return value
        return None

    def access_list(self, ino: int, name: bytes) -> bytes | None:
        return None

    def _value(self, node: Node, name: str) -> bytes | None:
        """Of the attribute with this name on disk."""
        if name.startswith(PRIVATE_PREFIX):
            return None
        if name == FINDER_INFO:
            return _finder_info(node)
        if name == RESOURCE_FORK:
            source: ByteSource | None = self._volume.resource(node) if self._resource_size(node) else None
        else:
            source = self._volume.attributes(node).get(name)
        if source is None:
            return None
        if source.size > XATTR_VALUE_MAX:
            raise OSError(errno.E2BIG, "the attribute is larger than the 64 KiB that Linux can pass")
        return bytes(source.read(0, source.size))

    def _may_have(self, node: Node, name: bytes) -> bool:
        """The kernel refuses user attributes on anything but files and directories without asking, so none are listed."""
        return not name.startswith(b"user.") or stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode)

    def _resource_size(self, node: Node) -> int:
        return 0 if node.compressed or not stat.S_ISREG(node.mode) else node.resource_size

    def _xattr_name(self, name: str) -> bytes | None:
        """The name on Linux, None for one that cannot be shown."""
        if name.startswith(PRIVATE_PREFIX) or "\0" in name or not name:
            return None
        as_it_is = self._view.xattrs == "raw" or name.startswith(LINUX_NAMESPACES)
        text = (name if as_it_is else f"user.{name}").encode("utf-8", "surrogatepass")
        return text if len(text) <= XATTR_NAME_MAX else None

    def _stored_names(self, name: str) -> tuple[str, ...]:
        """What `name` of Linux can be called on disk; what is called exactly so comes first."""
        if self._view.xattrs == "raw":
            return (name,)
        if name.startswith("user."):
            bare = name.removeprefix("user.")
            return (name,) if bare.startswith(LINUX_NAMESPACES) else (name, bare)
        return (name,) if name.startswith(LINUX_NAMESPACES) else ()

    # -- nodes -----------------------------------------------------------------------------------------------------------

    def _sound(self, ino: int) -> Node:
        node = self._volume.node(ino)
        if node.broken is not None:
            raise self._corrupt(ino, node.broken)
        return node

    def _corrupt(self, ino: int, why: str) -> CorruptImage:
        return CorruptImage(f"{self._volume.info.kind} volume", f"object {ino}", why)

    def _entry(self, node: Node) -> Entry:
        attr = None if node.broken is not None else self._attr(node)
        return Entry(self._names.show(node), node.cnid, node.mode & S_IFMT, attr)

    def _attr(self, node: Node) -> Attr:
        mode = node.mode
        kind = mode & S_IFMT
        created, modified, changed, accessed = node.created, node.modified, node.changed, node.accessed
        if modified is None:
            modified = created or 0
        if node.has_permissions and self._owners_of_image:
            uid = self._view.uid if node.uid == UNKNOWN_OWNER else node.uid
            gid = self._view.gid if node.gid == UNKNOWN_OWNER else node.gid
        else:
            uid, gid = self._view.uid, self._view.gid
        if not node.has_permissions:
            mode = kind | (0o777 if kind == stat.S_IFDIR else 0o666) & ~self._view.umask
        rdev = size = blocks = 0
        nlink = max(node.nlink, 1)
        if kind == stat.S_IFREG or kind == stat.S_IFLNK:
            size = min(node.data_size, LARGEST_SIZE)
            blocks = self._blocks(node, size)
        elif kind == stat.S_IFDIR:
            nlink = 1 if node.folders is None else 2 + node.folders
            size = (node.valence + 2) * 34  # what macOS shows: it says whether a directory is large, nothing more
        elif kind == stat.S_IFCHR or kind == stat.S_IFBLK:
            rdev = device_number(node.special, self._volume.info.last_mounted_by)
        modified_ns = modified * NANOSECONDS  # most dates are this one: then they are one object in memory, too
        return Attr(
            node.cnid,
            mode,
            nlink,
            uid,
            gid,
            rdev,
            size,
            blocks,
            modified_ns if accessed is None or accessed == modified else accessed * NANOSECONDS,
            modified_ns,
            modified_ns if changed is None or changed == modified else changed * NANOSECONDS,
            modified_ns if created is None or created == modified else created * NANOSECONDS,
        )

    def _blocks(self, node: Node, size: int) -> int:
        """In 512-byte units. A compressed file shows what its contents take: with less, tar and cp would take it for a
        file full of holes, and one whose data is in the catalog for a single hole."""
        return -(-size // 512) if node.compressed else node.data_blocks * self._block_size // 512


def _computed(node: Node, name: bytes) -> bytes | None:
    if name == FLAGS_ATTRIBUTE:
        return ",".join(flag_names(node.flags, FLAGS)).encode() or b"-"
    return None if node.created is None else b"%d" % node.created


def _finder_info(node: Node) -> bytes | None:
    """com.apple.FinderInfo as macOS returns it: without document id, date added and write generation, for links without
    type and creator; None if nothing is left."""
    info = bytearray(node.finder_info[:32].ljust(32, b"\0"))
    info[16:24] = bytes(8)
    info[28:32] = bytes(4)
    if stat.S_ISLNK(node.mode):
        info[0:8] = bytes(8)
    return bytes(info) if any(info) else None
