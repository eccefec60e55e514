"""dmgfs newfs: an empty HFS+ or HFSX volume in a file, with the options of newfs_hfs(8). `--size` makes the file; without
it the volume fills the file that is there, of which only what the volume needs is written.

A file that holds anything is left alone unless --force says otherwise. Exit codes besides the usual: 65 where the options
do not go together with the size, 73 where the file may not be written.
"""

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from dmgfs.cli.report import print_json, printable

if TYPE_CHECKING:
    from dmgfs.hfsplus_writer.inventory import Inventory
    from dmgfs.hfsplus_writer.volume import NewVolume, Settings

SUMMARY = "make an empty volume in a file"

USAGE, CANNOT_CREATE = 64, 73
SMALL = 1 << 30
"""Bytes; a smaller volume has a catalog of smaller nodes."""

SHARE = 128
"""Each tree gets so much of the volume, within bounds."""

LEAST_TREE, MOST_TREE = 32 << 10, 64 << 20
_BLOCK = 1 << 20
SECTOR, HEADER = 512, 1024


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="FILE")
    parser.add_argument("--size", metavar="SIZE", help="make the file, so large; 512K is the least")
    parser.add_argument("--force", action="store_true", help="overwrite a file that holds something")
    parser.add_argument("-N", dest="only_say", action="store_true", help="write nothing, say what would be made")
    parser.add_argument(
        "-s", dest="case_sensitive", action="store_true", help="tell upper and lower case apart: HFSX"
    )
    parser.add_argument("-v", dest="name", default="untitled", help="name of the volume (default: untitled)")
    parser.add_argument(
        "-b", dest="block", metavar="SIZE", default="4096", help="of an allocation block (default 4096)"
    )
    parser.add_argument(
        "-J", dest="journal", metavar="SIZE", nargs="?", const="", help="with a journal (512K, from 128M on 8M)"
    )
    parser.add_argument("-U", dest="uid", metavar="UID", default=str(os.getuid()), help="owner of the root folder")
    parser.add_argument("-G", dest="gid", metavar="GID", default=str(os.getgid()), help="its group")
    parser.add_argument("-M", dest="mode", metavar="MODE", default="755", help="its permissions, octal (default 755)")
    parser.add_argument("-i", dest="first", metavar="N", type=int, default=16, help="number of the first object (16)")
    parser.add_argument(
        "-c", dest="clumps", metavar="LIST", default="", help="a=,c=,e=: blocks of attributes, catalog, extents tree;"
        " d=,r=: what forks of data and resources grow by"
    )  # fmt: skip
    parser.add_argument("-n", dest="nodes", metavar="LIST", default="", help="a=,c=,e=: bytes of their nodes")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.options import WrongUsage
    from dmgfs.hfsplus_writer.inventory import Inventory

    try:
        size = _size_of(args)
        settings = _settings(args, size)
        inventory = Inventory(case_sensitive=args.case_sensitive, first_number=args.first)
        try:
            volume = _volume(args, inventory, settings)
            if not args.only_say:
                _write(args, volume, size)
        finally:
            inventory.close()
    except WrongUsage as error:
        return _refuse(args.image, str(error), USAGE)
    except FileExistsError as error:
        return _refuse(args.image, f"{error.strerror}", CANNOT_CREATE)
    _report(args, volume, settings)
    return 0


def _volume(args: argparse.Namespace, inventory: "Inventory", settings: "Settings") -> "NewVolume":
    from dmgfs.cli.options import identity, octal
    from dmgfs.gathering.translation import Left, disk_name
    from dmgfs.hfsplus_writer.inventory import Item
    from dmgfs.hfsplus_writer.volume import write_volume

    name = disk_name(os.fsencode(args.name), Left())
    if isinstance(name, str) or "/" in args.name:
        raise _wrong(f"-v {args.name}: cannot be the name of a volume")
    mode = _converted("-M", args.mode, octal, "write permissions in octal, from 0 to 777")
    wanted = "write a number from 0 to 4294967295"
    uid, gid = _converted("-U", args.uid, identity, wanted), _converted("-G", args.gid, identity, wanted)
    inventory.root(name, Item(0, b"", stat.S_IFDIR | mode, uid, gid, settings.created))
    return write_volume(inventory, _NoContents(), settings)


class _NoContents:
    def read(self, source: object, offset: int, length: int) -> bytes:
        raise AssertionError("an empty volume has no contents")


def _settings(args: argparse.Namespace, size: int) -> "Settings":
    from dmgfs.cli.create import epoch
    from dmgfs.cli.options import parse_size
    from dmgfs.hfsplus_writer.volume import Settings

    block = _converted("-b", args.block, parse_size)
    if block & block - 1 or not 512 <= block <= 1 << 26:
        raise _wrong(f"-b {args.block}: a block is a power of two from 512 on")
    nodes = {"a": 8192, "c": 8192 if size >= SMALL else 4096, "e": 4096} | _list("-n", args.nodes, "ace")
    if (
        any(node & node - 1 or not 512 <= node <= 32768 for node in nodes.values())
        or min(nodes["c"], nodes["a"]) < 4096
    ):
        raise _wrong(
            f"-n {args.nodes}: nodes are powers of two up to 32768; those of catalog and attributes from 4096 on"
        )
    share = min(max(size // SHARE, LEAST_TREE), MOST_TREE)
    told = _list("-c", args.clumps, "acedr")
    clumps = dict.fromkeys("ace", share) | {letter: blocks * block for letter, blocks in told.items()}
    for letter in sorted(told.keys() & set("dr")):
        if clumps[letter] >= 1 << 32:
            raise _wrong(f"-c {args.clumps}: {letter}={told[letter]} blocks are 4 GiB or more")
    if args.first < 16 or args.first >= 1 << 31:
        raise _wrong(f"-i {args.first}: numbers begin at 16 and end at {(1 << 31) - 1}")
    journal = 0 if args.journal is None else _converted("-J", args.journal, parse_size) if args.journal else None
    if journal is not None and journal % 512 + (0 < journal < 512 << 10):
        raise _wrong(f"-J {args.journal}: a journal has 512K at least, in whole sectors")
    return Settings(
        hfsx=args.case_sensitive,
        created=epoch()[0],
        size=size,
        journal=journal,
        block_size=block,
        catalog_node=nodes["c"],
        attributes_node=nodes["a"],
        extents_node=nodes["e"],
        catalog_bytes=clumps["c"],
        attributes_bytes=clumps["a"],
        extents_bytes=clumps["e"],
        data_clump=clumps.get("d", max(block, 64 << 10)),
        resource_clump=clumps.get("r", max(block, 64 << 10)),
    )


def _list(option: str, text: str, letters: str) -> dict[str, int]:
    """ "c=8192,e=4096" as numbers. Raises WrongUsage."""
    found = {}
    for part in filter(None, text.split(",")):
        letter, _, number = part.partition("=")
        if letter not in letters or len(letter) != 1 or not number.isdecimal() or int(number) == 0:
            raise _wrong(f"{option} {text}: write LETTER=NUMBER,… with {', '.join(letters)}")
        found[letter] = int(number)
    return found


def _converted(option: str, text: str, conversion: Callable[[str], int], wanted: str = "") -> int:
    try:
        return conversion(text)
    except ValueError as error:
        raise _wrong(f"{option} {text}: {wanted or error}") from None


def _wrong(why: str) -> "Exception":
    from dmgfs.cli.options import WrongUsage

    return WrongUsage(why)


# -- the file ----------------------------------------------------------------------------------------------------------


def _size_of(args: argparse.Namespace) -> int:
    from dmgfs.cli.options import parse_size

    if args.size is not None:
        return parse_size(args.size)
    status = os.stat(args.image)
    if not stat.S_ISREG(status.st_mode):
        raise FileExistsError(0, "it is no regular file")
    return status.st_size


def _write(args: argparse.Namespace, volume: "NewVolume", size: int) -> None:
    from dmgfs.cli.destination import require_apart
    from dmgfs.packing.output import Output

    require_apart(args.image, ())
    if args.size is not None:
        with Output(args.image, replace=args.force) as output:
            for at, part in _parts(volume, size):
                output.write(at, part)
            output.extend(size)
            output.commit()
        return
    with open(args.image, "r+b", buffering=0) as file:
        if not args.force and _any_data(file.fileno(), volume, size):
            raise FileExistsError(0, "the file holds something; --force overwrites it")
        for at, part in _parts(volume, size):
            while part:
                done = os.pwrite(file.fileno(), part, at)
                part, at = part[done:], at + done
        os.fsync(file.fileno())


def _stretches(volume: "NewVolume", size: int) -> list[tuple[int, int]]:
    """(start, end) of what has an owner: the beginning, and the last blocks or, behind them, what is no block."""
    geometry = volume.geometry
    return [(0, geometry.used * geometry.block_size), (geometry.size - geometry.tail * geometry.block_size, size)]


def _parts(volume: "NewVolume", size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of all that is to be written."""
    end = volume.source.size
    for start, stop in _stretches(volume, end):
        for at in range(start, stop, _BLOCK):
            yield at, bytes(volume.source.read(at, min(_BLOCK, stop - at)))
    # The copy of the header is looked for two sectors before the end, even where that is in no block.
    yield size // SECTOR * SECTOR - 2 * SECTOR, bytes(volume.source.read(HEADER, SECTOR))


def _any_data(fd: int, volume: "NewVolume", size: int) -> bool:
    return any(
        os.pread(fd, min(_BLOCK, stop - at), at).strip(b"\0")
        for start, stop in _stretches(volume, size)
        for at in range(start, stop, _BLOCK)
    )


def _report(args: argparse.Namespace, volume: "NewVolume", settings: "Settings") -> None:
    geometry = volume.geometry
    facts = {
        "kind": "HFSX" if settings.hfsx else "HFS+",
        "size": geometry.size,
        "block_size": geometry.block_size,
        "blocks": geometry.total,
        "free_blocks": geometry.free,
        "journal": geometry.journal.blocks * geometry.block_size,
        "extents_tree": geometry.extents.blocks * geometry.block_size,
        "catalog_tree": geometry.catalog.blocks * geometry.block_size,
        "attributes_tree": geometry.attributes.blocks * geometry.block_size,
    }
    if args.json:
        print_json({"file": args.image, "written": not args.only_say, **facts})
    elif args.only_say:
        for fact, value in facts.items():
            print(f"{fact.replace('_', ' '):16}{value}")
    else:
        print(printable(f"{args.image}: {facts['kind']}, {geometry.total} blocks of {geometry.block_size} bytes"))


def _refuse(image: str, why: str, code: int) -> int:
    print(printable(f"dmgfs: {image}: {why}"), file=sys.stderr)
    return code
