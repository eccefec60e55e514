"""How a volume is shown as a Linux tree: the options that `mount` and the offline verbs of `shadow` share. The changes of a
shadow were made in one view; another one may show them under other names or owners."""

import argparse
import os
from typing import TYPE_CHECKING, Literal, cast

from dmgfs.cli.options import WrongUsage, choose, convert, identity, octal, parse_owners

if TYPE_CHECKING:
    from dmgfs.lower import View


def add_view_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--owners",
        metavar="on|off|UID:GID",
        help="whose files they are: as recorded (on, the default for root), all yours (off, the default for others), or "
        "all of that user and group",
    )
    add("--uid", metavar="N", help="owner of what has none recorded, and of all with --owners off; default: you")
    add("--gid", metavar="N", help="the same for the group")
    add("--umask", metavar="OCTAL", help="permissions taken away from what has none recorded, default 022")
    add("--names", metavar="nfc|nfd", help="show names composed (default) or decomposed as the volume stores them")
    add("--xattrs", metavar="user|raw|none", help="extended attributes as user.NAME (default), as NAME, or hidden")


def view_of(args: argparse.Namespace) -> "View":
    """Raises WrongUsage."""
    from dmgfs.lower import View

    owners, everyone = parse_owners(args.owners, "image" if os.geteuid() == 0 else "mounter")
    if everyone is not None and (args.uid is not None or args.gid is not None):
        raise WrongUsage(f"--owners {args.owners} says all; leave --uid and --gid out")
    uid, gid = everyone or (
        convert("uid", args.uid, identity, os.getuid()),
        convert("gid", args.gid, identity, os.getgid()),
    )
    return View(
        names=cast(Literal["nfc", "nfd"], choose("names", args.names, ("nfc", "nfd"), "nfc")),
        owners=cast(Literal["image", "mounter"], owners),
        uid=uid,
        gid=gid,
        umask=convert("umask", args.umask, octal, 0o022),
        xattrs=cast(Literal["user", "raw", "none"], choose("xattrs", args.xattrs, ("user", "raw", "none"), "user")),
    )
