"""Builds HFS standard volumes from a description of a tree: catalog and extents trees of any depth, fragmented forks with
overflow extents, dates, Finder information, file threads or none.

Written from the format's description, in the other direction than the reader. The one thing it takes from the reader is
the order of names (`roman.key`), which is tested by itself and on volumes of other makers.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dmgfs.hfs import roman

NODE = 512
CREATED, MODIFIED, BACKED_UP = 3_000_000_000, 3_000_000_100, 0


@dataclass
class File:
    """fragments: pieces that each fork is cut into on the disk. thread: whether it has a thread record."""

    data: bytes = b""
    resource: bytes = b""
    finder_info: bytes = b"TEXTttxt".ljust(32, b"\0")
    locked: bool = False
    thread: bool = False
    fragments: int = 1
    created: int = CREATED
    modified: int = MODIFIED
    backed_up: int = BACKED_UP
    cnid: int = 0


@dataclass
class Folder:
    """children: by name as text."""

    children: Mapping[str, "File | Folder"] = field(default_factory=dict)
    finder_info: bytes = bytes(32)
    created: int = CREATED
    modified: int = MODIFIED
    backed_up: int = BACKED_UP
    cnid: int = 0


class Image:
    """The volume in `bytes`, and where things are in it, for tests that damage it (all in bytes of the volume)."""

    def __init__(self, root: Folder, name: str = "Built", block_size: int = 512) -> None:
        self._block_size = block_size
        self._next_cnid = 16
        self._blocks = bytearray()
        self._catalog: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        self._extents: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}
        self._files = self._folders = 0
        root.cnid = 2
        self._add_folder(1, name, root)
        catalog = tree([self._catalog[key] for key in sorted(self._catalog)], 37)
        extents = tree([self._extents[key] for key in sorted(self._extents)], 7)
        catalog_at, extents_at = self._place(catalog), self._place(extents)
        total = len(self._blocks) // block_size + 3
        bitmap = -(-total // 4096)
        start = 3 + bitmap
        mdb = struct.pack(
            ">HIIHHHHHIIHIH", 0x4244, CREATED, MODIFIED, 0x100, len(root.children), 3, 0, total, block_size,
            block_size, start, self._next_cnid, 3,
        )  # fmt: skip
        encoded = name.encode("mac_roman")
        mdb += bytes([len(encoded)]) + encoded.ljust(27, b"\0")
        mdb += struct.pack(">IHIIIHII", BACKED_UP, 0, 0, 512, 512, 0, self._files, self._folders)
        mdb += struct.pack(">8I", 0, 0, 0, 0, 0, 0, 0xDEAD, 0xBEEF) + bytes(6)
        for at, content in ((extents_at, extents), (catalog_at, catalog)):
            count = -(-len(content) // block_size)
            mdb += struct.pack(">I6H", count * block_size, at, count, 0, 0, 0, 0)
        self.mdb = mdb.ljust(512, b"\0")
        self.first = start * 512
        body = bytes(self._blocks).ljust(total * block_size, b"\0")
        self.bytes = bytes(1024) + self.mdb + bits(total - 3, bitmap * 512) + body + self.mdb + bytes(512)
        self.catalog = self.first + catalog_at * block_size
        self.extents = self.first + extents_at * block_size

    def _number(self) -> int:
        self._next_cnid += 1
        return self._next_cnid - 1

    def _add_folder(self, parent: int, name: str, folder: Folder) -> None:
        folder.cnid = folder.cnid or self._number()
        self._folders += parent != 1
        record = struct.pack(
            ">bxHHIIII", 1, 0, len(folder.children), folder.cnid, folder.created, folder.modified, folder.backed_up
        )
        self._record(parent, name, record + folder.finder_info + bytes(16))
        self._thread(3, folder.cnid, parent, name)
        for child_name, child in folder.children.items():
            if isinstance(child, Folder):
                self._add_folder(folder.cnid, child_name, child)
            else:
                self._add_file(folder.cnid, child_name, child)

    def _add_file(self, parent: int, name: str, file: File) -> None:
        file.cnid = file.cnid or self._number()
        self._files += 1
        data = self._fork(file.cnid, 0x00, file.data, file.fragments)
        resource = self._fork(file.cnid, 0xFF, file.resource, file.fragments)
        record = struct.pack(">bxBx", 2, 0x81 if file.locked else 0x80) + file.finder_info[:16]
        record += struct.pack(">I", file.cnid)
        for content in (file.data, file.resource):
            record += struct.pack(">HII", 0, len(content), -(-len(content) // self._block_size) * self._block_size)
        record += struct.pack(">III", file.created, file.modified, file.backed_up) + file.finder_info[16:]
        self._record(parent, name, record + bytes(2) + data + resource + bytes(4))
        if file.thread:
            self._thread(4, file.cnid, parent, name)

    def _record(self, parent: int, name: str, data: bytes) -> None:
        encoded = name.encode("mac_roman")
        key = struct.pack(">xIB", parent, len(encoded)) + encoded
        assert (parent, roman.key(encoded)) not in self._catalog, "two names that are one to HFS"
        self._catalog[parent, roman.key(encoded)] = (key, data)

    def _thread(self, kind: int, cnid: int, parent: int, name: str) -> None:
        encoded = name.encode("mac_roman")
        data = struct.pack(">bx8xIB", kind, parent, len(encoded)) + encoded.ljust(31, b"\0")
        self._catalog[cnid, b""] = (struct.pack(">xIB", cnid, 0), data)

    def _place(self, content: bytes) -> int:
        """Appends whole blocks; the number of the first."""
        at = len(self._blocks) // self._block_size
        self._blocks += content.ljust(-(-len(content) // self._block_size) * self._block_size, b"\0")
        return at

    def _fork(self, cnid: int, fork_type: int, content: bytes, fragments: int) -> bytes:
        """Lays the fork out; its first three extents, the others into the overflow tree."""
        blocks = -(-len(content) // self._block_size)
        step = max(1, -(-blocks // fragments))
        extents = []
        for block in range(0, blocks, step):
            part = content[block * self._block_size : (block + step) * self._block_size]
            extents.append((self._place(part), min(step, blocks - block)))
            if fragments > 1:
                self._place(b"\xee" * self._block_size)
        covered = 0
        for number in range(0, len(extents), 3):
            three = extents[number : number + 3]
            if number:
                key = (cnid, fork_type, covered)
                self._extents[key] = (struct.pack(">BIH", fork_type, cnid, covered), extent_record(three))
            covered += sum(count for _, count in three)
        return extent_record(extents[:3])


def extent_record(extents: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack(">HH", *extent) for extent in extents).ljust(12, b"\0")


def tree(records: Sequence[tuple[bytes, bytes]], key_length: int) -> bytes:
    """A B-tree of sorted (key without its length, data): header node, leaves, index levels."""
    rows = [(leaf_key(key) + data, key) for key, data in records]
    nodes: list[bytes] = []
    height = 0
    root = depth = leaves = 0
    while rows and (len(rows) > 1 or not depth):
        height += 1
        first = len(nodes) + 1
        groups = grouped([row for row, _ in rows])
        parents = []
        position = 0
        for number, group in enumerate(groups):
            here = first + number
            flink = here + 1 if number + 1 < len(groups) else 0
            blink = here - 1 if number else 0
            nodes.append(node(flink, blink, -1 if height == 1 else 0, height, group))
            key = rows[position][1]
            index = bytes([key_length]) + key.ljust(key_length, b"\0")
            parents.append((index + bytes(len(index) & 1) + struct.pack(">I", here), key))
            position += len(group)
        if height == 1:
            leaves = len(groups)
        rows = parents
        root, depth = first, height
    header = struct.pack(
        ">HIIIIHHII76x", depth, root, len(records), 1 if leaves else 0, leaves, NODE, key_length, len(nodes) + 1, 0
    )
    return node(0, 0, 1, 0, [header, bytes(128), bits(len(nodes) + 1, 256)]) + b"".join(nodes)


def bits(count: int, size: int) -> bytes:
    """A bitmap of `size` bytes whose first bits are set (as many as fit: readers need no more of a tree's map)."""
    whole = b"\xff" * (count // 8) + bytes([0xFF00 >> count % 8 & 0xFF])
    return whole[:size].ljust(size, b"\0")


def leaf_key(key: bytes) -> bytes:
    return bytes([len(key)]) + key + bytes(~len(key) & 1)


def grouped(rows: Sequence[bytes]) -> list[list[bytes]]:
    """Rows as they fit into nodes."""
    groups: list[list[bytes]] = [[]]
    for row in rows:
        used = 14 + sum(len(other) + 2 for other in groups[-1]) + 2
        if used + len(row) + 2 > NODE:
            groups.append([])
        groups[-1].append(row)
    return groups


def node(flink: int, blink: int, kind: int, height: int, rows: Sequence[bytes]) -> bytes:
    out = bytearray(struct.pack(">IIbBHH", flink, blink, kind, height, len(rows), 0))
    offsets = []
    for row in rows:
        offsets.append(len(out))
        out += row
    offsets.append(len(out))
    table = b"".join(struct.pack(">H", offset) for offset in reversed(offsets))
    return bytes(out).ljust(NODE - len(table), b"\0") + table
