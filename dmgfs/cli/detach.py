"""dmgfs detach: the files of an attached disk go away, unless somebody uses them. The word for it that those know who say
attach; `dmgfs unmount` does the same."""

import argparse

SUMMARY = "take the files of an attached disk away"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="DIR", help="where the disk is attached")
    parser.set_defaults(lazy=False)


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli import unmount

    return unmount.run(args)
