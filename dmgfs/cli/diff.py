"""dmgfs diff: what differs between two images, file by file; or, as a delta, what makes the one file into the other
(`dmgfs patch` applies it).

Exit codes besides the usual, as diff(1): 0 nothing differs, 1 something does; of a delta 73 where its file exists or is
an input.
"""

import argparse
from typing import Any

from dmgfs.cli.network import add_network_options, is_url, network_of
from dmgfs.cli.passphrase import add_passphrase_options
from dmgfs.cli.report import JsonList, human, print_json, printable
from dmgfs.cli.stopping import stopped_by_signals
from dmgfs.cli.target import open_as_told, size
from dmgfs.errors import Unsupported

SUMMARY = "list what differs between two images, or write it as a delta"

DIFFERENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="OLD")
    parser.add_argument("other", metavar="NEW")
    parser.add_argument("--delta", dest="output", metavar="FILE", help="list nothing, write what makes OLD into NEW")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--quick", action="store_true", help="take files of one size and date for equal")
    parser.add_argument("--partition", metavar="N|NAME", help="which partition, if several hold a volume")
    parser.add_argument("--no-replay", action="store_true", help="take dirty volumes as they stand")
    parser.add_argument("--cache", metavar="SIZE", type=size, default="64M", help="memory for decoded chunks")
    add_network_options(parser)
    add_passphrase_options(parser)
    parser.add_argument("--json", action="store_true", help="write a JSON list")


def run(args: argparse.Namespace) -> int:
    if args.output is not None:
        return _delta(args)
    from dmgfs.changelist import KINDS
    from dmgfs.lower import View, VolumeLower
    from dmgfs.treediff import differences

    view = View(owners="image")
    found = False
    network = network_of(args)
    with (
        open_as_told(args, args.cache, network) as old,
        open_as_told(args, args.cache, network, path=args.other) as new,
        JsonList(args.json) as shown,
    ):
        lowers = [VolumeLower(image.volume(args.partition), view) for image in (old, new)]
        for change in differences(*lowers, quick=args.quick):
            found = True
            path = change.path.decode("utf-8", "surrogateescape")
            kind = KINDS.get(change.type, "object")
            if args.json:
                record: dict[str, Any] = {"change": change.kind, "path": path, "type": kind}
                shown.add(record | ({"what": list(change.what)} if change.what else {}))
            else:
                what = f"  ({', '.join(change.what)})" if change.what else ""
                print(printable(f"{change.kind:9} {path}{'/' if kind == 'directory' else ''}{what}"))
    return DIFFERENT if found else 0


def _delta(args: argparse.Namespace) -> int:
    from dmgfs.cli.destination import require_apart
    from dmgfs.packing.delta import make_delta

    if is_url(args.image) or is_url(args.other):
        raise Unsupported("a delta of an image behind a URL", "fetch it first")
    with stopped_by_signals():
        require_apart(args.output, (args.image, args.other))
        made = make_delta(args.image, args.other, args.output, replace=args.force)
    if args.json:
        print_json({"delta": args.output, "size": made.size, "copied": made.copied, "new": made.new})
    else:
        share = f"{human(made.copied)} are in {args.image} already, {human(made.new)} are new"
        print(printable(f"{args.output}: {human(made.size)}: {share}"))
    return 0
