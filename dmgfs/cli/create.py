"""dmgfs create: a disk image out of a folder or a tar archive, in one go. What HFS+ cannot hold
is found, and told, before anything is written; the image appears under its name when it is complete.

The same tree and options give the same image if SOURCE_DATE_EPOCH is set: it is the date of the volume, and no file is
younger. Exit codes besides the usual: 65 where the tree does not fit on HFS+, 73 where the output exists.
"""

import argparse
import os
import re
import sys
import time
from typing import TYPE_CHECKING

from dmgfs.cli.report import Progress, add_progress_option, human, print_json, printable
from dmgfs.cli.stopping import stopped_by_signals

if TYPE_CHECKING:
    from dmgfs.gathering.compressing import Saved
    from dmgfs.gathering.folder import FolderOrigin
    from dmgfs.gathering.tar import TarOrigin
    from dmgfs.hfsplus_writer.inventory import Inventory
    from dmgfs.hfsplus_writer.volume import NewVolume
    from dmgfs.packing import Packed

SUMMARY = "make a disk image out of a folder or a tar archive"

USAGE = 64
SECTOR = 512
CHUNK_SECTORS = 2048
FORMATS = ("udzo", "ulfo", "udbz", "ulmo", "udco", "udro", "raw", "sparseimage")
COMPRESSIONS = ("decmpfs", "decmpfs-lzfse")
LAYOUTS = ("gpt", "apm", "none")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image", metavar="SRC", help="what the volume gets: a folder, a tar archive, or - for a tar stream"
    )
    parser.add_argument("output", metavar="OUT", help="the image to write")
    parser.add_argument("--format", choices=FORMATS, default="udzo", help="as `convert --to`; default udzo")
    parser.add_argument(
        "--fs", choices=("hfs+", "hfsx"), default="hfs+", help="hfsx tells upper and lower case apart; default hfs+"
    )
    parser.add_argument("--journal", action="store_true", help="give the volume a journal, an empty one")
    parser.add_argument("--volname", metavar="NAME", help="name of the volume; default: that of SRC")
    parser.add_argument("--size", metavar="SIZE", help="of the disk, map and free space included; default: the least")
    parser.add_argument("--layout", choices=LAYOUTS, default="gpt", help="partition map; default gpt")
    parser.add_argument(
        "--compress",
        choices=COMPRESSIONS,
        help="files as macOS compresses them: zlib (decmpfs), or LZFSE, which macOS knows since 10.11",
    )
    parser.add_argument(
        "--playlist",
        metavar="FILE",
        help="lay these files out first: a list of paths, or what `mount --playlist record=FILE` wrote",
    )
    parser.add_argument("--playlist-image", metavar="IMAGE", help="the image with which the playlist was recorded")
    parser.add_argument("--owners", metavar="on|UID:GID", help="as recorded (on, the default), or one owner for all")
    parser.add_argument("--one-file-system", action="store_true", help="leave out what is mounted inside SRC")
    parser.add_argument(
        "--chunk", metavar="SECTORS", type=int, default=CHUNK_SECTORS, help="compressed as one (default: 2048, 1 MiB)"
    )
    parser.add_argument("--level", metavar="N", type=int, help="udzo 1-12 (6), udbz 1-9 (9), ulmo 0-9 (6)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--jobs", metavar="N", type=int, help="threads (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="say what was written as a JSON object")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.options import WrongUsage
    from dmgfs.errors import Unwritable

    try:
        with stopped_by_signals():
            return _create(args)
    except WrongUsage as error:
        return _refuse(args, str(error), USAGE)
    except Unwritable as error:
        for place in error.places:
            print(printable(f"dmgfs: {args.image}: {place}"), file=sys.stderr)
        raise


def _create(args: argparse.Namespace) -> int:
    from dmgfs.cli.destination import require_apart
    from dmgfs.hfsplus_writer.inventory import Inventory
    from dmgfs.hfsplus_writer.volume import Settings, write_volume
    from dmgfs.packing.layout import overhead

    created, latest = epoch()
    args.size = None if args.size is None else _size(args.size)
    around = overhead(args.layout)
    size = None if args.size is None else args.size - around
    name = _volume_name(args)
    require_apart(args.output, _inputs(args))
    inventory = Inventory(case_sensitive=args.fs == "hfsx")
    found = Progress(args.progress, "find")
    origin = _origin(args, inventory, latest, found)
    saved: list[Saved | None] = []
    try:
        origin.gather(name)
        _order(args, inventory)
        journal = None if args.journal else 0
        settings = Settings(hfsx=args.fs == "hfsx", created=created, size=size, around=around, journal=journal)
        volume = write_volume(
            inventory, origin, settings, settled=lambda: saved.append(_compress(args, inventory, origin))
        )
        found.finish()
        for line in origin.left.lines():
            print(printable(f"dmgfs: {args.image}: left out or changed: {line}"), file=sys.stderr)
        for line in origin.left.notes:
            print(printable(f"dmgfs: {args.image}: note: {line}"), file=sys.stderr)
        packed = _pack(args, volume)
    finally:
        origin.close()
        inventory.close()
    _report(args, volume, packed, saved[0])
    return 0


def _inputs(args: argparse.Namespace) -> list[str]:
    """What is read, as far as OUT could be in it: with --one-file-system not what is on another one."""
    inputs = [path for path in (args.playlist, args.playlist_image) if path is not None]
    folder = os.path.dirname(args.output) or "."
    there = args.image != "-" and os.path.exists(args.image) and os.path.exists(folder)
    if args.image == "-":
        inputs.append("/dev/stdin")
    if there and not (args.one_file_system and os.stat(folder).st_dev != os.stat(args.image).st_dev):
        inputs.append(args.image)
    return inputs


def _origin(
    args: argparse.Namespace, inventory: "Inventory", latest: int | None, found: Progress
) -> "FolderOrigin | TarOrigin":
    owner = _owner(args.owners)
    if args.image != "-" and os.path.isdir(args.image):
        from dmgfs.gathering.folder import FolderOrigin

        only = args.one_file_system
        return FolderOrigin(
            args.image, inventory, owner=owner, latest=latest, one_file_system=only, advance=found.advance
        )
    from dmgfs.gathering.tar import TarOrigin

    file = sys.stdin.buffer if args.image == "-" else os.fdopen(os.open(args.image, os.O_RDONLY | os.O_CLOEXEC), "rb")
    return TarOrigin(file, inventory, owner=owner, latest=latest, advance=found.advance)


def _order(args: argparse.Namespace, inventory: "Inventory") -> None:
    """--playlist: which contents come first."""
    from dmgfs.cli.options import WrongUsage

    if args.playlist is None:
        if args.playlist_image is not None:
            raise WrongUsage("--playlist-image without --playlist")
        return
    from dmgfs.cli.playlistfiles import paths_of
    from dmgfs.gathering.order import place_first

    found, missing = place_first(inventory, paths_of(args.playlist, args.playlist_image))
    if missing:
        told = f"{missing} of {found + missing} files are not in the new volume"
        print(printable(f"dmgfs: {args.playlist}: {told}"), file=sys.stderr)


def _compress(args: argparse.Namespace, inventory: "Inventory", origin: "FolderOrigin | TarOrigin") -> "Saved | None":
    if args.compress is None:
        return None
    from dmgfs.gathering.compressing import compress_files
    from dmgfs.hfsplus_writer.decmpfs import LZFSE, ZLIB
    from dmgfs.hfsplus_writer.volume import BLOCK_SIZE

    (total,) = inventory.one("SELECT sum(size) FROM object")
    progress = Progress(args.progress, "compress", total)
    scheme = LZFSE if args.compress == "decmpfs-lzfse" else ZLIB
    try:
        return compress_files(
            inventory,
            origin,
            scheme,
            block_size=BLOCK_SIZE,
            workers=args.jobs,
            advance=lambda amount: progress.advance(amount, args.output),
        )
    finally:
        progress.finish()


def _pack(args: argparse.Namespace, volume: "NewVolume") -> "Packed":
    from dmgfs.cli.options import WrongUsage
    from dmgfs.packing import pack
    from dmgfs.packing.layout import partitioned
    from dmgfs.partitions import read_map

    disk = partitioned(volume.source, args.layout, volume.id.to_bytes(8), args.size)
    progress = Progress(args.progress, "create", disk.size)
    try:
        return pack(
            disk,
            args.output,
            args.format,
            layout=read_map(disk),
            chunk=args.chunk * SECTOR,
            level=args.level,
            replace=args.force,
            workers=args.jobs,
            advance=lambda amount: progress.advance(amount, args.output),
        )
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    finally:
        progress.finish()


def _report(args: argparse.Namespace, volume: "NewVolume", packed: "Packed", saved: "Saved | None") -> None:
    if args.json:
        facts = {"files": volume.files, "folders": volume.folders, "volume_size": volume.geometry.size}
        if saved is not None:
            facts |= {"compressed_files": saved.files, "saved": saved.bytes}
        print_json({"output": args.output, "format": args.format, **facts, "size": packed.size, "runs": packed.runs})
    else:
        what = f"{volume.files} files and {volume.folders} folders in a volume of {human(volume.geometry.size)}"
        if saved is not None:
            what += f"; {saved.files} compressed, {human(saved.bytes)} saved"
        print(printable(f"{args.output}: {args.format}, {human(packed.size)}: {what}"))


def epoch() -> tuple[int, int | None]:
    """(date of the volume, latest date of a file) in Unix seconds. Raises WrongUsage."""
    from dmgfs.cli.options import WrongUsage

    told = os.environ.get("SOURCE_DATE_EPOCH")
    if not told:
        return int(time.time()), None
    try:
        return int(told), int(told)
    except ValueError:
        raise WrongUsage(f"SOURCE_DATE_EPOCH is {told!r}, not a number of seconds") from None


def _volume_name(args: argparse.Namespace) -> bytes:
    """As stored."""
    from dmgfs.cli.options import WrongUsage
    from dmgfs.gathering.translation import Left, disk_name

    told = args.volname
    if told is None:
        path = os.path.abspath(args.image)
        name = os.path.basename(path)
        told = (name if os.path.isdir(path) else re.sub(r"\.(tar(\.\w+)?|t[gbx]z)$", "", name)) or "untitled"
        told = "untitled" if args.image == "-" else told
    if not told:
        raise WrongUsage("--volname: a volume has a name of one character at least")
    stored = disk_name(os.fsencode(told), Left())
    if isinstance(stored, str) or "/" in told:
        why = stored if isinstance(stored, str) else "names with /"
        raise WrongUsage(f"--volname {told}: {why} cannot be a volume's")
    return stored


def _owner(told: str | None) -> tuple[int, int] | None:
    from dmgfs.cli.options import WrongUsage, parse_owners

    kind, owner = parse_owners(told, "image")
    if kind == "mounter" and owner is None:
        raise WrongUsage(f"--owners {told}: write on or UID:GID (two numbers)")
    return owner


def _size(text: str) -> int:
    from dmgfs.cli.options import parse_size

    return parse_size(text)


def _refuse(args: argparse.Namespace, why: str, code: int) -> int:
    print(printable(f"dmgfs: {args.image}: {why}"), file=sys.stderr)
    return code
