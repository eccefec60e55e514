"""dmgfs playlist: look at the lists that `dmgfs mount --playlist` records, join them, cut them."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from dmgfs.cli.report import human, print_json, printable

if TYPE_CHECKING:
    from dmgfs.playlist import Playlist

SUMMARY = "show, merge or trim the lists of `mount --playlist`"

_EPILOG = (
    "A playlist says which parts of an image's disk a start touched, in that order. `dmgfs mount --playlist record=FILE` "
    "makes one, `--playlist use=FILE` has these parts decoded before they are asked for, `--playlist auto` does both and "
    "keeps the list. With another image than its own a list is ignored."
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|merge|trim")
    show = actions.add_parser("show", help="what a list is for and how much it holds")
    show.add_argument("image", metavar="FILE", help="the playlist")
    show.add_argument(
        "--for", dest="for_image", metavar="IMAGE", help="also say whether it was recorded with this image"
    )
    show.add_argument("--parts", action="store_true", help="every part: offset and length, bytes of the disk")
    show.add_argument("--json", action="store_true", help="everything as one JSON object")
    merge = actions.add_parser("merge", help="one list of several for one image: the first, then what others add")
    merge.add_argument("image", metavar="OUT", help="where to write it; may be one of the lists")
    merge.add_argument("lists", metavar="FILE", nargs="+", help="playlists")
    trim = actions.add_parser("trim", help="keep the beginning of a list")
    trim.add_argument("image", metavar="FILE", help="the playlist")
    trim.add_argument("size", metavar="SIZE", help="so much of the disk at most, for example 64M")
    trim.add_argument("-o", dest="out", metavar="OUT", help="write it there, not over FILE")


def run(args: argparse.Namespace) -> int:
    return {"show": _show, "merge": _merge, "trim": _trim}[args.action](args)


def _show(args: argparse.Namespace) -> int:
    from dmgfs.playlist import read_file

    found = read_file(args.image)
    facts: dict[str, object] = {
        "image": found.image,
        "disk": found.disk,
        "parts": len(found.parts),
        "bytes": found.bytes,
        "files": len(found.files),
    }
    if args.for_image is not None:
        facts["matches"] = _matches(found, args.for_image)
    if args.json:
        print_json(facts | ({"list": found.parts} if args.parts else {}))
        return 0
    print(f"image   {found.image}, a disk of {human(found.disk)}")
    print(f"parts   {len(found.parts)}, {human(found.bytes)} of the disk")
    if found.files:
        print(f"files   {len(found.files)}")
    if args.for_image is not None:
        verdict = "recorded with it" if facts["matches"] else "recorded with another image: a mount ignores this list"
        print(printable(f"for     {args.for_image}: {verdict}"))
    if args.parts:
        print("\n".join(f"{offset} {length}" for offset, length in found.parts))
    return 0


def _matches(found: "Playlist", image: str) -> bool:
    from dmgfs.image import open_image
    from dmgfs.playlist import identity_of

    with open_image(image) as opened:
        return (identity_of(opened.container), opened.disk.size) == (found.image, found.disk)


def _merge(args: argparse.Namespace) -> int:
    from dmgfs.playlist import merge, read_file

    _write(merge([read_file(name) for name in args.lists]), args.image)
    return 0


def _trim(args: argparse.Namespace) -> int:
    from dmgfs.cli import USAGE
    from dmgfs.cli.options import WrongUsage, parse_size
    from dmgfs.playlist import read_file, trim

    try:
        size = parse_size(args.size)
    except WrongUsage as error:
        print(printable(f"dmgfs: playlist trim: {error}"), file=sys.stderr)
        return USAGE
    _write(trim(read_file(args.image), size), args.out or args.image)
    return 0


def _write(playlist: "Playlist", path: str) -> None:
    from dmgfs.playlist import write_file

    write_file(playlist, os.path.abspath(path))
