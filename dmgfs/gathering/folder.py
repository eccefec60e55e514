"""A folder of this machine as the source of a volume.

Rules that hold here:
- folders are walked parents first, the names of each in the order in which the volume keeps them: that is also the order of
  the contents, so whoever walks the volume reads it from front to back;
- nothing follows symbolic links, and no path is longer than the kernel takes: every folder is opened from one near to it;
- a file that is not what it was when it was found (another inode, size or date) is an error: an image of it would hold
  something that never was;
- holes are not read.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lru import LRU

from dmgfs.gathering.translation import (
    BAD_DEVICE,
    BAD_TARGET,
    Attributes,
    Left,
    device,
    disk_name,
    good_date,
    good_target,
    too_deep,
    with_link_type,
)
from dmgfs.hfsplus_writer.inventory import Inventory, Item
from dmgfs.source import Buffer
from dmgfs.volume import ROOT_FOLDER

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST_PATH = 3000
_SOURCE = struct.Struct("<QQq")  # number of the folder, inode, date of modification in nanoseconds
_HOLES = 1 << 16
"""Files from this size on are asked for holes."""

_FOLDERS_KEPT = 512


class FolderOrigin:
    """Gathers the tree at `root` into `inventory`, and reads its contents afterwards. owner: whom everything belongs to,
    None: as recorded. latest: no date is later (SOURCE_DATE_EPOCH). one_file_system: what is mounted in
    the tree is left empty. left: what had no place on the volume. advance: is told how many objects more were found."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        inventory: Inventory,
        *,
        owner: tuple[int, int] | None = None,
        latest: int | None = None,
        one_file_system: bool = False,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.path = os.fsencode(root)
        self.left = Left()
        self._inventory = inventory
        self._owner = owner
        self._latest = latest
        self._advance = advance
        self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._only = os.fstat(self._root).st_dev if one_file_system else None
        self._paths: LRU[int, bytes] = LRU(_FOLDERS_KEPT)

    def close(self) -> None:
        os.close(self._root)

    # -- gathering ---------------------------------------------------------------------------------------------------

    def gather(self, volume_name: bytes) -> None:
        """Raises OSError, naming the object that cannot be read."""
        status = os.fstat(self._root)
        attributes = self._attributes(f"/proc/self/fd/{self._root}/.".encode(), status, b"")
        self._inventory.root(volume_name, self._item(0, b"", status, attributes, None, 0))
        self._keep_attributes(ROOT_FOLDER, attributes)
        self._paths[ROOT_FOLDER] = b""
        pending = [(ROOT_FOLDER, b"")]
        while pending:
            number, path = pending.pop()
            pending += reversed(self._gather_folder(number, path))

    def _gather_folder(self, number: int, path: bytes) -> list[tuple[int, bytes]]:
        """Adds what is in the folder; returns the folders among it."""
        below: list[tuple[int, bytes]] = []
        with self._named(path):
            folder = self._open(path)
        try:
            for stored, name in self._names(folder, path):
                at = path + b"/" + name if path else name
                with self._named(at):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode) and too_deep(at.count(b"/") + 1, _shown(at), self._inventory):
                        continue
                    added = self._gather_one(number, stored, name, folder, status, at)
                if stat.S_ISDIR(status.st_mode) and self._only in (None, status.st_dev):
                    below.append((added, at))
        finally:
            os.close(folder)
        return below

    def _names(self, folder: int, path: bytes) -> list[tuple[bytes, bytes]]:
        """(as stored, as found) in the order of the volume."""
        found: list[tuple[bytes, bytes]] = []
        with self._named(path):
            names = os.listdir(f"/proc/self/fd/{folder}".encode())
        for name in names:
            stored = disk_name(name, self.left)
            if isinstance(stored, str):
                self._inventory.problem(stored, _shown(path + b"/" + name))
            else:
                found.append((stored, name))
        folding = self._inventory.folding
        found.sort(key=lambda pair: (folding(pair[0]), pair[1]))
        self._advance(len(found))
        return found

    def _gather_one(
        self, parent: int, stored: bytes, name: bytes, folder: int, status: os.stat_result, at: bytes
    ) -> int:
        mode = status.st_mode
        linked = status.st_nlink > 1 and not stat.S_ISDIR(mode)
        if linked and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            self.left.count("hard links of devices, which become devices of their own")
            linked = False
        if linked:
            first = self._inventory.seen(status.st_dev, status.st_ino)
            if first:
                return self._inventory.add_link(parent, stored, first)
        attributes = self._attributes(b"/proc/self/fd/%d/%s" % (folder, name), status, at)
        source: bytes | None = None
        special = 0
        if stat.S_ISLNK(mode):
            source = os.readlink(name, dir_fd=folder)
            if not good_target(source):
                self._inventory.problem(BAD_TARGET, _shown(at))
        elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            source = _SOURCE.pack(parent, status.st_ino, status.st_mtime_ns) + name
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            number = device(status.st_rdev)
            if number is None:
                self._inventory.problem(BAD_DEVICE, _shown(at))
            special = number or 0
        cnid = self._inventory.add(self._item(parent, stored, status, attributes, source, special))
        self._keep_attributes(cnid, attributes)
        if linked:
            self._inventory.remember(status.st_dev, status.st_ino, cnid)
        return cnid

    def _item(
        self,
        parent: int,
        stored: bytes,
        status: os.stat_result,
        attributes: Attributes,
        source: bytes | None,
        special: int,
    ) -> Item:
        mode = status.st_mode
        modified = good_date(status.st_mtime_ns // 1_000_000_000, self._latest, self.left)
        size = 0
        if stat.S_ISREG(mode):
            size = status.st_size
        elif stat.S_ISLNK(mode) and source is not None:
            size = len(source)
        uid, gid = self._owner or (status.st_uid, status.st_gid)
        finder = attributes.finder
        if stat.S_ISLNK(mode):
            finder = with_link_type(finder)
        return Item(parent, stored, mode, uid, gid, modified, size, source, special, finder=finder)

    def _attributes(self, path: bytes, status: os.stat_result, at: bytes) -> Attributes:
        """path: leads to the object by way of a descriptor of its folder."""
        found = Attributes()
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENODATA):
                return found
            raise
        for name in sorted(map(os.fsencode, names)):
            try:
                value = os.getxattr(path, name, follow_symlinks=False)
            except OSError as error:
                if error.errno == errno.ENODATA:  # taken away meanwhile, or not for us to see
                    continue
                raise
            found.take(name, value, status.st_mode, _shown(at), self._inventory, self.left)
        return found

    def _keep_attributes(self, number: int, attributes: Attributes) -> None:
        for name, value in attributes.named:
            self._inventory.attribute(number, name, value)

    # -- contents ----------------------------------------------------------------------------------------------------

    def read(self, source: object, offset: int, length: int) -> Buffer:
        assert isinstance(source, bytes)
        parent, inode, modified = _SOURCE.unpack_from(source)
        name = source[_SOURCE.size :]
        path = self._path(parent)
        at = path + b"/" + name if path else name
        with self._named(at):
            fd = self._open(at, _FILE)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.ESTALE, "it is no file any more")
                data = _read(fd, offset, length, status)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            if (status.st_ino, status.st_mtime_ns) != (inode, modified) or after.st_mtime_ns != modified:
                raise OSError(errno.ESTALE, "it changed while the image was made; take a tree that stands still")
        return data

    def _path(self, number: int) -> bytes:
        """Of a folder, from the root of the tree."""
        with self._inventory.lock:
            known = self._paths.get(number)
            if known is not None:
                return known
            names: list[bytes] = []
            at = number
            while at != ROOT_FOLDER:
                (source,) = self._inventory.database.execute(
                    "SELECT source FROM object WHERE cnid=?", (at,)
                ).fetchone()
                (at, _, _), name = _SOURCE.unpack_from(source), source[_SOURCE.size :]
                names.append(name)
            path = b"/".join(reversed(names))
            self._paths[number] = path
            return path

    def _open(self, path: bytes, flags: int = _FOLDER) -> int:
        """A descriptor of what is at `path` below the root."""
        here = self._root
        while len(path) > _LONGEST_PATH:
            cut = path.rindex(b"/", 0, _LONGEST_PATH)
            there = os.open(path[:cut], _FOLDER, dir_fd=here)
            if here != self._root:
                os.close(here)
            here, path = there, path[cut + 1 :]
        try:
            return os.open(path or b".", flags, dir_fd=here)
        finally:
            if here != self._root:
                os.close(here)

    @contextmanager
    def _named(self, path: bytes) -> Iterator[None]:
        """An OSError names the object as the user would."""
        try:
            yield
        except OSError as error:
            text = error.strerror or os.strerror(error.errno or errno.EIO)
            raise OSError(error.errno, text, os.fsdecode(os.path.join(self.path, path))) from error


def _shown(path: bytes) -> str:
    return os.fsdecode(path if path.startswith(b"/") else b"/" + path)


def _read(fd: int, offset: int, length: int, status: os.stat_result) -> bytes:
    """Exactly so much; holes come as zeros without being read."""
    if status.st_size >= _HOLES and status.st_blocks * 512 < status.st_size and _in_hole(fd, offset, length):
        return bytes(length)
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.ESTALE, "it became shorter while the image was made")
        data += more
    return data


def _in_hole(fd: int, offset: int, length: int) -> bool:
    """Whether all of it is a hole. Not every file system says."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO
