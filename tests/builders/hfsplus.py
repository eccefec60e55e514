"""Small HFS+ and HFSX volumes made of Python values, sound by default and easy to damage.

    volume = HfsPlusBuilder(block_size=512, catalog_node_size=1024)
    folder = volume.folder(ROOT, "Documents")
    volume.file(folder, "letter", b"Dear", attributes={"com.example": b"1"})
    image = volume.build()
    image.patch(image.catalog.node(1) + 8, ">b", 5)       # damage: any place of any node is known

`raw(parent, name, record)` adds a catalog record as it is, `thread=False` leaves threads out, `extent_blocks=1` spreads a
fork over extents of one block (nine and more of them need the overflow tree), `records_per_node` makes deep trees of few
records. Written from TN1150, not from the parser; only the order of names is taken from `dmgfs.hfsplus.unicode`, which
the real images of the corpus check.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from dmgfs.hfsplus.unicode import decompose, exact, fold

ROOT = 2
EPOCH = 2082844800
CREATED = EPOCH + 1_000_000_000
PRIVATE = "\0\0\0\0HFS+ Private Data"
PRIVATE_FOLDERS = ".HFS+ Private Directory Data\r"

Extent = tuple[int, int]
Record = tuple[bytes, bytes]
"""Key with its length field, and data."""


def name_bytes(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def catalog_key(parent: int, name: str) -> bytes:
    encoded = name_bytes(name)
    return struct.pack(">HIH", 6 + len(encoded), parent, len(encoded) // 2) + encoded


def thread_record(kind: int, parent: int, name: str) -> bytes:
    encoded = name_bytes(name)
    return struct.pack(">hhIH", kind, 0, parent, len(encoded) // 2) + encoded


def fork_data(size: int, blocks: int, extents: Sequence[Extent]) -> bytes:
    padded = [*extents[:8], *[(0, 0)] * (8 - len(extents[:8]))]
    return struct.pack(">QII", size, 0, blocks) + b"".join(struct.pack(">II", *extent) for extent in padded)


def bsd_info(uid: int, gid: int, flags: int, mode: int, special: int) -> bytes:
    return struct.pack(">IIBBHI", uid, gid, flags >> 16 & 0xFF, flags & 0xFF, mode, special)


@dataclass
class Tree:
    """A tree on the volume: where its fork lies. node(n) is the byte offset of node n in the image."""

    node_size: int
    block_size: int
    extents: list[Extent]

    def offset(self, position: int) -> int:
        block, rest = divmod(position, self.block_size)
        for start, count in self.extents:
            if block < count:
                return (start + block) * self.block_size + rest
            block -= count
        raise IndexError(position)

    def node(self, number: int) -> int:
        return self.offset(number * self.node_size)


@dataclass
class Image:
    """A finished volume: bytes to damage and to read."""

    data: bytearray
    block_size: int
    catalog: Tree
    extents: Tree
    attributes: Tree | None
    header: int = 1024

    def patch(self, offset: int, form: str, *values: object) -> "Image":
        struct.pack_into(form, self.data, offset, *values)
        return self

    def get(self, offset: int, form: str) -> int:
        value: int = struct.unpack_from(form, self.data, offset)[0]
        return value

    def record(self, tree: Tree, node: int, index: int) -> int:
        """Byte offset in the image of record `index` of node `node` (of a tree in one piece)."""
        start = tree.node(node)
        return start + self.get(start + tree.node_size - 2 * (index + 1), ">H")

    def nodes(self, tree: Tree) -> int:
        return self.get(tree.node(0) + 14 + 22, ">I")


def build_tree(
    records: Sequence[Record],
    node_size: int,
    *,
    max_key_length: int,
    attributes: int,
    key_compare: int = 0,
    records_per_node: int | None = None,
    spare_nodes: int = 0,
) -> bytes:
    """A B-tree of records that are in order already. Leaves come first (node 1 on), then each index level, the root last.
    attributes bit 4 clear: index keys take max_key_length bytes."""
    nodes: list[bytes] = []

    def pack(kind: int, height: int, rows: Sequence[bytes]) -> bytes:
        body = b"".join(rows)
        offsets = [14]
        for row in rows:
            offsets.append(offsets[-1] + len(row))
        table = b"".join(struct.pack(">H", offset) for offset in reversed(offsets))
        free = node_size - 14 - len(body) - len(table)
        assert free >= 0, "the rows do not fit"
        return struct.pack(">IIbBHH", 0, 0, kind, height, len(rows), 0) + body + bytes(free) + table

    def level(kind: int, height: int, rows: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, int]]:
        """Packs the rows into nodes; gives each node's first key and number."""
        groups: list[list[tuple[bytes, bytes]]] = []
        room = 0
        for key, row in rows:
            need = len(row) + 2
            if not groups or need > room or (records_per_node and len(groups[-1]) >= max(records_per_node, 2)):
                groups.append([])
                room = node_size - 16
            groups[-1].append((key, row))
            room -= need
        first = len(nodes) + 1
        for position, group in enumerate(groups):
            node = bytearray(pack(kind, height, [row for _, row in group]))
            flink = first + position + 1 if position + 1 < len(groups) else 0
            struct.pack_into(">II", node, 0, flink, first + position - 1 if position else 0)
            nodes.append(bytes(node))
        return [(group[0][0], first + position) for position, group in enumerate(groups)]

    depth = root = last_leaf = 0
    if records:
        tops = level(-1, 1, [(key, key + data + bytes(len(key + data) & 1)) for key, data in records])
        depth, last_leaf = 1, len(nodes)
        while len(tops) > 1:
            depth += 1
            rows = []
            for key, number in tops:
                stored = key if attributes & 4 else key.ljust(2 + max_key_length, b"\0")
                rows.append((key, stored + struct.pack(">I", number)))
            tops = level(0, depth, rows)
        root = tops[0][1]
    total = len(nodes) + 1 + spare_nodes
    header = struct.pack(
        ">HIIIIHHIIHIBBI64x",
        depth,
        root,
        len(records),
        1 if records else 0,
        last_leaf,
        node_size,
        max_key_length,
        total,
        spare_nodes,
        0,
        0,
        0,
        key_compare,
        attributes,
    )
    bitmap = bytes(node_size - 14 - 106 - 128 - 8)
    first = pack(1, 0, [header, bytes(128), bitmap])
    return first + b"".join(nodes) + bytes(spare_nodes * node_size)


@dataclass
class _Contents:
    """A fork to be placed: at most `extent_blocks` blocks per extent, with a gap of one block after each."""

    data: bytes
    extent_blocks: int | None
    extents: list[Extent] = field(default_factory=list)


class HfsPlusBuilder:
    """See the module. hfsx, binary: kind of the volume and whether it tells case apart. *_node_size, records_per_node:
    shape of the trees. catalog_extent_blocks: fragments the catalog itself."""

    def __init__(
        self,
        *,
        name: str = "Test",
        hfsx: bool = False,
        binary: bool = False,
        block_size: int = 512,
        catalog_node_size: int = 4096,
        extents_node_size: int = 1024,
        attributes_node_size: int = 4096,
        records_per_node: int | None = None,
        catalog_extent_blocks: int | None = None,
        attributes_extent_blocks: int | None = None,
        attributes: int = 0x100,
        with_attributes: bool = True,
        key_compare: int | None = None,
    ) -> None:
        self.block_size = block_size
        self.hfsx = hfsx
        self.sort_name = exact if binary else fold
        self.key_compare = key_compare if key_compare is not None else 0xBC if binary else 0xCF
        self.catalog_node_size = catalog_node_size
        self.extents_node_size = extents_node_size
        self.attributes_node_size = attributes_node_size
        self.records_per_node = records_per_node
        self.catalog_extent_blocks = catalog_extent_blocks
        self.attributes_extent_blocks = attributes_extent_blocks
        self.volume_attributes = attributes
        self.with_attributes = with_attributes
        self.next_cnid = 16
        self.catalog: list[tuple[tuple[int, bytes], Record]] = []
        self.attribute_records: list[tuple[tuple[int, bytes, int], Record]] = []
        self.extent_records: list[tuple[tuple[int, int, int], Record]] = []
        self.blocks: dict[int, bytes] = {}
        self.next_block = -(-1536 // block_size)
        self.private: dict[str, int] = {}
        self.folder(1, name, cnid=ROOT)

    # -- space ---------------------------------------------------------------------------------------------------------

    def place(self, contents: _Contents) -> list[Extent]:
        """Writes the contents somewhere and says where."""
        blocks = -(-len(contents.data) // self.block_size)
        step = contents.extent_blocks or max(blocks, 1)
        for done in range(0, blocks, step):
            count = min(step, blocks - done)
            contents.extents.append((self.next_block, count))
            for block in range(count):
                at = (done + block) * self.block_size
                self.blocks[self.next_block + block] = contents.data[at : at + self.block_size]
            self.next_block += count + (1 if contents.extent_blocks else 0)
        return contents.extents

    def fork(self, data: bytes, cnid: int, fork_type: int, extent_blocks: int | None = None) -> bytes:
        """ForkData of `data`, placed; extents beyond the eighth go to the overflow tree."""
        extents = self.place(_Contents(data, extent_blocks))
        covered = sum(count for _, count in extents[:8])
        for start in range(8, len(extents), 8):
            part = extents[start : start + 8]
            self.overflow(cnid, fork_type, covered, part)
            covered += sum(count for _, count in part)
        return fork_data(len(data), -(-len(data) // self.block_size), extents)

    def overflow(self, cnid: int, fork_type: int, covered: int, extents: Sequence[Extent]) -> None:
        """A record of the extents tree."""
        padded = [*extents, *[(0, 0)] * (8 - len(extents))]
        key = struct.pack(">HBBII", 10, fork_type, 0, cnid, covered)
        data = b"".join(struct.pack(">II", *extent) for extent in padded)
        self.extent_records.append(((cnid, fork_type, covered), (key, data)))

    # -- catalog -------------------------------------------------------------------------------------------------------

    def raw(self, parent: int, name: str, record: bytes) -> None:
        """A catalog record as it is. `name` is stored as given."""
        key = (parent, self.sort_name(name_bytes(name)))
        self.catalog.append((key, (catalog_key(parent, name), record)))

    def number(self, cnid: int | None) -> int:
        if cnid is None:
            cnid = self.next_cnid
        self.next_cnid = max(self.next_cnid, cnid + 1)
        return cnid

    def folder(
        self,
        parent: int,
        name: str,
        *,
        cnid: int | None = None,
        mode: int = 0o40755,
        uid: int = 501,
        gid: int = 20,
        flags: int = 0,
        record_flags: int = 0,
        special: int = 0,
        folders: int = 0,
        valence: int = 0,
        dates: Sequence[int] = (CREATED,) * 5,
        finder: bytes = bytes(32),
        thread: bool = True,
        stored: bool = False,
    ) -> int:
        cnid = self.number(cnid)
        name = name if stored else decompose(name)
        record = struct.pack(">hHII5I", 1, record_flags, valence, cnid, *dates)
        self.raw(
            parent, name, record + bsd_info(uid, gid, flags, mode, special) + finder + struct.pack(">II", 0, folders)
        )
        if thread:
            self.raw(cnid, "", thread_record(3, parent, name))
        return cnid

    def file(
        self,
        parent: int,
        name: str,
        data: bytes = b"",
        *,
        resource: bytes = b"",
        cnid: int | None = None,
        mode: int = 0o100644,
        uid: int = 501,
        gid: int = 20,
        flags: int = 0,
        record_flags: int = 2,
        special: int = 0,
        dates: Sequence[int] = (CREATED,) * 5,
        finder: bytes = bytes(32),
        thread: bool = True,
        extent_blocks: int | None = None,
        attributes: dict[str, bytes] | None = None,
        data_fork: bytes | None = None,
        stored: bool = False,
    ) -> int:
        """data_fork: 80 bytes of ForkData instead of `data`. stored: the name is not decomposed first."""
        cnid = self.number(cnid)
        name = name if stored else decompose(name)
        record = struct.pack(">hHII5I", 2, record_flags, 0, cnid, *dates)
        record += bsd_info(uid, gid, flags, mode, special) + finder + bytes(8)
        record += self.fork(data, cnid, 0, extent_blocks) if data_fork is None else data_fork
        record += self.fork(resource, cnid, 0xFF, extent_blocks)
        self.raw(parent, name, record)
        if thread:
            self.raw(cnid, "", thread_record(4, parent, name))
        for attribute, value in (attributes or {}).items():
            self.attribute(cnid, attribute, value)
        return cnid

    def symlink(self, parent: int, name: str, target: bytes) -> int:
        return self.file(parent, name, target, mode=0o120755, finder=b"slnkrhap" + bytes(24))

    def private_folder(self, name: str = PRIVATE) -> int:
        if name not in self.private:
            self.private[name] = self.folder(ROOT, name, mode=0o40000)
        return self.private[name]

    def inode(self, reference: int, data: bytes, links: int, **more: object) -> int:
        """The file behind file hard links."""
        return self.file(self.private_folder(), f"iNode{reference}", data, special=links, **more)  # type: ignore[arg-type]

    def file_link(self, parent: int, name: str, reference: int, created: int = CREATED) -> int:
        dates = (created,) * 5
        finder = b"hlnkhfs+" + bytes(24)
        return self.file(
            parent, name, mode=0o100444, record_flags=0x22, special=reference, dates=dates, finder=finder
        )

    def linked_folder(self, reference: int) -> int:
        """The folder behind folder hard links."""
        return self.folder(self.private_folder(PRIVATE_FOLDERS), f"dir_{reference}")

    def folder_link(
        self, parent: int, name: str, reference: int, created: int = CREATED, record_flags: int = 0x22
    ) -> int:
        dates = (created,) * 5
        finder = b"fdrpMACS" + bytes(24)
        return self.file(
            parent, name, mode=0o100444, record_flags=record_flags, special=reference, dates=dates, finder=finder
        )

    # -- attributes ----------------------------------------------------------------------------------------------------

    def raw_attribute(self, cnid: int, name: str, start_block: int, record: bytes) -> None:
        encoded = name_bytes(name)
        key = struct.pack(">HHIIH", 12 + len(encoded), 0, cnid, start_block, len(encoded) // 2) + encoded
        self.attribute_records.append(((cnid, encoded, start_block), (key, record)))

    def attribute(
        self, cnid: int, name: str, value: bytes, *, as_fork: bool = False, extent_blocks: int | None = None
    ) -> None:
        """Inline, or with a fork of its own; extents beyond the eighth go to records of type 0x30."""
        if not as_fork:
            self.raw_attribute(cnid, name, 0, struct.pack(">IIII", 0x10, 0, 0, len(value)) + value)
            return
        extents = self.place(_Contents(value, extent_blocks))
        fork = fork_data(len(value), -(-len(value) // self.block_size), extents)
        self.raw_attribute(cnid, name, 0, struct.pack(">II", 0x20, 0) + fork)
        covered = sum(count for _, count in extents[:8])
        for start in range(8, len(extents), 8):
            part = [*extents[start : start + 8], *[(0, 0)] * 8][:8]
            data = b"".join(struct.pack(">II", *extent) for extent in part)
            self.raw_attribute(cnid, name, covered, struct.pack(">II", 0x30, 0) + data)
            covered += sum(count for _, count in part)

    # -- the volume ----------------------------------------------------------------------------------------------------

    def build(self, *, spare_blocks: int = 4) -> Image:
        catalog = build_tree(
            [record for _, record in sorted(self.catalog)],
            self.catalog_node_size,
            max_key_length=516,
            attributes=6,
            key_compare=self.key_compare,
            records_per_node=self.records_per_node,
        )
        catalog_place = _Contents(catalog, self.catalog_extent_blocks)
        catalog_fork = self._special(catalog_place, 4)
        attributes_fork, attributes_place = bytes(80), None
        if self.with_attributes:
            tree = build_tree(
                [record for _, record in sorted(self.attribute_records)],
                self.attributes_node_size,
                max_key_length=266,
                attributes=6,
                records_per_node=self.records_per_node,
            )
            attributes_place = _Contents(tree, self.attributes_extent_blocks)
            attributes_fork = self._special(attributes_place, 8)
        extents = build_tree(
            [record for _, record in sorted(self.extent_records)],
            self.extents_node_size,
            max_key_length=10,
            attributes=2,
            records_per_node=self.records_per_node,
        )
        extents_place = _Contents(extents, None)
        extents_fork = self._special(extents_place, 3)
        total = self.next_block + spare_blocks + -(-1024 // self.block_size)
        header = struct.pack(
            ">HHI4sI4I2IIIIIIIII Q 8I".replace(" ", ""),
            0x4858 if self.hfsx else 0x482B,
            5 if self.hfsx else 4,
            self.volume_attributes,
            b"10.0",
            0,
            CREATED,
            CREATED + 1,
            0,
            CREATED + 2,
            sum(1 for _, (_, record) in self.catalog if record[:2] == b"\0\2"),
            sum(1 for _, (_, record) in self.catalog if record[:2] == b"\0\1") - 1,
            self.block_size,
            total,
            spare_blocks,
            0,
            0,
            0,
            self.next_cnid,
            0,
            1,
            *(0, 0, 0, 0, 0, 0, 0x01234567, 0x89ABCDEF),
        )
        header += bytes(80) + extents_fork + catalog_fork + attributes_fork + bytes(80)
        assert len(header) == 512
        data = bytearray(total * self.block_size)
        for block, contents in self.blocks.items():
            data[block * self.block_size : block * self.block_size + len(contents)] = contents
        data[1024:1536] = header
        data[-1024:-512] = header
        return Image(
            data,
            self.block_size,
            Tree(self.catalog_node_size, self.block_size, catalog_place.extents),
            Tree(self.extents_node_size, self.block_size, extents_place.extents),
            attributes_place and Tree(self.attributes_node_size, self.block_size, attributes_place.extents),
        )

    def _special(self, contents: _Contents, cnid: int) -> bytes:
        extents = self.place(contents)
        covered = sum(count for _, count in extents[:8])
        for start in range(8, len(extents), 8):
            part = extents[start : start + 8]
            self.overflow(cnid, 0, covered, part)
            covered += sum(count for _, count in part)
        blocks = sum(count for _, count in extents)
        return fork_data(len(contents.data), blocks, extents)


def wrap(volume: bytes, *, allocation_block: int = 1024, start: int = 20) -> bytearray:
    """An HFS wrapper around an HFS+ volume. start: sector of its first allocation block."""
    count = -(-len(volume) // allocation_block)
    data = bytearray(start * 512 + (count + 2) * allocation_block + 1024)
    struct.pack_into(">H", data, 1024, 0x4244)
    struct.pack_into(">I", data, 1024 + 20, allocation_block)
    struct.pack_into(">H", data, 1024 + 28, start)
    struct.pack_into(">HHH", data, 1024 + 124, 0x482B, 2, count)
    at = start * 512 + 2 * allocation_block
    data[at : at + len(volume)] = volume
    return data
