"""dmgfs xattr: extended attributes, named as the mount names them."""

import argparse
import errno
import sys

from dmgfs.cli.report import in_json, print_json, printable
from dmgfs.cli.target import add_image_options, open_target, open_tree
from dmgfs.cli.tree import Item, Tree

SUMMARY = "list or print extended attributes"


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("path", metavar="PATH", help="a file or folder; links are not followed")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="print this attribute's bytes (default: list the names)"
    )
    parser.add_argument("--json", action="store_true", help="names, sizes and values (in hexadecimal)")


def run(args: argparse.Namespace) -> int:
    with open_target(args) as image:
        tree = open_tree(image, args)
        item = tree.find(args.path)
        if args.name is not None:
            value = tree.lower.getxattr(item.ino, args.name.encode("utf-8", "surrogateescape"))
            if value is None:
                raise OSError(errno.ENODATA, f"no attribute {args.name!r}", args.path)
            sys.stdout.buffer.write(value)
            sys.stdout.buffer.flush()
            return 0
        values = _values(tree, item)
    if args.json:
        print_json([{"name": in_json(name), "size": len(value), "value": value.hex()} for name, value in values])
    else:
        for name, value in values:
            print(f"{len(value):8} {printable(name)}")
    return 0


def _values(tree: Tree, item: Item) -> list[tuple[bytes, bytes]]:
    return [(name, tree.lower.getxattr(item.ino, name) or b"") for name in tree.lower.listxattr(item.ino)]
