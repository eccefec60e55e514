"""dmgfs stat: all there is to know about an object, also what Linux has no place for (creation and backup date, BSD and
Finder flags, type and creator)."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from dmgfs.cli.record import full
from dmgfs.cli.report import print_json, printable
from dmgfs.cli.target import add_image_options, open_target, open_tree
from dmgfs.flags import encoding_name

SUMMARY = "show all attributes of a file"

DATES = ("created", "modified", "changed", "accessed", "backed_up")


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files and folders; links are not followed")
    parser.add_argument("--json", action="store_true", help="a list of records instead of lines")


def run(args: argparse.Namespace) -> int:
    with open_target(args) as image:
        tree = open_tree(image, args)
        records = [full(tree, tree.find(path)) for path in args.paths]
    if args.json:
        print_json(records)
        return 0
    print("\n\n".join("\n".join(_lines(record)) for record in records))
    return 0


def _lines(record: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in record.items():
        if key in DATES:
            value = date(value)
        elif key == "text_encoding":
            value = encoding_name(value)
        elif isinstance(value, list):
            value = ", ".join(value)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        text = str(value) if value not in ("", None) else "-"
        lines.append(f"{key.replace('_', ' '):16}{printable(text)}")
    return lines


def date(seconds: int | None) -> str:
    """A date of the volume in UTC, "-" if it is not set. Counts days itself: the dates reach beyond what C can."""
    if seconds is None:
        return "-"
    try:
        return str(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))[:19] + " UTC"
    except OverflowError:
        return f"{seconds} s after 1970"
