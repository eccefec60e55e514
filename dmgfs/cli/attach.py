"""dmgfs attach: the disk that is in an image, and each of its partitions, as files that loop devices and emulators use.

Rules that hold here:
- the command returns when the files are there, or with one line that says why not and nothing mounted;
- what is written goes to a shadow of blocks; the image is never written.
"""

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from dmgfs.cli.network import network_of
from dmgfs.cli.options import WrongUsage, convert, parse_shadow, parse_size, parse_words
from dmgfs.cli.report import say
from dmgfs.cli.target import absolute, add_image_options, open_as_told

if TYPE_CHECKING:
    from collections.abc import Callable

    from dmgfs.cli.options import Shadow
    from dmgfs.fuse.serve import Shadow as ServedShadow
    from overlay.store import Store
    from overlay.superblock import Base

SUMMARY = "show the disk in an image and its partitions as files"

USAGE = 64

CACHE_BYTES = 32 << 20
RAM = "ram://"


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False, cache=False)
    add = parser.add_argument
    add("directory", metavar="DIR", help="an existing directory; disk and disk0s1 … appear in it")
    add(
        "--shadow",
        metavar="none|ram[:SIZE|:NN%]|FILE",
        help="where what is written goes; none (the default): read-only",
    )
    add("--recycle", action="store_true", help="begin with an empty shadow file, whatever is in it")
    add("--force-base", action="store_true", help="take a shadow file that was made over another disk")
    add("--preallocate", metavar="SIZE", help="reserve room for the shadow file")
    add("--late-shadow", action="store_true", help="read-only until `dmgfs shadow attach`, which needs no root then")
    add("--cache", metavar="SIZE", help="memory for decoded chunks, default 32M")
    add("--log", metavar="FILE|syslog|kmsg|stderr|none", help="where the daemon reports")
    add(
        "-o",
        dest="words",
        metavar="OPTION,...",
        action="append",
        default=[],
        help="options as in fstab (allow_other …)",
    )
    add("-f", "--foreground", action="store_true", help="stay in the foreground")


def run(args: argparse.Namespace) -> int:
    from dmgfs.fuse import daemon, mountpoint

    try:
        words = parse_words(args.words)
        if words.ours:
            raise WrongUsage(f"-o {next(iter(words.ours))}: write it as a long option")
        sectors = _sectors(args.image)
        network = None if sectors is not None else network_of(args)
        shadow = parse_shadow(args.shadow or ("none" if sectors is None else f"ram:{_room_for(sectors)}"))
        if shadow.compress != "none":
            raise WrongUsage(f"--shadow {args.shadow}: a shadow of blocks is not compressed")
        preallocate = convert("preallocate", args.preallocate, parse_size, 0)
        if shadow.kind != "file" and (args.recycle or args.force_base or preallocate):
            raise WrongUsage("--recycle, --force-base and --preallocate are about a shadow FILE")
        cache_bytes = convert("cache", args.cache, parse_size, CACHE_BYTES)
    except WrongUsage as error:
        return say(f"attach: {error}", USAGE)
    daemon.keep_standard_streams()
    hidden = [shadow.path] if shadow.kind == "file" else []
    if sectors is None and network is None:
        args.image = absolute(args.image)
        hidden.append(args.image if os.path.exists(args.image) else args.image.partition("//")[0])
    if args.log not in (None, "stderr", "syslog", "kmsg", "none"):
        args.log = os.path.abspath(args.log)
        hidden.append(args.log)
    path = mountpoint.check(args.directory, *hidden)
    ready = (lambda: None) if args.foreground else daemon.into_background(keep_stderr=args.log == "stderr")
    from dmgfs.cli.outcome import outcome
    from dmgfs.fuse.attach import of_image, of_memory, serve_disk
    from dmgfs.fuse.log import open_log

    open_log(args.log, foreground=args.foreground)
    served = partial(
        serve_disk,
        path=path,
        shadow=_served(args, shadow, preallocate),
        late_shadow=args.late_shadow,
        kernel_words=words.kernel,
        ready=ready,
    )

    def serve() -> None:
        if sectors is not None:
            served(of_memory(sectors))
            return
        with open_as_told(args, cache_bytes, network) as image:
            served(of_image(image))

    return outcome(serve, path, args.image, shadow.path)


def _sectors(image: str) -> int | None:
    """Of ram://SECTORS; None for anything else. Raises WrongUsage."""
    if not image.startswith(RAM):
        return None
    number = image.removeprefix(RAM)
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 1 << 40:
        raise WrongUsage(f"{image}: write ram://SECTORS, of 512 bytes each")
    return int(number)


def _room_for(sectors: int) -> int:
    """A budget in which all of the disk can be written: its pages, and what it takes to know them."""
    pages = -(-sectors // 8)
    return pages * (4096 + 64) + (256 << 10)


def _served(args: argparse.Namespace, wanted: "Shadow", preallocate: int) -> "ServedShadow | None":
    from dmgfs.fuse.serve import Shadow as ServedShadow
    from overlay.file import FileStore
    from overlay.ram import RamStore

    def open_file(base: "Callable[[], Base]") -> "Store":
        return FileStore.open_file(
            wanted.path, base(), force_base=args.force_base, recycle=args.recycle, preallocate=preallocate
        )

    if wanted.kind == "none":
        return None
    if wanted.kind == "ram":
        return ServedShadow("ram", lambda base: RamStore(wanted.budget))
    return ServedShadow(wanted.path, open_file)
