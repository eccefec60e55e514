"""The options of `dmgfs mount` for what goes beyond serving: --engine, --toram, --playlist, --liveroot. Rules as in
`options`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dmgfs.cli.network import is_url
from dmgfs.cli.options import Shadow, WrongUsage, choose, parse_shadow

if TYPE_CHECKING:
    from dmgfs.fuse.extras import Extras
    from dmgfs.fuse.playlist import Wish


def add_extra_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--engine",
        metavar="dmgfs|overlayfs",
        help="who keeps the changes: dmgfs (default), or the kernel's overlay over a read-only dmgfs (root, "
        "case-sensitive volumes, --shadow ram only): faster writes, but the first one to a file copies all of it",
    )
    add(
        "--toram",
        action="store_true",
        help="move the whole image into memory meanwhile, then let go of its file, so that its disk can be taken out",
    )
    add(
        "--playlist",
        metavar="record=FILE|use=FILE|auto",
        help="note what a start reads, and read it ahead the next time; auto keeps the list in a cache folder",
    )

    add(
        "--liveroot",
        action="store_true",
        help="fit to be a root directory: survives switch_root, shutdown's signals and a lack of memory; implies "
        "-o allow_other,dev,suid",
    )


def check(args: argparse.Namespace, shadow: Shadow) -> Shadow:
    """Raises WrongUsage. The shadow to take: the kernel's overlay is there to be written to, so it has one in memory
    unless told otherwise. Says what is lost with it."""
    parse_playlist(args.playlist)
    if args.toram and is_url(args.image):
        raise WrongUsage("--toram takes images of this machine; fetch it first, or leave --toram out")
    if choose("engine", args.engine, ("dmgfs", "overlayfs"), "dmgfs") != "overlayfs":
        return shadow
    if args.shadow is None:
        shadow = parse_shadow("ram")
    if shadow.kind != "ram":
        raise WrongUsage(f"--engine overlayfs keeps changes in memory: write --shadow ram[:SIZE], not {args.shadow}")
    if shadow.compress != "none":
        raise WrongUsage("--engine overlayfs compresses nothing; leave compress out")
    if args.shadow_ro:
        raise WrongUsage("--engine overlayfs takes no layers below; leave --shadow-ro out")
    if getattr(args, "late_shadow", False):
        raise WrongUsage("--engine overlayfs cannot get a shadow later; leave --late-shadow out")
    from dmgfs.fuse.scaffold import LOST

    print(f"dmgfs: {LOST}", file=sys.stderr)
    return shadow


def kernel_words(args: argparse.Namespace, words: Sequence[str]) -> tuple[str, ...]:
    """What libfuse is to be told. A live root has what a root must have, unless the contrary was said."""
    if not args.liveroot:
        return tuple(words)
    from dmgfs.fuse.hardening import IMPLIED

    return (*words, *(word for word in IMPLIED if word not in words and f"no{word}" not in words))


def parse_playlist(text: str | None) -> tuple[Literal["record", "use", "auto"], str] | None:
    """(kind, absolute path). Raises WrongUsage."""
    if text is None:
        return None
    kind, _, path = text.partition("=")
    if text == "auto":
        return "auto", ""
    if kind == "record" and path:
        return "record", os.path.abspath(path)
    if kind == "use" and path:
        return "use", os.path.abspath(path)
    raise WrongUsage(f"--playlist {text}: write record=FILE, use=FILE or auto")


def extras(args: argparse.Namespace, shadow: Shadow) -> "Extras":
    """In the process that will serve."""
    from dmgfs.fuse.extras import Extras

    to_ram = None
    if args.toram:
        from dmgfs.fuse.toram import ToRam

        to_ram = ToRam()
    return Extras(
        to_ram,
        _wish(args.playlist),
        shadow.budget if args.engine == "overlayfs" else None,
        args.liveroot,
        args.verify == "full",
    )


def _wish(text: str | None) -> "Wish | None":
    parsed = parse_playlist(text)
    if parsed is None:
        return None
    from dmgfs.fuse.playlist import Wish

    return Wish(*parsed)
