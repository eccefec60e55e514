"""dmgfs doctor: what this machine offers, one line each. Exit code 0 if a mount is possible."""

import argparse

from dmgfs.cli.report import print_json, printable

SUMMARY = "say what on this machine helps or hinders a mount"

OS_ERROR = 71


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a list of objects instead of lines")


def run(args: argparse.Namespace) -> int:
    from dmgfs.fuse.conditions import conditions

    found = list(conditions())
    possible = all(condition.holds for condition in found if condition.needed)
    if args.json:
        print_json([condition._asdict() for condition in found])
        return 0 if possible else OS_ERROR
    for condition in found:
        line = f"{'yes' if condition.holds else 'no':4}{condition.name}: {condition.detail}"
        print(printable(line + (f"; {condition.advice}" if condition.advice and not condition.holds else "")))
    print("a mount is possible" if possible else "no mount is possible here")
    return 0 if possible else OS_ERROR
