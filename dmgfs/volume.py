"""What every volume parser offers, HFS+ and HFS standard alike: catalog objects by number, names by parent, forks and
attributes as byte sources. Read-only and immutable; names are the volume's own (`str` of UTF-16 units, lone surrogates
kept), dates are Unix seconds. How that looks to Linux (names in UTF-8, owners, hidden items) is `dmgfs.lower`'s business.

Rules that hold here: every method may raise CorruptImage for the one object it was asked for and Cold in a thread that
must not block; it may be called again with the same arguments.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol

from dmgfs.source import ByteSource

ROOT_PARENT = 1
ROOT_FOLDER = 2
MOST_DEPTH = 1024
"""Levels of folders, the root among them, that a walk goes down; no volume with more is made."""


class Node(NamedTuple):
    """One catalog object with hard links already followed.

    cnid: identity; for a hard link that of the file or folder it leads to. parent, name: where *this* record stands
    and how it is spelt on disk. mode: st_mode with type bits that agree with the record. has_permissions: False where
    nobody ever set any (the mount chooses). special: device number as on disk. nlink: 1 or the link count. folders:
    number of subfolders, None where the volume does not keep it. Sizes in bytes. data_blocks: allocation blocks that
    the contents take (of a compressed file: both forks). Dates in Unix seconds (may be negative or beyond 32 bits),
    None = not set.
    flags: BSD st_flags. finder_info: the 32 bytes of FinderInfo and extended FinderInfo as on disk.
    compressed: the data is behind decmpfs; `data_size` is then the size after decompression. broken: why the object
    behind the name cannot be had (a hard link without target), None if it can.
    """

    cnid: int
    parent: int
    name: str
    mode: int
    has_permissions: bool
    uid: int
    gid: int
    special: int
    nlink: int
    folders: int | None
    valence: int
    data_size: int
    resource_size: int
    data_blocks: int
    created: int | None
    modified: int | None
    changed: int | None
    accessed: int | None
    backed_up: int | None
    flags: int
    finder_info: bytes
    text_encoding: int
    compressed: bool
    broken: str | None


class Page(NamedTuple):
    """Part of a folder in catalog order. `next`: cursor to go on, None at the end."""

    nodes: Sequence[Node]
    next: Hashable | None


class VolumeInfo(NamedTuple):
    """For `dmgfs info` and statfs. kind: "HFS+", "HFSX", "HFS". journal: None, "clean", "dirty", "replayed", "empty",
    "external", "ignored" (unreadable); journal_detail: the same as a sentence. id: 64-bit volume identifier as 16 hex
    digits, "" where there is none."""

    kind: str
    name: str
    case_sensitive: bool
    journal: str | None
    clean: bool
    block_size: int
    total_blocks: int
    free_blocks: int
    files: int
    folders: int
    created: int | None
    modified: int | None
    backed_up: int | None
    checked: int | None
    last_mounted_by: str
    id: str
    attributes: Sequence[str]
    encodings: int
    warnings: Sequence[str]
    journal_detail: str = ""


class Volume(Protocol):
    """A mounted-to-be volume."""

    @property
    def info(self) -> VolumeInfo: ...

    def fold(self, name: str) -> bytes:
        """Equal for exactly the names that the volume holds to be one name (its own folding and decomposition)."""
        ...

    def node(self, cnid: int) -> Node:
        """Raises CorruptImage if there is no such object."""
        ...

    def find(self, parent: int, name: str) -> Node | None:
        """The child that the volume's own comparison finds. `name` as stored or as typed (composed): as it is first, then
        in the form in which the volume would store it. So of two names that differ in that only, both can be found."""
        ...

    def children(self, parent: int, after: Hashable | None, limit: int) -> Page:
        """Up to `limit` children in catalog order, without the private metadata items."""
        ...

    def data(self, node: Node) -> ByteSource:
        """The file's bytes as users see them (decompressed if compressed)."""
        ...

    def resource(self, node: Node) -> ByteSource:
        """The resource fork; size 0 where there is none, or where it only carries the compressed data."""
        ...

    def attributes(self, node: Node) -> Mapping[str, ByteSource]:
        """Named attributes as on disk, without decmpfs's own on a compressed file; FinderInfo and ResourceFork are not
        among them (they come from the node)."""
        ...
