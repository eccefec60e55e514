"""dmgfs ls: what is in a volume, without mounting it. Names come in the volume's own order, which is alphabetical."""

import argparse
import stat
import time
from collections.abc import Iterable, Iterator

from dmgfs.cli.record import brief, seconds
from dmgfs.cli.report import JsonList, complain, printable
from dmgfs.cli.target import add_image_options, open_target, open_tree
from dmgfs.cli.tree import Item, Step, Tree
from dmgfs.errors import DmgError

SUMMARY = "list the files of an image"

HALF_A_YEAR = 183 * 24 * 3600


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"], help="what to list (default: everything)")
    parser.add_argument("-l", dest="long", action="store_true", help="modes, owners, sizes, dates, link targets")
    parser.add_argument("-R", dest="recursive", action="store_true", help="folders below as well")
    parser.add_argument("-d", dest="itself", action="store_true", help="folders themselves, not what they hold")
    parser.add_argument("--json", action="store_true", help="a list of records instead of lines")


def run(args: argparse.Namespace) -> int:
    with open_target(args) as image:
        tree = open_tree(image, args)
        tops = [tree.find(path) for path in args.paths]
        whole_paths = args.recursive or args.itself or len(tops) > 1
        damaged = False
        with JsonList(args.json) as records:
            for step in _steps(tree, tops, args):
                try:
                    if step.item is None:
                        raise step.error or AssertionError(step)
                    record = brief(tree, step.item)
                    shown = step.path if whole_paths else step.item.name
                    if args.json:
                        records.add(record)
                    else:
                        print(_long(record, step.item, shown) if args.long else printable(shown or b"/"))
                except (DmgError, OSError) as error:
                    if isinstance(error, BrokenPipeError):
                        raise
                    complain(args.image, step.path, error)
                    damaged = True
    return 65 if damaged else 0


def _steps(tree: Tree, tops: Iterable[Item], args: argparse.Namespace) -> Iterator[Step]:
    for top in tops:
        if args.itself or not top.is_folder:
            yield Step(top.path, top, None)
        elif args.recursive:
            yield from (step for step in tree.walk(top) if step.item is not top)
        else:
            yield from tree.children(top)


def _long(record: dict[str, object], item: Item, shown: bytes) -> str:
    attr = item.attr
    if stat.S_ISCHR(attr.mode) or stat.S_ISBLK(attr.mode):
        size = f"{attr.rdev >> 8 & 0xFFF}, {attr.rdev & 0xFF | attr.rdev >> 12 & 0xFFF00}"
    else:
        size = str(attr.size)
    line = (
        f"{stat.filemode(attr.mode)} {attr.nlink:3} {attr.uid:5} {attr.gid:5} {size:>10} {_date(attr.mtime_ns)} "
        f"{printable(shown or b'/')}"
    )
    return f"{line} -> {printable(str(record['target']))}" if "target" in record else line


def _date(ns: int) -> str:
    """As ls shows it, in UTC: the time of day for what is younger than half a year, else the year."""
    when = time.gmtime(seconds(ns))
    recent = 0 <= time.time() - seconds(ns) < HALF_A_YEAR
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", when)
