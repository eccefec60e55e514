"""Hard links of a new volume (TN1150 "Hard Links", and the link chains that Apple added later): an object with several
names becomes a file in a private folder, and each of its names a link to it. The object knows its first link, each link
the one before and the one after it.

Rule: numbers stay. The object keeps its own, which is what its contents and attributes are kept under.
"""

import re
import stat
import struct
from typing import TYPE_CHECKING

from dmgfs.hfsplus.links import FILES_FOLDER
from dmgfs.hfsplus.unicode import decode, encode
from dmgfs.volume import ROOT_FOLDER

if TYPE_CHECKING:
    from dmgfs.hfsplus_writer.inventory import Inventory

_LINK_FINDER_INFO = b"hlnkhfs+" + bytes(24)
_INVISIBLE_AND_LOCKED = struct.pack(">8xH6x16x", 0x5000)
_LINK_MODE = stat.S_IFREG | 0o444
_ALL_DATES = "created=?1, modified=?1, changed=?1, accessed=?1"
"""A genuine link was created together with the volume: that is how readers know one."""

_FIRST_NAME = (
    "INSERT INTO object (cnid, parent, key, name, folder, mode, uid, gid, special, created, modified, changed, accessed,"
    " flags, size, link) SELECT ?, parent, key, name, 0, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, cnid FROM object WHERE cnid=?"
)


def settle_links(inventory: "Inventory") -> None:
    """Everything was added and flushed. The links so far have `link`; their target stands under its first name, or in the
    private folder already."""
    database = inventory.database
    targets = [row[0] for row in database.execute("SELECT DISTINCT link FROM object WHERE link IS NOT NULL")]
    if not targets:
        return
    folder, created = _private_folder(inventory)
    for target in targets:
        links = [row[0] for row in database.execute("SELECT cnid FROM object WHERE link=? ORDER BY cnid", (target,))]
        parent, name = database.execute(
            "SELECT parent, coalesce(name, key) FROM object WHERE cnid=?", (target,)
        ).fetchone()
        reference = _reference(bytes(name)) if parent == folder else None
        if reference is None:
            first, reference = _move(inventory, target, folder)
            links.insert(0, first)
        database.execute("UPDATE object SET special=?, counted=? WHERE cnid=?", (len(links), links[0], target))
        neighbours = zip(links, [0, *links[:-1]], [*links[1:], 0], strict=True)
        database.executemany(
            f"UPDATE object SET special=?3, uid=?4, gid=?5, finder=?6, {_ALL_DATES} WHERE cnid=?2",
            [(created, cnid, reference, before, after, _LINK_FINDER_INFO) for cnid, before, after in neighbours],
        )


def _reference(name: bytes) -> int | None:
    """The number in the name of an object in the private folder."""
    match = re.fullmatch(r"iNode(\d+)", decode(name))
    return int(match[1]) if match else None


def _move(inventory: "Inventory", target: int, folder: int) -> tuple[int, int]:
    """Into the private folder, a link in its place; the link's number, and the one by which links find the object: its own
    unless another one, of a volume that others wrote, goes by that already."""
    first = inventory.reserve()
    reference = target
    while inventory.one("SELECT count(*) FROM object WHERE parent=? AND key=?", folder, _key(inventory, reference))[
        0
    ]:
        reference = inventory.reserve()
    inventory.database.execute(_FIRST_NAME, (first, _LINK_MODE, target))
    name, key = encode(f"iNode{reference}"), _key(inventory, reference)
    inventory.database.execute(
        "UPDATE object SET parent=?, key=?, name=? WHERE cnid=?",
        (folder, key, None if key == name else name, target),
    )
    return first, reference


def _key(inventory: "Inventory", reference: int) -> bytes:
    return inventory.folding(encode(f"iNode{reference}"))


def _private_folder(inventory: "Inventory") -> tuple[int, int]:
    """Its number and the date that it was created at; made if it is not there, as Apple's: no permissions at all,
    invisible, name locked."""
    key = inventory.folding(FILES_FOLDER)
    database = inventory.database
    there = "SELECT cnid, created FROM object WHERE parent=? AND key=?"
    found = database.execute(there, (ROOT_FOLDER, key)).fetchone()
    if found is not None:
        return int(found[0]), int(found[1])
    number = inventory.reserve()
    database.execute(
        "INSERT INTO object (cnid, parent, key, name, folder, mode, uid, gid, special, created, modified, changed,"
        " accessed, flags, finder, size) VALUES (?2, ?3, ?4, ?5, 1, ?6, 0, 0, 0, ?1, ?1, ?1, ?1, 0, ?7, 0)",
        (inventory.created, number, ROOT_FOLDER, key, FILES_FOLDER, stat.S_IFDIR, _INVISIBLE_AND_LOCKED),
    )
    return number, inventory.created
