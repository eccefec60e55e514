"""dmgfs extract: files of an image into a folder, or as a tar stream on standard output."""

import argparse
import os
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dmgfs.cli.report import Progress, add_progress_option, complain
from dmgfs.cli.target import add_image_options, open_target, open_tree
from dmgfs.cli.tree import Item, Step, Tree

if TYPE_CHECKING:
    from dmgfs.cli.unpack import Sink

SUMMARY = "copy files out of an image"


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="what to copy, with its path (default: everything)")
    parser.add_argument("-C", dest="directory", metavar="DIR", default=".", help="where to (default: here)")
    parser.add_argument(
        "--tar", dest="output", metavar="FILE", help="write a tar archive instead; - is standard output"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--no-owners", action="store_true", help="the files belong to whoever extracts them")
    parser.add_argument("--no-xattrs", action="store_true", help="leave extended attributes out")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.output == "-" and sys.stdout.isatty():
        print("dmgfs: a tar archive does not belong on a terminal; redirect it or name a file", file=sys.stderr)
        return 64
    with open_target(args) as image:
        tree = open_tree(image, args)
        tops = [tree.find(path) for path in args.paths] or [tree.root()]
        if args.output not in (None, "-"):
            from dmgfs.cli.destination import files_of, require_apart

            require_apart(args.output, files_of(image))
        with _sink(tree, args) as sink:
            progress = Progress(args.progress, "extract")
            if progress.wanted:
                progress.total = sum(item.attr.size for item in _items(tree, tops) if stat.S_ISREG(item.attr.mode))
            damaged = _copy(tree, tops, sink, progress, args.image)
            progress.finish()
            for warning in sink.warnings():
                print(f"dmgfs: {args.image}: {warning}", file=sys.stderr)
    return 65 if damaged else 0


def _sink(tree: Tree, args: argparse.Namespace) -> "Sink":
    owners = os.geteuid() == 0 and not args.no_owners
    if args.output is None:
        from dmgfs.cli.unpack import FolderSink

        return FolderSink(tree, args.directory, owners=owners, xattrs=not args.no_xattrs, force=args.force)
    from dmgfs.cli.tarstream import TarSink

    to_file = args.output != "-"
    output = open(args.output, "wb") if to_file else sys.stdout.buffer  # noqa: SIM115
    return TarSink(tree, output, close=to_file, owners=not args.no_owners, xattrs=not args.no_xattrs)


def _items(tree: Tree, tops: list[Item]) -> Iterator[Item]:
    return (step.item for top in tops for step in tree.walk(top) if step.item is not None)


def _copy(tree: Tree, tops: list[Item], sink: "Sink", progress: Progress, image: str) -> bool:
    """Everything below `tops` into the sink. Whether anything was damaged or could not be written."""
    from dmgfs.errors import DmgError

    damaged = False
    for top in tops:
        for step in _with_parents(tree, top):
            try:
                if step.item is None:
                    raise step.error or AssertionError(step)
                sink.put(step.item, progress)
            except (DmgError, OSError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                complain(image, step.path, error)
                damaged = True
    return damaged


def _with_parents(tree: Tree, top: Item) -> Iterator[Step]:
    """The folders on the way to `top`, then all of it."""
    parts = top.path.split(b"/") if top.path else []
    for depth in range(len(parts)):
        folder = tree.find(b"/".join(parts[:depth]))
        yield Step(folder.path, folder, None)
    yield from tree.walk(top)
