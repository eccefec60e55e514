"""Hard links (TN1150 "Hard Links", and Apple's directory hard links): which folder holds the objects behind them, and
which object a link leads to.

One step only: what is found behind a link is never followed again. Objects behind links have no place of their own that a
user sees; the two private folders are hidden from listings.
"""

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.catalog import Catalog, Leaf, Unfinished
from dmgfs.hfsplus.unicode import encode
from dmgfs.volume import ROOT_FOLDER, ROOT_PARENT, Node

FILES_FOLDER = encode("\0\0\0\0HFS+ Private Data")
FOLDERS_FOLDER = encode(".HFS+ Private Directory Data\r")

_LEVELS = 1024
"""How far up a folder link's ancestors are compared with its target."""


class Links:
    """The private folders of one volume. damage: why one of them could not be looked for, None if they could."""

    def __init__(self, catalog: Catalog, volume_created: int, root_name: bytes) -> None:
        self._catalog = catalog
        self.damage: str | None = None
        self.files_folder, files_created = self._folder(ROOT_FOLDER, FILES_FOLDER)
        self.folders_folder, folders_created = self._folder(ROOT_FOLDER, FOLDERS_FOLDER)
        _, root_created = self._folder(ROOT_PARENT, root_name)
        # A genuine link was "created" together with one of these.
        self._dates = {files_created, folders_created, root_created, volume_created} - {0}

    def _folder(self, parent: int, name: bytes) -> tuple[int, int]:
        try:
            return self._catalog.folder_number(parent, name)
        except CorruptImage as damage:
            self.damage = str(damage)
            return 0, 0

    def target(self, link: Unfinished) -> tuple[Leaf, int] | None:
        """The record behind a link; None if there is none."""
        folder = self.folders_folder if link.to_folder else self.files_folder
        if not folder:
            return None
        prefix = "dir_" if link.to_folder else "iNode"
        return self._catalog.find(folder, encode(f"{prefix}{link.link}"))

    def without_target(self, link: Unfinished) -> Node:
        """A record that looks like a link and leads nowhere: broken if its date is a link's, else what it says it is (an
        alias, a file that happens to have this type and creator)."""
        if link.created not in self._dates and self.damage is None:
            return link.node
        kind = "folder" if link.to_folder else "file"
        why = "which does not exist" if self.damage is None else f"which cannot be looked for ({self.damage})"
        return link.node._replace(broken=f"hard link to {kind} {link.link}, {why}")

    def inside(self, parent: int, folder: int) -> bool:
        """Whether folder number `parent` is `folder` or lies in it: a link there would lead back into itself."""
        for _ in range(_LEVELS):
            if parent == folder:
                return True
            if parent in (ROOT_FOLDER, ROOT_PARENT):
                return False
            try:
                parent = self._catalog.thread(parent).parent
            except CorruptImage:
                return False
        return True
