"""dmgfs convert: the disk of an image written out in another format, compressed or not. The result appears under its name
only when it is complete; a signal, damage or a full disk leave nothing behind.

Exit codes besides the usual: 73 where the output exists or is the input.
"""

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from dmgfs.cli import code_of
from dmgfs.cli.report import Progress, add_progress_option, human, print_json, printable
from dmgfs.cli.stopping import stopped_by_signals
from dmgfs.cli.target import add_image_options, open_target
from overlay.errors import ShadowError

if TYPE_CHECKING:
    from dmgfs.blockshadow import BlockShadow
    from dmgfs.image import Image

SUMMARY = "write the disk of an image in another format"

USAGE = 64
SECTOR = 512
CHUNK_SECTORS = 2048
FORMATS = ("raw", "udro", "udzo", "udbz", "ulfo", "ulmo", "udco", "sparseimage")


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False)
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to",
        choices=FORMATS,
        default="raw",
        help="raw (default): the plain disk, zeros as holes; udro: UDIF, not compressed; udzo, udbz, ulfo, ulmo, udco: "
        "UDIF with zlib, bzip2, LZFSE, xz, ADC; sparseimage",
    )
    parser.add_argument(
        "--shadow", metavar="FILE", help="with what was written to the image attached with this shadow"
    )
    parser.add_argument("--partition", metavar="N|NAME", help="this partition only, not the whole disk")
    parser.add_argument(
        "--chunk",
        metavar="SECTORS",
        type=int,
        default=CHUNK_SECTORS,
        help="sectors that are compressed as one, or in a band (default: 2048, which is 1 MiB)",
    )
    parser.add_argument("--level", metavar="N", type=int, help="udzo 1-12 (6), udbz 1-9 (9), ulmo 0-9 (6)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--jobs", metavar="N", type=int, help="threads (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="say what was written as a JSON object")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.destination import files_of, require_apart
    from dmgfs.packing import pack

    with stopped_by_signals(), open_target(args) as image, ExitStack() as opened:
        require_apart(args.output, [*files_of(image), *([args.shadow] if args.shadow is not None else [])])
        if args.shadow is not None:
            try:
                opened.callback(_look_through(args.shadow, image).close)
            except ShadowError as error:
                return _refuse(args.shadow, str(error), code_of(error))
        disk = image.disk if args.partition is None else image.part(args.partition)
        layout = image.map if args.partition is None else None
        progress = Progress(args.progress, "convert", disk.size)

        def advance(amount: int) -> None:
            progress.advance(amount, args.output)

        try:
            packed = pack(
                disk,
                args.output,
                args.to,
                layout=layout,
                chunk=args.chunk * SECTOR,
                level=args.level,
                replace=args.force,
                workers=args.jobs,
                advance=advance,
            )
        except ValueError as error:
            return _refuse(args.image, str(error), USAGE)
        finally:
            progress.finish()
        _report(args, disk.size, packed.size, packed.runs)
    return 0


def _look_through(shadow: str, image: "Image") -> "BlockShadow":
    """The image's disk and map are those that the shadow of blocks makes of them; it is to be closed. Raises ShadowError,
    OSError."""
    from dmgfs.blockshadow import BlockShadow
    from dmgfs.identity import disk_identity
    from dmgfs.partitions import read_map
    from overlay.file import FileStore

    store = FileStore.open_file(shadow, disk_identity(image), read_only=True)
    try:
        image.disk = seen = BlockShadow(image.disk, store)
        image.map = read_map(seen)
    except BaseException:
        store.close()  # damaged, perhaps
        raise
    return seen


def _report(args: argparse.Namespace, disk_size: int, size: int, runs: dict[str, int]) -> None:
    if args.json:
        print_json({"output": args.output, "format": args.to, "disk_size": disk_size, "size": size, "runs": runs})
    else:
        share = f" ({100 * size / disk_size:.1f} %)" if disk_size and args.to != "raw" else ""
        print(printable(f"{args.output}: {args.to}, {human(size)} for a disk of {human(disk_size)}{share}"))


def _refuse(image: str, why: str, code: int) -> int:
    print(printable(f"dmgfs: {image}: {why}"), file=sys.stderr)
    return code
