"""Hard links of a new volume (TN1150 "Hard Links", and the link chains that Apple added later): an object with several
names becomes a file in a private folder, and each of its names a link to it. The object knows its first link, each link
the one before and the one after it.

Rule: numbers stay. The object keeps its own, which is what its contents and attributes are kept under.
"""

import stat
import struct
from typing import TYPE_CHECKING

from dmgfs.hfsplus.links import FILES_FOLDER
from dmgfs.hfsplus.unicode import encode
from dmgfs.volume import ROOT_FOLDER

if TYPE_CHECKING:
    from dmgfs.hfsplus_writer.inventory import Inventory

_LINK_FINDER_INFO = b"hlnkhfs+" + bytes(24)
_INVISIBLE_AND_LOCKED = struct.pack(">8xH6x16x", 0x5000)
_LINK_MODE = stat.S_IFREG | 0o444
_ALL_DATES = "created=?1, modified=?1, changed=?1, accessed=?1"
"""A genuine link was created together with the volume: that is how readers know one."""

_FIRST_NAME = (
    "INSERT INTO object (cnid, parent, key, name, mode, uid, gid, special, created, modified, changed, accessed, flags,"
    " size, link) SELECT ?, parent, key, name, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, cnid FROM object WHERE cnid=?"
)


def settle_links(inventory: "Inventory") -> None:
    """Everything was added and flushed. The links so far have `link`, and their target stands under its first name."""
    database = inventory.database
    targets = [row[0] for row in database.execute("SELECT DISTINCT link FROM object WHERE link IS NOT NULL")]
    if not targets:
        return
    folder = inventory.reserve()
    _add_private_folder(inventory, folder)
    for target in targets:
        others = database.execute("SELECT cnid FROM object WHERE link=? ORDER BY cnid", (target,)).fetchall()
        first = inventory.reserve()
        database.execute(_FIRST_NAME, (first, _LINK_MODE, target))
        name = encode(f"iNode{target}")
        key = inventory.folding(name)
        database.execute(
            "UPDATE object SET parent=?, key=?, name=?, special=?, counted=? WHERE cnid=?",
            (folder, key, None if key == name else name, len(others) + 1, first, target),
        )
        chain = [first, *(row[0] for row in others)]
        neighbours = zip(chain, [0, *chain[:-1]], [*chain[1:], 0], strict=True)
        database.executemany(
            f"UPDATE object SET special=?3, uid=?4, gid=?5, finder=?6, {_ALL_DATES} WHERE cnid=?2",
            [
                (inventory.created, cnid, target, before, after, _LINK_FINDER_INFO)
                for cnid, before, after in neighbours
            ],
        )


def _add_private_folder(inventory: "Inventory", number: int) -> None:
    """As Apple's: no permissions at all, invisible, name locked."""
    key = inventory.folding(FILES_FOLDER)
    inventory.database.execute(
        "INSERT INTO object (cnid, parent, key, name, mode, uid, gid, special, created, modified, changed, accessed, flags,"
        " finder, size) VALUES (?2, ?3, ?4, ?5, ?6, 0, 0, 0, ?1, ?1, ?1, ?1, 0, ?7, 0)",
        (inventory.created, number, ROOT_FOLDER, key, FILES_FOLDER, stat.S_IFDIR, _INVISIBLE_AND_LOCKED),
    )
