"""dmgfs patch: makes a file out of another and a delta of `dmgfs diff --delta`. The result is checked, and appears under
its name only if it is right.

Exit codes besides the usual: 65 where the delta is damaged or was made for another file, 73 where the output exists.
"""

import argparse

from dmgfs.cli.report import human, print_json, printable
from dmgfs.cli.stopping import stopped_by_signals

SUMMARY = "make an image out of another one and a delta"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="OLD", help="what the delta was made for")
    parser.add_argument("delta", metavar="DELTA")
    parser.add_argument("output", metavar="OUT", help="the image to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.destination import require_apart
    from dmgfs.packing.delta import apply_delta

    with stopped_by_signals():
        require_apart(args.output, (args.image, args.delta))
        size = apply_delta(args.image, args.delta, args.output, replace=args.force)
    if args.json:
        print_json({"output": args.output, "size": size})
    else:
        print(printable(f"{args.output}: {human(size)}, as it was when the delta was made"))
    return 0
