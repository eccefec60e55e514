"""dmgfs nbi: a NetBoot folder (NAME.nbi): what it offers, whether it is complete, and its root image mounted as the folder
says.

Rules that hold here:
- verify: a file that the list implies and that is missing is a fault, as an image that is damaged;
- mount: a folder that says SupportsDiskless gets a shadow in memory, as its clients would; --shadow beats it. One that is
  not enabled is mounted all the same, with a line that says so.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from dmgfs.cli.report import print_json, printable

if TYPE_CHECKING:
    from dmgfs.container.nbi import NetBootFolder

SUMMARY = "NetBoot folders: look into them, check them, mount them"

DATA_ERROR = 65


def configure(parser: argparse.ArgumentParser) -> None:
    from dmgfs.cli import info, mount, verify

    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    for name, module, text in (
        ("info", info, "what it offers, and its root image"),
        ("verify", verify, "whether all files are there, and the root image is sound"),
        ("mount", mount, "mount its root image; writable if it supports clients without disks"),
    ):
        module.configure(verbs.add_parser(name, help=text, description=text))


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli import info, mount, verify
    from dmgfs.container.nbi import read_folder, recognise_folder
    from dmgfs.errors import NotAnImage

    if not recognise_folder(args.image):
        raise NotAnImage("no NetBoot folder: there is no NBImageInfo.plist in it")
    if args.what == "info":
        return info.run(args)
    folder = read_folder(args.image)
    if args.what == "mount":
        return mount.run(_as_the_folder_says(args, folder))
    code = _check(folder, args.json)
    return verify.run(args) or code


def _as_the_folder_says(args: argparse.Namespace, folder: "NetBootFolder") -> argparse.Namespace:
    if folder.details.get("IsEnabled") is False:
        print(printable(f"dmgfs: {args.image}: the folder is not enabled: no server would offer it"), file=sys.stderr)
    if args.shadow is None and not args.late_shadow and folder.details.get("SupportsDiskless") is True:
        args.shadow = "ram"
    return args


def _check(folder: "NetBootFolder", as_json: bool) -> int:
    """Lines, or a JSON list, about the files beside the image; the exit code."""
    files = folder.details["files"]
    assert isinstance(files, list)
    findings = [
        {"what": f"{file['role']} {file['path']}", "ok": file["size"] is not None, "size": file["size"]}
        for file in files
    ]
    if folder.details.get("IsEnabled") is False:
        findings.append({"what": "the folder is not enabled", "ok": None})
    if as_json:
        print_json(findings)
    else:
        words = {True: "ok", False: "BAD", None: "?"}
        for finding in findings:
            missing = ": it is missing" if finding["ok"] is False else ""
            print(printable(f"{words[finding['ok']]:4}{finding['what']}{missing}"))
    return DATA_ERROR if any(finding["ok"] is False for finding in findings) else 0
