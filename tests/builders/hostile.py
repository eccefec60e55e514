"""Images that want our time or our memory: small files that claim or unfold to much. By name in `HOSTILE`, each a function
of a folder that writes the image there and returns its path.

What each must end in is the business of the tests.
"""

import base64
import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import lzfse

from builders.decmpfs import header as decmpfs_header
from builders.encrypted import PASSPHRASE, Keys, header_v2, passphrase_blob
from builders.hfsplus import ROOT, HfsPlusBuilder, Image
from builders.journal import Journal
from builders.journal import checksum as journal_checksum
from builders.partitions import mbr_disk, mbr_entry, put_mbr
from builders.sparse import info_plist, sparse_image
from builders.udif import Piece, Table, build

MiB = 1 << 20
GOOD = bytes(range(256)) * 16

Maker = Callable[[Path], Path]
HOSTILE: dict[str, Maker] = {}


def hostile(maker: Maker) -> Maker:
    HOSTILE[maker.__name__] = maker
    return maker


def written(folder: Path, data: bytes | bytearray, name: str = "image") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def udif(folder: Path, *pieces: Piece, **how: object) -> Path:
    """The pieces in front of a small volume."""
    volume = bytes(small_volume().data)
    tables = [Table("bad", pieces), Table("good", [Piece("zlib", volume + bytes(-len(volume) % 512))])]
    return written(folder, build(tables, **how).bytes)  # type: ignore[arg-type]


def small_volume() -> Image:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "file", b"data")
    return builder.build()


# -- UDIF ----------------------------------------------------------------------------------------------------------------


@hostile
def udif_list_of_49_mib(folder: Path) -> Path:
    path = udif(folder, Piece("zlib", GOOD))
    trailer = bytearray(path.read_bytes()[-512:])
    struct.pack_into(">QQ", trailer, 216, 0, 49 * MiB)
    with open(path, "wb") as file:
        file.seek(49 * MiB)
        file.write(trailer)
    return path


@hostile
def udif_laughs(folder: Path) -> Path:
    laughs = b'<!ENTITY a "ha">' + b"".join(b'<!ENTITY %c "&%c;&%c;">' % (n, n - 1, n - 1) for n in range(98, 122))
    text = (
        b'<?xml version="1.0"?><!DOCTYPE plist [%s]><plist><dict><key>resource-fork</key><string>&y;</string></dict>'
    )
    return udif(folder, Piece("zlib", GOOD), xml=lambda _: text % laughs + b"</plist>")


@hostile
def udif_nested(folder: Path) -> Path:
    text = (
        b"<?xml version='1.0'?><plist><dict><key>resource-fork</key>" + b"<array>" * 200_000 + b"</array>" * 200_000
    )
    return udif(folder, Piece("zlib", GOOD), xml=lambda _: text + b"</dict></plist>")


LIST = (
    b'<?xml version="1.0"?><plist><dict><key>resource-fork</key>'
    b"<dict><key>blkx</key><array>%s</array></dict></dict></plist>"
)


@hostile
def udif_million_runs(folder: Path) -> Path:
    """As many runs as the largest property list holds, all of them outside the file."""
    count = 840_000
    runs = b"".join(struct.pack(">II4Q", 0x80000005, 0, number, 1, 1 << 40, 10) for number in range(count))
    head = struct.pack(">4sIQQQIi24x136sI", b"mish", 1, 0, count, 0, 0x208, -1, bytes(136), count)
    entry = b"<dict><key>Data</key><data>%s</data></dict>" % base64.b64encode(head + runs)
    return udif(folder, Piece("zlib", GOOD), xml=lambda _: LIST % entry, koly={"SectorCount": count})


@hostile
def udif_tables(folder: Path) -> Path:
    entry = b"<dict><key>Data</key><data>bWlzaA==</data></dict>"
    return udif(folder, Piece("zlib", GOOD), xml=lambda _: LIST % (entry * 500_000))


# Zeros, so many MiB of them. bzip2 and LZFSE allow streams or blocks end to end, which is quick to make.
BOMBS: dict[str, Callable[[int], bytes]] = {
    "zlib": lambda size: zlib.compress(bytes(size * MiB), 1),
    "bzip2": lambda size: bz2.compress(bytes(MiB)) * size,
    "xz": lambda size: lzma.compress(bytes(size * MiB), preset=0),
    "lzfse": lambda size: lzfse.compress(bytes(MiB))[:-4] * size + b"bvx$",
}


def _bomb(codec: str) -> Maker:
    def maker(folder: Path) -> Path:
        return udif(folder, Piece(codec, GOOD, packed=BOMBS[codec](400)))

    return maker


def _largest_chunk(codec: str) -> Maker:
    def maker(folder: Path) -> Path:
        return udif(folder, Piece(codec, bytes(64 * MiB), packed=BOMBS[codec](64)))

    return maker


HOSTILE |= {f"udif_bomb_{codec}": _bomb(codec) for codec in BOMBS}
HOSTILE |= {f"udif_largest_chunk_{codec}": _largest_chunk(codec) for codec in BOMBS}


# -- other containers ----------------------------------------------------------------------------------------------------


@hostile
def sparse_image_of_2_to_the_60(folder: Path) -> Path:
    return written(folder, sparse_image(GOOD, sectors=1 << 51, sectors_low=0xFFFFFFFF))


@hostile
def bundle_of_tiny_bands(folder: Path) -> Path:
    bundle = folder / "image.sparsebundle"
    (bundle / "bands").mkdir(parents=True)
    (bundle / "token").write_bytes(b"")
    (bundle / "Info.plist").write_bytes(info_plist((1 << 63) - 512, 512))
    return bundle


@hostile
def encrypted_slowly(folder: Path) -> Path:
    """Sixty-four keys of 2^32 rounds each."""
    keys = Keys()
    blobs = [(1, passphrase_blob(keys, PASSPHRASE, claimed_iterations=0xFFFFFFFF))] * 64
    return written(folder, header_v2(keys, 512, blobs, offset=1 << 17) + bytes(512))


@hostile
def encrypted_as_slowly_as_allowed(folder: Path) -> Path:
    keys = Keys()
    return written(
        folder,
        header_v2(keys, 512, [(1, passphrase_blob(keys, b"another", claimed_iterations=2_000_000))]) + bytes(512),
    )


@hostile
def mbr_in_circles(folder: Path) -> Path:
    disk = mbr_disk([mbr_entry(5, 8, 1000)], 1 * MiB)
    for sector in (8, 16):
        put_mbr(disk, sector, [mbr_entry(0xAF, 4, 4), mbr_entry(5, 24 - sector - 8, 8)])
    return written(folder, disk)


# -- HFS+ ----------------------------------------------------------------------------------------------------------------


@hostile
def file_of_2_to_the_62(folder: Path) -> Path:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "file", data_fork=struct.pack(">QII", 1 << 62, 0, 1) + struct.pack(">II", 3, 1) + bytes(56))
    return written(folder, builder.build().data)


@hostile
def link_of_2_to_the_40(folder: Path) -> Path:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "file", mode=0o120755, data_fork=struct.pack(">QII", 1 << 40, 0, 1) + bytes(64))
    return written(folder, builder.build().data)


@hostile
def packed_file_of_2_to_the_62(folder: Path) -> Path:
    builder = HfsPlusBuilder()
    value = decmpfs_header(8, 1 << 62)
    builder.file(ROOT, "file", flags=0x20, resource=bytes(4096), attributes={"com.apple.decmpfs": value})
    return written(folder, builder.build().data)


@hostile
def leaves_in_a_circle(folder: Path) -> Path:
    image = _wide(1000)
    first = image.catalog.node(1)
    image.patch(image.catalog.node(2), ">I", 1)
    assert image.get(first, ">I") == 2
    return written(folder, image.data)


@hostile
def index_into_itself(folder: Path) -> Path:
    image = _wide(1000)
    root = image.get(image.catalog.node(0) + 14 + 2, ">I")
    for index in range(image.get(image.catalog.node(root) + 10, ">H")):
        at = image.record(image.catalog, root, index + 1) - 4
        image.patch(at, ">I", root)
    return written(folder, image.data)


@hostile
def many_names(folder: Path) -> Path:
    return written(folder, _wide(20_000).data)


@hostile
def deep_folders(folder: Path) -> Path:
    builder = HfsPlusBuilder()
    parent = ROOT
    for _ in range(1500):
        parent = builder.folder(parent, "d")
    return written(folder, builder.build().data)


@hostile
def folder_in_itself(folder: Path) -> Path:
    builder = HfsPlusBuilder()
    outer = builder.folder(ROOT, "file")
    for number in range(30):
        builder.folder(outer, f"{number}", cnid=outer, thread=False)
    return written(folder, builder.build().data)


@hostile
def many_attributes(folder: Path) -> Path:
    builder = HfsPlusBuilder(attributes_node_size=8192)
    cnid = builder.file(ROOT, "file")
    for number in range(30_000):
        builder.attribute(cnid, f"{number:06}", b"")
    return written(folder, builder.build().data)


def _wide(files: int) -> Image:
    builder = HfsPlusBuilder(with_attributes=False)
    for number in range(files):
        builder.file(ROOT, f"file {number:05}", thread=False)
    return builder.build()


# -- journal -------------------------------------------------------------------------------------------------------------


def _journaled(folder: Path, size: int, lists: list[tuple[int, bytes]], used: int, blhdr_size: int) -> Path:
    """A volume with a journal of `size` bytes at its end, in which block lists stand at given places and `used`
    bytes wait."""
    builder = HfsPlusBuilder(attributes=0x2100)
    builder.file(ROOT, "file", b"data")
    image = builder.build(spare_blocks=size // 512 + 16)
    first = len(image.data) // 512 - size // 512 - 4
    offset = (first + 1) * 512
    Journal(offset, size, [], blhdr_size=blhdr_size).write(image.data, first * 512)
    Journal(offset, size, [], blhdr_size=blhdr_size).write_header(image.data, 512, 512 + used)
    for position, head in lists:
        image.data[offset + 512 + position : offset + 512 + position + len(head)] = head
    for header in (1024, len(image.data) - 1024):
        image.patch(header + 12, ">I", first)
    return written(folder, image.data)


def _block_list(sizes: list[int], used: int) -> bytes:
    """A list of blocks that all belong to sector 0, whose checksums are all wrong."""
    infos = struct.pack("<QII", 0, 0, 0) + b"".join(struct.pack("<QII", 0, size, 0) for size in sizes)
    head = struct.pack("<HHIII", 0xFFFF, len(sizes) + 1, used, 0, 3) + infos
    return head[:8] + struct.pack("<I", journal_checksum(head[:32])) + head[12:]


def _journal_of(blocks: int, size: int) -> Maker:
    def maker(folder: Path) -> Path:
        used = MiB + blocks * size
        return _journaled(folder, used + 2 * MiB, [(0, _block_list([size] * blocks, used))], used, MiB)

    return maker


HOSTILE |= {
    "journal_of_small_blocks": _journal_of(60_000, 512),
    "journal_of_pages": _journal_of(7900, 4096),
    "journal_of_large_blocks": _journal_of(31, MiB),
    "journal_beyond_the_bound": _journal_of(200, MiB),
}


@hostile
def journal_of_empty_transactions(folder: Path) -> Path:
    count = 60_000
    head = _block_list([], 512)
    return _journaled(folder, 40 * MiB, [(512 * at, head) for at in range(count)], 512 * count, 512)
