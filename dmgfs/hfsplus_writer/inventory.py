"""The inventory of a volume: every object that it is to hold, in a temporary database that takes a few MB of memory however
many there are. Whoever gathers adds objects in any order; `finish` settles what needs them all: which names clash, hard
links, how many children a folder has.

Rules that hold here:
- an object's number (CNID) is given when it is added and never changes; contents are laid out in the order of the
  numbers, after those that somebody wants to come first;
- nothing is refused one by one: what HFS+ cannot hold is collected, and `finish` names it;
- what a source needs to find an object's contents again is an opaque value here.
"""

import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dmgfs.errors import Unwritable
from dmgfs.hfsplus.unicode import MAX_NAME_UNITS, decode, encode, exact, fold
from dmgfs.hfsplus_writer.dates import date
from dmgfs.hfsplus_writer.hardlinks import settle_links
from dmgfs.hfsplus_writer.scratch import Scratch
from dmgfs.volume import ROOT_FOLDER, ROOT_PARENT

FIRST_NUMBER = 16
MOST_ATTRIBUTE_UNITS = 127
FINDER_INFO = "com.apple.FinderInfo"
RESOURCE_FORK = "com.apple.ResourceFork"
JOURNAL_NAMES = tuple(encode(name) for name in (".journal", ".journal_info_block"))

ONE_NAME = "spellings of one name (they differ in composition only)"
MOST_NAMED = 20
"""So many of the objects that cannot be written are named; the others are counted."""

_CACHE_KIB = 48 << 10
_BATCH = 2000

_SCHEMA = """
CREATE TABLE object (
    cnid INTEGER PRIMARY KEY, parent INTEGER NOT NULL, key BLOB NOT NULL, name BLOB, folder INTEGER NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, special INTEGER NOT NULL,
    created INTEGER NOT NULL, modified INTEGER NOT NULL, changed INTEGER NOT NULL, accessed INTEGER NOT NULL,
    flags INTEGER NOT NULL, finder BLOB, size INTEGER NOT NULL, source BLOB,
    link INTEGER, counted INTEGER NOT NULL DEFAULT 0, folders INTEGER NOT NULL DEFAULT 0,
    attributed INTEGER NOT NULL DEFAULT 0, start INTEGER NOT NULL DEFAULT 0,
    resource INTEGER NOT NULL DEFAULT 0, resource_start INTEGER NOT NULL DEFAULT 0,
    kept INTEGER NOT NULL DEFAULT 0, resource_kept INTEGER NOT NULL DEFAULT 0,
    packed INTEGER,
    backup INTEGER NOT NULL DEFAULT 0, encoding INTEGER NOT NULL DEFAULT 0, record_flags INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX place ON object (parent, key);
CREATE INDEX linked ON object (link) WHERE link IS NOT NULL;
CREATE TABLE attribute (
    cnid INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, start INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (cnid, name)
) WITHOUT ROWID;
CREATE TABLE seen (
    device INTEGER NOT NULL, number INTEGER NOT NULL, cnid INTEGER NOT NULL, PRIMARY KEY (device, number)
) WITHOUT ROWID;
CREATE TABLE first (rank INTEGER PRIMARY KEY, cnid INTEGER NOT NULL UNIQUE);
CREATE TABLE piece (
    start INTEGER PRIMARY KEY, cnid INTEGER NOT NULL, kind INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL
);
"""
_COLUMNS = (
    "cnid, parent, key, name, folder, mode, uid, gid, special, created, modified, changed, accessed, flags, finder,"
    " size, source"
)


class Item(NamedTuple):
    """One object to be added. name: UTF-16BE as it is to be stored. mode: st_mode. special: the device number as on disk.
    Dates in Unix seconds; None: the date of modification. size: of the data fork. source: what the contents are asked
    for with; of a symbolic link its target. finder: 32 bytes or None. flags: BSD st_flags."""

    parent: int
    name: bytes
    mode: int
    uid: int
    gid: int
    modified: int
    size: int = 0
    source: bytes | int | None = None
    special: int = 0
    created: int | None = None
    changed: int | None = None
    accessed: int | None = None
    flags: int = 0
    finder: bytes | None = None


class Known(NamedTuple):
    """What stands under a name. link: the object that it is another name of, None if it is one itself."""

    parent: int
    name: bytes
    number: int
    mode: int
    link: int | None


class Inventory:
    """case_sensitive: HFSX that tells case apart. next_number: of the next object that is added. database: for what
    belongs to this package and to sources. lock: whoever asks the database in several threads holds it.
    packed: the resource forks that were made of contents; objects know their offsets in it.
    extents: by number and fork type, (start, blocks) of forks that are kept where they are and are not in one piece as long
    as they need."""

    def __init__(self, *, case_sensitive: bool, first_number: int = FIRST_NUMBER) -> None:
        self.case_sensitive = case_sensitive
        self.next_number = first_number
        self.folding = exact if case_sensitive else fold
        self.created = 0
        # An empty name: a file that exists nowhere and goes with the connection.
        self.lock = threading.Lock()
        self.database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in (f"cache_size=-{_CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF", "temp_store=FILE"):
            self.database.execute(f"PRAGMA {pragma}")
        self.database.executescript(_SCHEMA)
        self.database.execute("BEGIN")
        self.packed: Scratch | None = None
        self._objects: list[tuple[object, ...]] = []
        self._attributes: list[tuple[int, bytes, bytes]] = []
        self.extents: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._problems: dict[str, tuple[int, list[str]]] = {}

    def close(self) -> None:
        self.database.close()

    # -- adding ------------------------------------------------------------------------------------------------------

    def root(self, name: bytes, item: Item) -> None:
        """The root folder, called `name`; of `item` all but parent and name count. Before everything else."""
        self.put(ROOT_FOLDER, item._replace(parent=ROOT_PARENT, name=name), None)

    def reserve(self, number: int | None = None) -> int:
        """A number that nobody has, or the one that is wanted."""
        if number is None:
            number = self.next_number
        self.next_number = max(self.next_number, number + 1)
        return number

    def add(self, item: Item, *, number: int | None = None) -> int:
        """Returns the object's number."""
        number = self.reserve(number)
        self.put(number, item, None)
        return number

    def add_link(self, parent: int, name: bytes, target: int, *, number: int | None = None) -> int:
        """Another name of the object with number `target`, which must have been added with its first name."""
        number = self.reserve(number)
        self.put(number, Item(parent, name, stat.S_IFREG | 0o444, 0, 0, 0), target)
        return number

    def put(self, number: int, item: Item, link: int | None) -> None:
        """Adds under a number that the caller has reserved, or replaces what was added under it. link: of which object it
        is another name."""
        parent, name, mode, uid, gid, modified, size, source, special, created, changed, accessed, flags, finder = (
            item
        )
        key = self.folding(name)
        on_disk = date(modified)
        row = (
            number, parent, key, None if key == name else name, stat.S_ISDIR(mode), mode, uid, gid, special,
            on_disk if created is None else date(created), on_disk,
            on_disk if changed is None else date(changed), on_disk if accessed is None else date(accessed),
            flags, finder, size, source,
        )  # fmt: skip
        self._objects.append(row if link is None else (*row, link))
        if len(self._objects) >= _BATCH or link is not None:
            self.flush()

    def attribute(self, number: int, name: str, value: bytes) -> None:
        """A named attribute of an object, among them its resource fork. Not more than one of a name."""
        self._attributes.append((number, encode(name), value))
        if len(self._attributes) >= _BATCH or len(value) > 1 << 16:
            self.flush()

    def flush(self) -> None:
        """What was added so far is in the database."""
        plain = [row for row in self._objects if len(row) == 17]
        links = [row for row in self._objects if len(row) == 18]
        self.database.executemany(f"INSERT OR REPLACE INTO object ({_COLUMNS}) VALUES ({'?,' * 16}?)", plain)
        self.database.executemany(f"INSERT INTO object ({_COLUMNS}, link) VALUES ({'?,' * 17}?)", links)
        self.database.executemany(
            "INSERT OR REPLACE INTO attribute (cnid, name, value) VALUES (?,?,?)", self._attributes
        )
        self._objects, self._attributes = [], []

    def seen(self, device: int, number: int) -> int:
        """The object that was remembered for this inode of the source, 0 if none was."""
        found = self.database.execute(
            "SELECT cnid FROM seen WHERE device=? AND number=?", (device, number)
        ).fetchone()
        return 0 if found is None else int(found[0])

    def remember(self, device: int, number: int, cnid: int) -> None:
        self.database.execute("INSERT INTO seen VALUES (?,?,?)", (device, number, cnid))

    def child(self, parent: int, name: bytes) -> "Known | None":
        """What was added last under this name."""
        self.flush()
        found = self.database.execute(
            "SELECT cnid, mode, link FROM object WHERE parent=? AND key=? AND coalesce(name, key)=? ORDER BY cnid DESC",
            (parent, self.folding(name), name),
        ).fetchone()
        return None if found is None else Known(parent, name, *found)

    def place_first(self, number: int) -> None:
        """The contents of this object are laid out before all others, in the order of the calls."""
        self.database.execute("INSERT OR IGNORE INTO first (cnid) VALUES (?)", (number,))

    def drop_replaced(self) -> None:
        """Of the objects that have one name, letter by letter, the last stays."""
        self.flush()
        same = "SELECT parent, key, coalesce(name, key), max(cnid) FROM object GROUP BY 1, 2, 3 HAVING count(*) > 1"
        for parent, key, name, last in self.database.execute(same).fetchall():
            rows = self.database.execute(
                "SELECT cnid, folder, (SELECT count(*) FROM object l WHERE l.link=o.cnid) FROM object o"
                " WHERE parent=? AND key=? AND coalesce(name, key)=? AND cnid<>?",
                (parent, key, name, last),
            ).fetchall()
            for cnid, folder, links in rows:
                if links or folder:
                    self.problem("names that something else replaces", f"{self.path(parent)}/{decode(bytes(name))}")
                self.database.execute("DELETE FROM object WHERE cnid=?", (cnid,))
                self.database.execute("DELETE FROM attribute WHERE cnid=?", (cnid,))

    def problem(self, kind: str, place: str) -> None:
        """Something that cannot be written; `finish` will raise."""
        count, places = self._problems.get(kind, (0, []))
        if count < MOST_NAMED:
            places.append(place)
        self._problems[kind] = count + 1, places

    # -- settling ----------------------------------------------------------------------------------------------------

    def finish(self, created: int, *, reserved: Sequence[bytes]) -> None:
        """Everything was added. created: date of the volume, as on disk. reserved: names in the root folder that are not
        to be had. Raises Unwritable, naming objects."""
        self.flush()
        self.created = created
        self._find_clashes(reserved)
        if self._problems:
            raise self._refusal()
        settle_links(self)
        self._count_children()
        self.database.execute(
            "UPDATE object SET attributed=1 WHERE cnid IN (SELECT cnid FROM attribute WHERE name<>?)",
            (encode(RESOURCE_FORK),),
        )
        self.database.execute(
            "UPDATE object SET resource_kept=0,"
            " resource=(SELECT length(value) FROM attribute a WHERE a.cnid=object.cnid AND a.name=?1)"
            " WHERE cnid IN (SELECT cnid FROM attribute WHERE name=?1)",
            (encode(RESOURCE_FORK),),
        )

    def _refusal(self) -> Unwritable:
        places: list[str] = []
        told = []
        for kind, (count, named) in self._problems.items():
            told.append(f"{count} {kind}")
            places += [f"{place}: {kind}" for place in named]
            if count > len(named):
                places.append(f"… and {count - len(named)} more: {kind}")
        return Unwritable(f"nothing was written, because HFS+ cannot hold all of this: {'; '.join(told)}", places)

    def _find_clashes(self, reserved: Sequence[bytes]) -> None:
        clashes = self.database.execute(
            "SELECT parent, key, count(*) FROM object GROUP BY parent, key HAVING count(*) > 1 ORDER BY parent, key"
        )
        kind = (
            ONE_NAME
            if self.case_sensitive
            else "names that differ only in case or composition (HFSX keeps case apart: --fs hfsx)"
        )
        for parent, key, _ in clashes.fetchall():
            rows = self.database.execute(
                "SELECT coalesce(name, key) FROM object WHERE parent=? AND key=? ORDER BY 1", (parent, key)
            )
            names = [decode(bytes(name)) for (name,) in rows.fetchmany(4)]
            self.problem(kind, f"{self.path(parent)}/ {' and '.join(map(repr, names))}")
        for name in reserved:
            found = self.database.execute(
                "SELECT count(*) FROM object WHERE parent=? AND key=?", (ROOT_FOLDER, self.folding(name))
            ).fetchone()
            if found[0]:
                self.problem("names that HFS+ needs for itself", f"/{decode(name)!r}")

    def path(self, number: int) -> str:
        """Of an object on the volume, for people."""
        parts: list[str] = []
        while number != ROOT_FOLDER and len(parts) < 1000:
            found = self.database.execute(
                "SELECT parent, coalesce(name, key) FROM object WHERE cnid=?", (number,)
            ).fetchone()
            if found is None:
                break
            number = found[0]
            parts.append(decode(bytes(found[1])))
        return "/" + "/".join(reversed(parts)) if parts else ""

    def _count_children(self) -> None:
        self.database.execute(
            "UPDATE object SET counted=(SELECT count(*) FROM object c WHERE c.parent=object.cnid),"
            " folders=(SELECT count(*) FROM object c WHERE c.parent=object.cnid AND c.folder)"
            " WHERE folder"
        )

    # -- asking ------------------------------------------------------------------------------------------------------

    def one(self, query: str, *values: object) -> tuple[int, ...]:
        """The single row of numbers that the query gives; NULL is 0."""
        return tuple(int(value or 0) for value in self.database.execute(query, values).fetchone())

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return iter(self.database.execute(query, values))


def name_fits(name: bytes) -> bool:
    """Whether HFS+ has room for the name (UTF-16BE)."""
    return 0 < len(name) <= 2 * MAX_NAME_UNITS
