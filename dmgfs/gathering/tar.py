"""A tar archive as the source of a volume: a file, or a stream that comes once, compressed or not.

Rules that hold here:
- what can be read again stays where it is, the contents of the rest wait in a temporary file; a member's contents are never
  in memory;
- as with tar itself, a later member of the same name replaces an earlier one; a folder that no member speaks of is made.
"""

import io
import math
import os
import stat
import tarfile
from collections.abc import Callable
from typing import IO, Any, cast

from lru import LRU

from dmgfs.errors import CorruptImage
from dmgfs.gathering.archive import extended_attributes, members, open_archive
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
from dmgfs.hfsplus_writer.inventory import ONE_NAME, Inventory, Item
from dmgfs.hfsplus_writer.scratch import Scratch
from dmgfs.source import Buffer
from dmgfs.volume import ROOT_FOLDER

_BLOCK = 1 << 20
_FOLDERS_KEPT = 4096
_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_MADE_FOLDER = stat.S_IFDIR | 0o755

UPWARDS = "names with .. in them"
NAMELESS = "members that are no folder and have no name"
NO_FOLDER = "names below something that is no folder"
NO_OWNER = "owners or groups that are no number of 32 bits (--owners UID:GID gives all to one)"
NO_TARGET = "hard links to what did not come before them"
DEVICE_LINK = "hard links to devices"


class TarOrigin:
    """Gathers the archive into `inventory`, and gives its contents afterwards. file: the archive; read from where it
    stands. owner, latest, advance: as for a folder."""

    def __init__(
        self,
        file: IO[bytes],
        inventory: Inventory,
        *,
        owner: tuple[int, int] | None = None,
        latest: int | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.left = Left()
        self._inventory = inventory
        self._owner = owner
        self._latest = latest
        self._advance = advance
        self._file = file
        self._spool = Scratch()
        self._folders: LRU[bytes, int] = LRU(_FOLDERS_KEPT)
        self._in_place = False
        inventory.database.execute(
            "CREATE TABLE spelling (parent INTEGER, name BLOB, given BLOB, PRIMARY KEY (parent, name)) WITHOUT ROWID"
        )

    # -- gathering ---------------------------------------------------------------------------------------------------

    def gather(self, volume_name: bytes) -> None:
        """Raises NotAnImage, CorruptImage, OSError."""
        root = Item(0, b"", _MADE_FOLDER, *(self._owner or (0, 0)), self._latest or 0)
        self._inventory.root(volume_name, root)
        archive = open_archive(self._file)
        self._in_place = archive.in_place
        try:
            for info in members(archive):
                self._gather_one(archive, info, volume_name)
                self._advance(1)
        finally:
            archive.close()
        if archive.ending:
            self.left.note(archive.ending)
        self._inventory.drop_replaced()

    def _gather_one(self, archive: tarfile.TarFile, info: tarfile.TarInfo, volume_name: bytes) -> None:
        path = info.name.encode("utf-8", "surrogateescape")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        at = os.fsdecode(path)
        kind = _KINDS.get(info.type)
        if b".." in parts:
            self._inventory.problem(UPWARDS, at)
            return
        if kind is None and not info.islnk():
            self.left.count(f"members of a type that is unknown ({info.type!r})")
            return
        if not parts:
            if kind == stat.S_IFDIR:
                attributes = self._attributes(info, kind, at)
                self._inventory.root(volume_name, self._item(0, b"", kind, info, attributes))
                self._keep_attributes(ROOT_FOLDER, attributes)
            else:
                self._inventory.problem(NAMELESS, f"member {at!r}")
            return
        if too_deep(len(parts) - (kind != stat.S_IFDIR), at, self._inventory):
            return
        stored = disk_name(parts[-1], self.left)
        if isinstance(stored, str):
            self._inventory.problem(stored, at)
            return
        parent = self._folder(parts[:-1], info, at)
        if parent is None:
            return
        self._check_spelling(parent, stored, parts[-1], at)
        if info.islnk():
            self._link(parent, stored, info, at)
        elif kind == stat.S_IFDIR:
            self._add_folder(parts, parent, stored, info, at)
        else:
            assert kind is not None
            self._add(archive, parent, stored, kind, info, at)

    def _folder(self, parts: list[bytes], info: tarfile.TarInfo, at: str) -> int | None:
        """The number of the folder at this path; made, with those above, if it is not there. None if it cannot be one."""
        path = b"/".join(parts)
        known = self._folders.get(path) if parts else ROOT_FOLDER
        if known is not None:
            return known
        parent = ROOT_FOLDER
        for depth, part in enumerate(parts, 1):
            path = b"/".join(parts[:depth])
            number = self._folders.get(path)
            if number is None:
                number = self._folder_in(parent, part, info, at)
                if number is None:
                    return None
                self._folders[path] = number
            parent = number
        return parent

    def _folder_in(self, parent: int, part: bytes, info: tarfile.TarInfo, at: str) -> int | None:
        stored = disk_name(part, self.left)
        if isinstance(stored, str):
            self._inventory.problem(stored, at)
            return None
        self._check_spelling(parent, stored, part, at)
        found = self._inventory.child(parent, stored)
        if found is None:
            item = Item(parent, stored, _MADE_FOLDER, *self._owners(info), self._modified(info))
            return self._inventory.add(item)
        if not stat.S_ISDIR(found.mode):
            self._inventory.problem(NO_FOLDER, at)
            return None
        return found.number

    def _check_spelling(self, parent: int, stored: bytes, given: bytes, at: str) -> None:
        """The same name again means the same object, another spelling of it means another object."""
        if given.isascii():
            return
        database = self._inventory.database
        row = (parent, stored, given)
        known = database.execute("SELECT given FROM spelling WHERE parent=? AND name=?", row[:2]).fetchone()
        if known is None:
            database.execute("INSERT INTO spelling VALUES (?,?,?)", row)
        elif bytes(known[0]) != given:
            self._inventory.problem(ONE_NAME, at)

    def _add_folder(self, parts: list[bytes], parent: int, stored: bytes, info: tarfile.TarInfo, at: str) -> None:
        path = b"/".join(parts)
        number = self._folders.get(path)
        if number is None:
            found = self._inventory.child(parent, stored)
            number = found.number if found is not None and stat.S_ISDIR(found.mode) else self._inventory.reserve()
        attributes = self._attributes(info, stat.S_IFDIR, at)
        self._inventory.put(number, self._item(parent, stored, stat.S_IFDIR, info, attributes), None)
        self._keep_attributes(number, attributes)
        self._folders[path] = number

    def _link(self, parent: int, stored: bytes, info: tarfile.TarInfo, at: str) -> None:
        target = info.linkname.encode("utf-8", "surrogateescape")
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        found = None
        number = ROOT_FOLDER
        for part in parts:
            name = disk_name(part, self.left)
            found = None if isinstance(name, str) else self._inventory.child(number, name)
            if found is None:
                break
            number = found.number
        if found is None or stat.S_ISDIR(found.mode):
            self._inventory.problem(NO_TARGET, at)
        elif stat.S_ISCHR(found.mode) or stat.S_ISBLK(found.mode):
            self._inventory.problem(DEVICE_LINK, at)
        elif (found.parent, found.name) != (parent, stored):  # else it is a link to itself
            self._inventory.add_link(parent, stored, found.link or found.number)

    def _add(
        self, archive: tarfile.TarFile, parent: int, stored: bytes, kind: int, info: tarfile.TarInfo, at: str
    ) -> None:
        attributes = self._attributes(info, kind, at)
        item = self._item(parent, stored, kind, info, attributes)
        if kind == stat.S_IFREG and info.size:
            item = item._replace(size=info.size, source=self._contents(archive, info))
        elif kind == stat.S_IFLNK:
            target = info.linkname.encode("utf-8", "surrogateescape")
            if not good_target(target):
                self._inventory.problem(BAD_TARGET, at)
            item = item._replace(size=len(target), source=target, finder=with_link_type(item.finder))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            parts = info.devmajor, info.devminor
            special = device(os.makedev(*parts)) if all(0 <= part < 1 << 32 for part in parts) else None
            if special is None:
                self._inventory.problem(BAD_DEVICE, at)
            item = item._replace(special=special or 0)
        self._keep_attributes(self._inventory.add(item), attributes)

    def _item(self, parent: int, stored: bytes, kind: int, info: tarfile.TarInfo, attributes: Attributes) -> Item:
        modified = self._modified(info)
        mode = kind | info.mode & 0o7777
        return Item(parent, stored, mode, *self._owners(info), modified, finder=attributes.finder)

    def _owners(self, info: tarfile.TarInfo) -> tuple[int, int]:
        """User and group of what the member tells of."""
        if self._owner is not None:
            return self._owner
        # (where an extended header has no number, tarfile makes it root)
        told = [info.pax_headers.get(keyword, "0") for keyword in ("uid", "gid")]
        if not (0 <= info.uid < 1 << 32 and 0 <= info.gid < 1 << 32 and all(text.isdecimal() for text in told)):
            self._inventory.problem(NO_OWNER, info.name)
            return 0, 0
        return info.uid, info.gid

    def _modified(self, info: tarfile.TarInfo) -> int:
        seconds = int(info.mtime // 1) if math.isfinite(info.mtime) else 1 << 40
        return good_date(seconds, self._latest, self.left)

    def _contents(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> int:
        """Where they are: twice the offset, odd in the temporary file."""
        if self._in_place and info.sparse is None:
            return info.offset_data << 1
        start = self._spool.size
        stream: io.RawIOBase = cast(Any, archive.extractfile(info)).raw  # a buffer would want the archive to seek
        done = 0
        zeros = bytes(_BLOCK)
        for place, length in _parts(info):
            if not done <= place <= place + length <= info.size:
                raise CorruptImage(
                    "tar archive", f"member {info.name!r}", "its list of parts goes back or past its end"
                )
            stream.seek(place)
            done, end = place, place + length
            while done < end:
                try:
                    data = stream.read(min(_BLOCK, end - done))
                except (tarfile.TarError, EOFError) as error:
                    raise CorruptImage("tar archive", f"member {info.name!r}", str(error)) from error
                if not data:
                    raise CorruptImage("tar archive", f"member {info.name!r}", "the archive ends inside it")
                if data != zeros[: len(data)]:
                    self._spool.write(start + done, data)
                done += len(data)
        self._spool.extend(start + info.size)
        return start << 1 | 1

    def _attributes(self, info: tarfile.TarInfo, mode: int, at: str) -> Attributes:
        found = Attributes()
        for name, value in extended_attributes(info):
            found.take(name, value, mode, at, self._inventory, self.left)
        return found

    def _keep_attributes(self, number: int, attributes: Attributes) -> None:
        for name, value in attributes.named:
            self._inventory.attribute(number, name, value)

    # -- contents ----------------------------------------------------------------------------------------------------

    def read(self, source: object, offset: int, length: int) -> Buffer:
        assert isinstance(source, int)
        at = (source >> 1) + offset
        if source & 1:
            return self._spool.read(at, length)
        data = os.pread(self._file.fileno(), length, at)
        while len(data) < length:
            more = os.pread(self._file.fileno(), length - len(data), at + len(data))
            if not more:
                raise CorruptImage("tar archive", "contents", f"the archive ends at {at + len(data)}", at)
            data += more
        return data

    def close(self) -> None:
        self._file.close()


def _parts(info: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Offset and length of what the archive has of a file; the rest is zeros."""
    if info.sparse is None:
        return [(0, info.size)]
    return [part for part in cast(list[tuple[int, int]], info.sparse) if part[1]]
