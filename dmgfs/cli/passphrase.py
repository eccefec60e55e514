"""Where a passphrase comes from: a file, an inherited descriptor, or the terminal. Never the command line, which every
user of the machine can read (threats S8).

Rule: nobody is asked before an image turns out to be encrypted.
"""

import argparse
import getpass
import os
from collections.abc import Callable

from dmgfs.errors import PassphraseNeeded

_LIMIT = 1 << 16


def add_passphrase_options(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--passphrase-file", metavar="FILE", help="file that holds the passphrase of an encrypted image"
    )
    either.add_argument("--passphrase-fd", metavar="N", type=int, help="descriptor to read the passphrase from")
    parser.add_argument(
        "--slow-key",
        action="store_true",
        help="take the time for a key that is made to be slow (up to half a minute)",
    )


def passphrase_source(args: argparse.Namespace) -> Callable[[], bytes]:
    """A function that gets the passphrase. It raises PassphraseNeeded if there is no way to, OSError if the file or
    descriptor cannot be read."""
    known: list[bytes] = []
    if args.slow_key:
        from dmgfs.container import encrypted

        encrypted.MOST_ITERATIONS = encrypted.MOST_SLOW_ITERATIONS

    def once() -> bytes:
        if not known:
            known.append(_get(args))
        return known[0]

    return once


def _get(args: argparse.Namespace) -> bytes:
    if args.passphrase_file is not None:
        with open(args.passphrase_file, "rb") as file:
            return _first_line(file.read(_LIMIT))
    if args.passphrase_fd is not None:
        with os.fdopen(args.passphrase_fd, "rb", closefd=False) as file:
            return _first_line(file.read(_LIMIT))
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise PassphraseNeeded(
            "the image is encrypted; give its passphrase with --passphrase-file or --passphrase-fd"
        ) from None
    from dmgfs.cli.network import shown

    return getpass.getpass(f"Passphrase for {shown(args.image)}: ").encode("utf-8", "surrogateescape")


def _first_line(data: bytes) -> bytes:
    """As people write such files: the line end is not part of it."""
    return data.split(b"\n", 1)[0].removesuffix(b"\r")
