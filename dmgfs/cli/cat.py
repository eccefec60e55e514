"""dmgfs cat: the bytes of files to standard output. `FILE/..namedfork/rsrc` names a resource fork."""

import argparse
import sys

from dmgfs.cli.target import add_image_options, open_target, open_tree

SUMMARY = "write a file of an image to standard output"

BLOCK = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file; FILE/..namedfork/rsrc is its resource fork")


def run(args: argparse.Namespace) -> int:
    with open_target(args) as image:
        tree = open_tree(image, args)
        for path in args.paths:
            source = tree.contents(path)
            for offset in range(0, source.size, BLOCK):
                sys.stdout.buffer.write(source.read(offset, min(BLOCK, source.size - offset)))
        sys.stdout.buffer.flush()
    return 0
