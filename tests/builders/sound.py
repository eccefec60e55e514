"""HFS+ volumes that are complete: with allocation bitmap, B-tree maps and counts, so that fsck.hfsplus finds nothing to
complain of. `HfsPlusBuilder` alone leaves out what no reader needs; here it is added after the fact.

    volume = SoundBuilder()
    volume.file(ROOT, "many", data, extent_blocks=1)
    image = volume.build()

Trees have nodes of one block, and everything must fit a bitmap of one block (128 MiB) and a map of one header node.
"""

import struct

from builders.hfsplus import (
    CREATED,
    PRIVATE,
    PRIVATE_FOLDERS,
    ROOT,
    HfsPlusBuilder,
    Image,
    Tree,
    _Contents,
    fork_data,
)

BLOCK = 4096
CLUMP = BLOCK
"""What the volume's forks, and the attributes tree, would grow by."""

HAS_ATTRIBUTES = 4
HAS_LINK_CHAIN = 0x20
HAS_CHILD_LINK = 0x40
IMMUTABLE = 2
ALIAS = b"\x80\0"
HEADER_RECORDS = 14 + 106 + 128
"""Where the map of a header node begins."""


class SoundBuilder(HfsPlusBuilder):
    def __init__(self, **more: object) -> None:
        sizes = dict.fromkeys(("catalog_node_size", "extents_node_size", "attributes_node_size"), BLOCK)
        super().__init__(block_size=BLOCK, **sizes, **more)  # type: ignore[arg-type]
        self.link_parents: set[int] = set()

    # -- hard links as macOS and the Linux driver make them: the reference is the number of the inode ------------------

    def linked_file(self, data: bytes, links: int) -> int:
        """The file behind `links` file hard links. Returns the reference."""
        reference = self.next_cnid if PRIVATE in self.private else self.next_cnid + 1
        return self.inode(reference, data, links, uid=0, gid=0)  # others would be taken for the ends of a chain

    def file_link(self, parent: int, name: str, reference: int, created: int = CREATED) -> int:
        """Without the chain of links, as before OS X 10.5 and on Linux."""
        finder = b"hlnkhfs+" + bytes(24)
        return self.file(
            parent, name, mode=0o100444, uid=0, gid=0, special=reference, dates=(created,) * 5, finder=finder
        )

    def linked_folder_of(self, *links: tuple[int, str]) -> int:
        """A folder with these (parent, name). Returns its number."""
        if PRIVATE_FOLDERS not in self.private:
            self.private[PRIVATE_FOLDERS] = self.folder(
                ROOT, PRIVATE_FOLDERS, mode=0o41555, finder=bytes(8) + b"\x50\0" + bytes(22), flags=IMMUTABLE
            )
        number = self.next_cnid
        self.folder(self.private[PRIVATE_FOLDERS], f"dir_{number}", record_flags=HAS_LINK_CHAIN, special=len(links))
        self.link_parents |= {parent for parent, _ in links}
        numbers = [number + 1 + index for index in range(len(links))]
        self.attribute(number, "com.apple.system.hfs.firstlink", b"%d\0" % numbers[0])
        for index, (parent, name) in enumerate(links):
            before, after = [0, *numbers][index], [*numbers, 0][index + 1]
            self.file(
                parent, name, mode=0o100444, record_flags=HAS_LINK_CHAIN | 2, special=number, flags=IMMUTABLE,
                uid=before, gid=after, finder=b"fdrpMACS" + ALIAS + bytes(22), resource=b"",
            )  # fmt: skip
        return number

    def build(self, *, spare_blocks: int = 4) -> Image:
        self._count()
        place = self.place(_Contents(bytes(BLOCK), None))
        image = super().build(spare_blocks=spare_blocks)
        total = len(image.data) // BLOCK
        used = {0, total - 1, *self.blocks}
        bitmap = bits(used, BLOCK)
        start = place[0][0] * BLOCK
        image.data[start : start + BLOCK] = bitmap
        for header in (image.header, len(image.data) - 1024):
            image.patch(header + 48, ">I", total - len(used))
            image.patch(header + 56, ">II", CLUMP, CLUMP)
            image.patch(header + 360, ">I", CLUMP)
            image.data[header + 112 : header + 192] = fork_data(BLOCK, 1, place)
        for tree in (image.catalog, image.extents, image.attributes):
            if tree is not None:
                self._map(image, tree)
        return image

    def _count(self) -> None:
        """Children of each folder, which objects have attributes and which folders have folder links below."""
        children: dict[int, int] = {}
        for (parent, _), (_, record) in self.catalog:
            if record[:2] in (b"\0\1", b"\0\2"):
                children[parent] = children.get(parent, 0) + 1
        parents = {
            struct.unpack_from(">I", record, 8)[0]: parent
            for (parent, _), (_, record) in self.catalog
            if record[:2] == b"\0\1"
        }
        above_links = set()
        for folder in self.link_parents:
            while folder != ROOT:
                above_links.add(folder)
                folder = parents[folder]
        with_attributes = {cnid for (cnid, _, _), _ in self.attribute_records}
        for index, (place, (key, record)) in enumerate(self.catalog):
            if record[:2] not in (b"\0\1", b"\0\2"):
                continue
            changed = bytearray(record)
            flags, count, cnid = struct.unpack_from(">HII", record, 2)
            flags |= HAS_ATTRIBUTES if cnid in with_attributes else 0
            flags |= HAS_CHILD_LINK if cnid in above_links and record[:2] == b"\0\1" else 0
            count = children.get(cnid, 0) if record[:2] == b"\0\1" else count
            struct.pack_into(">HI", changed, 2, flags, count)
            self.catalog[index] = (place, (key, bytes(changed)))

    def _map(self, image: Image, tree: Tree) -> None:
        nodes = image.nodes(tree)
        room = BLOCK - HEADER_RECORDS - 8
        assert nodes <= 8 * room, "the tree needs a map node"
        at = tree.node(0) + HEADER_RECORDS
        image.data[at : at + room] = bits(set(range(nodes)), room)


def bits(numbers: set[int], size: int) -> bytes:
    """A bitmap of `size` bytes, the highest bit of the first byte for 0."""
    made = bytearray(size)
    for number in numbers:
        made[number // 8] |= 0x80 >> number % 8
    return bytes(made)
