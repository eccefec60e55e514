"""The changes of an overlay, or of several that lie one on the other, put into the inventory of the volume that they were
made over.

Rules that hold here:
- what the overlay did not touch is not looked at;
- an object of the volume keeps its number, whatever its name is now; what is new gets numbers in the order in which it was
  made;
- overlays are applied one after the other, the lowest first; contents are read from the topmost at the end;
- an attribute counts as changed only where it differs from what the same view showed below, so a view never gets into the
  volume.
"""

import stat
import threading
from collections.abc import Iterator, Sequence

from dmgfs.errors import Unsupported
from dmgfs.gathering.translation import (
    BAD_ATTRIBUTE,
    BAD_DEVICE,
    BAD_TARGET,
    Attributes,
    Left,
    attribute_name,
    device,
    disk_name,
    good_target,
    with_link_type,
)
from dmgfs.hfsplus.attributes import DECMPFS
from dmgfs.hfsplus.links import FILES_FOLDER
from dmgfs.hfsplus.structs import DATA_FORK, UF_COMPRESSED
from dmgfs.hfsplus.unicode import encode
from dmgfs.hfsplus_writer.dates import date
from dmgfs.hfsplus_writer.geometry import blocks_of
from dmgfs.hfsplus_writer.inventory import FINDER_INFO, RESOURCE_FORK, Inventory, Item
from dmgfs.lower import PRIVATE_PREFIX
from dmgfs.source import Buffer
from dmgfs.volume import ROOT_FOLDER
from overlay.overlay import Overlay
from overlay.tree import Directory, File, Node, Own
from overlay.vfs import Attr, Entry, run

_LIMBO = 0
"""The parent of what has no name, for as long as it may get another one."""
_SECOND = 1_000_000_000
_BATCH = 256


class ChangesOrigin:
    """views: overlays that do not change, lowest first, the lowest over the volume that `inventory` was filled from. left:
    what had no place on the volume. After `apply` it gives the new contents."""

    def __init__(self, views: Sequence[Overlay], inventory: Inventory, block_size: int) -> None:
        self.left = Left()
        self._views = views
        self._view = views[-1]
        self._block_size = block_size
        self._inventory = inventory
        self._database = inventory.database
        self._numbers: dict[int, int] = {}
        self._placed: set[int] = set()
        self._lock = threading.Lock()

    def apply(self) -> None:
        """Raises what the volume below raises, Unsupported."""
        for view in self._views:
            self._view = view
            self._apply()

    def _apply(self) -> None:
        tree = self._view.tree
        living = sorted((ino, node) for ino, node in tree.nodes.items() if node.attr.nlink)
        for ino, _ in living:
            if not self._view.is_lower(ino):
                self._numbers[ino] = self._inventory.reserve()
        linked = {row[0] for row in self._database.execute("SELECT DISTINCT link FROM object WHERE link IS NOT NULL")}
        for ino, node in living:
            if isinstance(node.body, Directory) and self._view.is_lower(ino):
                for entry in self._hidden(ino, node.body):
                    self._take_away(self._number(ino), entry)
        for ino, node in living:
            if isinstance(node.body, Directory):
                for own in node.body.added.values():
                    self._place(self._number(ino), own, tree.nodes.get(own.ino))
        self._inventory.flush()
        for ino, node in living:
            if self._view.is_lower(ino):
                self._update(ino, node)
        self._inventory.flush()
        self._remove_lost(linked)

    def _number(self, ino: int) -> int:
        return self._numbers.get(ino, ino)

    # -- names -------------------------------------------------------------------------------------------------------

    def _hidden(self, ino: int, directory: Directory) -> Iterator[Entry]:
        """The entries of the volume that do not show any more."""
        lower = self._view.lower
        if not directory.opaque:
            found = (lower.lookup(ino, name) for name in sorted(directory.whiteouts))
            yield from (entry for entry in found if entry is not None)
            return
        after = None
        while True:
            page = lower.readdir(ino, after, _BATCH)
            yield from page.entries
            after = page.next
            if after is None:
                return

    def _take_away(self, parent: int, entry: Entry) -> None:
        rows = self._database.execute(
            "SELECT cnid, key FROM object WHERE parent=?1 AND (cnid=?2 OR link=?2) ORDER BY cnid",
            (parent, self._number(entry.ino)),
        ).fetchall()
        if not rows:
            raise Unsupported(f"a new image where a hard link of a folder ({entry.name!r}) was changed")
        stored = disk_name(entry.name, Left())
        key = stored if isinstance(stored, str) else self._inventory.folding(stored)
        cnid = next((row[0] for row in rows if row[1] == key), rows[0][0])
        self._database.execute("UPDATE object SET parent=? WHERE cnid=?", (_LIMBO, cnid))

    def _place(self, parent: int, own: Own, node: Node | None) -> None:
        stored = disk_name(own.name, self.left)
        if isinstance(stored, str):
            self._inventory.problem(stored, own.name.decode("utf-8", "backslashreplace"))
            return
        number = self._number(own.ino)
        if self._view.is_lower(own.ino):
            self._inventory.flush()
            for row in (
                self._database.execute(
                    "SELECT cnid FROM object WHERE cnid=? AND parent=?", (number, _LIMBO)
                ).fetchone(),
                self._database.execute(
                    "SELECT cnid FROM object WHERE link=? AND parent=? ORDER BY cnid", (number, _LIMBO)
                ).fetchone(),
            ):
                if row is not None:
                    key = self._inventory.folding(stored)
                    name = None if key == stored else stored
                    self._database.execute(
                        "UPDATE object SET parent=?, key=?, name=? WHERE cnid=?", (parent, key, name, row[0])
                    )
                    return
            self._inventory.add_link(parent, stored, number)
            return
        assert node is not None
        if own.ino not in self._placed or stat.S_ISCHR(node.attr.mode) or stat.S_ISBLK(node.attr.mode):
            again = own.ino in self._placed
            if again:
                if self._view is not self._views[-1]:
                    raise Unsupported("a new image of a layer with hard links of devices below another shadow")
                self.left.count("hard links of devices, which become devices of their own")
            self._placed.add(own.ino)
            self._add(self._inventory.reserve() if again else number, parent, stored, own.ino, node.attr)
        else:
            self._inventory.add_link(parent, stored, number)

    # -- objects -----------------------------------------------------------------------------------------------------

    def _add(self, number: int, parent: int, stored: bytes, ino: int, attr: Attr) -> None:
        found = Attributes()
        place = self._inventory.path(parent) + "/"
        for name in run(self._view.listxattr(ino)):
            value = bytes(run(self._view.getxattr(ino, name)))
            found.take(name, value, attr.mode, place, self._inventory, self.left)
        size, special = 0, 0
        source: bytes | int | None = None
        if stat.S_ISREG(attr.mode):
            size, source = attr.size, ino
        elif stat.S_ISLNK(attr.mode):
            source = bytes(run(self._view.readlink(ino)))
            size = len(source)
            if not good_target(source):
                self._inventory.problem(BAD_TARGET, place)
        elif stat.S_ISCHR(attr.mode) or stat.S_ISBLK(attr.mode):
            known = device(attr.rdev)
            if known is None:
                self._inventory.problem(BAD_DEVICE, place)
            special = known or 0
        finder = with_link_type(found.finder) if stat.S_ISLNK(attr.mode) else found.finder
        seconds = (
            attr.mtime_ns // _SECOND,
            attr.btime_ns // _SECOND,
            attr.ctime_ns // _SECOND,
            attr.atime_ns // _SECOND,
        )
        item = Item(parent, stored, attr.mode, attr.uid, attr.gid, seconds[0], size, source, special, finder=finder)
        item = item._replace(created=seconds[1], changed=seconds[2], accessed=seconds[3])
        self._inventory.add(item, number=number)
        for text, value in found.named:
            self._inventory.attribute(number, text, value)

    def _update(self, ino: int, node: Node) -> None:
        """An object of the volume that is not what it was."""
        old, new = self._view.lower.getattr(ino), node.attr
        cnid = self._number(ino)
        pairs = (
            ("mode", old.mode, new.mode, new.mode),
            ("uid", old.uid, new.uid, new.uid),
            ("gid", old.gid, new.gid, new.gid),
            ("modified", old.mtime_ns, new.mtime_ns, date(new.mtime_ns // _SECOND)),
            ("changed", old.ctime_ns, new.ctime_ns, date(new.ctime_ns // _SECOND)),
            ("accessed", old.atime_ns, new.atime_ns, date(new.atime_ns // _SECOND)),
        )
        for column, before, after, value in pairs:
            if before != after:
                self._database.execute(f"UPDATE object SET {column}=? WHERE cnid=?", (value, cnid))
        if isinstance(node.body, File):
            self._new_contents(cnid, ino, new.size)
        for name, changed in sorted((node.xattrs or {}).items()):
            self._attribute(cnid, name, changed)

    def _new_contents(self, cnid: int, ino: int, size: int) -> None:
        flags, start, old_size, kept = self._inventory.one(
            "SELECT flags, start, size, kept FROM object WHERE cnid=?", cnid
        )
        extents = self._inventory.extents.get((cnid, DATA_FORK), [(start, blocks_of(old_size, self._block_size))])
        had, needs = sum(blocks for _, blocks in extents), blocks_of(size, self._block_size)
        # Where it lies it may be written over; most of it is the same, perhaps.
        stays = kept and not flags & UF_COMPRESSED and had >= needs > had // 2
        if stays and had > needs:
            self._inventory.extents[cnid, DATA_FORK] = extents
        if flags & UF_COMPRESSED:
            self._database.execute(
                "UPDATE object SET flags=?, resource=0, resource_kept=0 WHERE cnid=?", (flags & ~UF_COMPRESSED, cnid)
            )
            self._database.execute("DELETE FROM attribute WHERE cnid=? AND name=?", (cnid, encode(DECMPFS)))
        self._database.execute(
            "UPDATE object SET size=?, kept=?, source=? WHERE cnid=?", (size, 1 if stays else 0, ino, cnid)
        )

    def _attribute(self, cnid: int, name: bytes, value: bytes | None) -> None:
        if name.startswith(b"system."):
            self.left.count(f"attributes without a place on HFS+ ({name.decode('ascii', 'replace')})")
            return
        text = self._stored_name(cnid, name)
        if text is None or text.startswith(PRIVATE_PREFIX):
            self._inventory.problem(BAD_ATTRIBUTE, self._inventory.path(cnid))
        elif text == FINDER_INFO:
            (old,) = self._database.execute("SELECT finder FROM object WHERE cnid=?", (cnid,)).fetchone()
            kept = bytes(old or bytes(32))
            shown = (value or b"")[:32].ljust(32, b"\0")
            # (document id, date added and write generation are never shown, so nobody changed them)
            finder = shown[:16] + kept[16:24] + shown[24:28] + kept[28:]
            self._database.execute("UPDATE object SET finder=? WHERE cnid=?", (finder, cnid))
        else:
            self._database.execute("DELETE FROM attribute WHERE cnid=? AND name=?", (cnid, encode(text)))
            if text == RESOURCE_FORK:
                self._database.execute("UPDATE object SET resource=0, resource_kept=0 WHERE cnid=?", (cnid,))
            if value is not None and (value or text != RESOURCE_FORK):
                self._inventory.attribute(cnid, text, value)

    def _stored_name(self, cnid: int, name: bytes) -> str | None:
        """Under what name the volume has the attribute, or would have it."""
        literal = name.decode("utf-8", "replace")
        there = "SELECT count(*) FROM attribute WHERE cnid=? AND name=?"
        return literal if self._inventory.one(there, cnid, encode(literal))[0] else attribute_name(name)

    def _remove_lost(self, linked: set[int]) -> None:
        """What has no name any more, with all that is below it, and what was behind links that are all gone."""
        database = self._database
        database.execute("DELETE FROM object WHERE parent=? AND link IS NOT NULL", (_LIMBO,))
        self._keep_linked()
        database.execute(
            "WITH RECURSIVE lost (cnid) AS (SELECT cnid FROM object WHERE parent=? UNION"
            " SELECT o.cnid FROM object o JOIN lost ON o.parent=lost.cnid)"
            " DELETE FROM object WHERE cnid IN (SELECT cnid FROM lost)",
            (_LIMBO,),
        )
        private = "SELECT cnid FROM object WHERE parent=? AND key=?"
        for target in linked:
            if not self._inventory.one("SELECT count(*) FROM object WHERE link=?", target)[0]:
                database.execute(
                    f"DELETE FROM object WHERE cnid=? AND parent IN ({private})",
                    (target, ROOT_FOLDER, self._inventory.folding(FILES_FOLDER)),
                )
        database.execute("DELETE FROM attribute WHERE cnid NOT IN (SELECT cnid FROM object)")

    def _keep_linked(self) -> None:
        """What a layer below made with several names stands under the first of them: if that is gone, under another one."""
        lost = (
            "SELECT o.cnid, min(l.cnid) FROM object o JOIN object l ON l.link=o.cnid WHERE o.parent=? GROUP BY o.cnid"
        )
        for cnid, link in self._database.execute(lost, (_LIMBO,)).fetchall():
            parent, key, name = self._database.execute(
                "SELECT parent, key, name FROM object WHERE cnid=?", (link,)
            ).fetchone()
            self._database.execute("DELETE FROM object WHERE cnid=?", (link,))
            self._database.execute(
                "UPDATE object SET parent=?, key=?, name=? WHERE cnid=?", (parent, key, name, cnid)
            )

    # -- contents ----------------------------------------------------------------------------------------------------

    def read(self, source: object, offset: int, length: int) -> Buffer:
        assert isinstance(source, int)
        with self._lock:
            parts: list[bytes] = []
            while length:
                part = bytes(run(self._view.read(source, offset, length)))
                if not part:
                    raise OSError(5, f"object {source} is shorter than it says")
                parts.append(part)
                offset += len(part)
                length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
