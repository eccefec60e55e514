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
    """The private folders of one volume. dates: creation dates (as on disk) that a genuine link carries."""

    def __init__(self, catalog: Catalog, volume_created: int, root_name: bytes) -> None:
        self._catalog = catalog
        self.files_folder, files_created = catalog.folder_number(ROOT_FOLDER, FILES_FOLDER)
        self.folders_folder, folders_created = catalog.folder_number(ROOT_FOLDER, FOLDERS_FOLDER)
        _, root_created = catalog.folder_number(ROOT_PARENT, root_name)
        self._dates = {files_created, folders_created, root_created, volume_created} - {0}

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
        if link.created not in self._dates:
            return link.node
        kind = "folder" if link.to_folder else "file"
        return link.node._replace(broken=f"hard link to {kind} {link.link}, which does not exist")

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
