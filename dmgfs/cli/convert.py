"""dmgfs convert: the disk of an image written out for other programs. Zeros become holes; the result appears under its name
only when it is complete."""

import argparse
import errno
import os
import tempfile

from dmgfs.cli.report import Progress, add_progress_option
from dmgfs.cli.target import add_image_options, open_target
from dmgfs.cli.unpack import blocks, write_sparse

SUMMARY = "write the disk of an image out"


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False)
    parser.add_argument("output", metavar="FILE", help="what to write; must not exist yet")
    parser.add_argument(
        "--to", choices=("raw",), default="raw", help="raw: the plain disk, for loop devices and others"
    )
    parser.add_argument("--partition", metavar="N|NAME", help="this partition only, not the whole disk")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    if os.path.lexists(args.output):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.output)
    with open_target(args) as image:
        source = image.disk if args.partition is None else image.part(args.partition)
        progress = Progress(args.progress, "convert", source.size)
        folder = os.path.dirname(os.path.abspath(args.output))
        file, unfinished = tempfile.mkstemp(prefix=".dmgfs-", dir=folder)
        try:
            for offset, block in blocks(source):
                write_sparse(file, offset, block)
                progress.advance(len(block))
            os.ftruncate(file, source.size)
            os.fchmod(file, 0o666 & ~_umask())
            os.link(unfinished, args.output)  # unlike rename, this replaces nothing that came meanwhile
        finally:
            os.close(file)
            os.unlink(unfinished)
            progress.finish()
    return 0


def _umask() -> int:
    """Linux has no way to ask for it without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
