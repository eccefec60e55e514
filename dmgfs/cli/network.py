"""--network-timeout and --network-cache: how an image behind a URL is read. Rules as in `options`."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmgfs.remote.settings import Settings

MOST_SECONDS = 3600.0
LEAST_CACHE = 4 << 20


def add_network_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--network-timeout",
        metavar="SECONDS",
        type=_checked(_seconds),
        help="of an image behind a URL: seconds without a byte until a read fails, default 30",
    )
    add(
        "--network-cache",
        metavar="DIR[:SIZE]|none",
        type=_checked(_cache),
        help="where blocks of it are kept, at most SIZE bytes in all, default 1G in /var/cache/dmgfs or ~/.cache/dmgfs",
    )


def is_url(image: str) -> bool:
    """Whether the image is not on this machine."""
    if "://" not in image or os.path.exists(image):
        return False
    from dmgfs.remote.address import is_url

    return is_url(image)


def shown(image: str) -> str:
    """The image in messages: a URL without passwords and signatures."""
    if "://" not in image:
        return image
    from dmgfs.remote.address import shown

    return shown(image)


def network_of(args: argparse.Namespace) -> "Settings | None":
    """What was said; None for an image on this machine. Raises WrongUsage."""
    if not is_url(args.image) and not is_url(getattr(args, "other", "")):
        return None
    from dmgfs.remote.settings import CACHE_BYTES, TIMEOUT, Settings, default_folder

    timeout = TIMEOUT if args.network_timeout is None else _seconds(args.network_timeout)
    if args.network_cache is None:
        return Settings(timeout, default_folder(), CACHE_BYTES)
    folder, size = _cache(args.network_cache)
    return Settings(timeout, folder, CACHE_BYTES if size is None else size)


def _checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """For argparse: the text as it is, if it can be understood. -o words come as text as well."""

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def _seconds(text: str) -> float:
    from dmgfs.cli.options import WrongUsage

    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MOST_SECONDS:
        raise WrongUsage(f"--network-timeout {text}: write seconds, 1 to {MOST_SECONDS:.0f}")
    return seconds


def _cache(text: str) -> tuple[str | None, int | None]:
    """DIR, DIR:SIZE, :SIZE (the default folder) or none, as (absolute path, bytes)."""
    from dmgfs.cli.options import WrongUsage, parse_size

    if text == "none":
        return None, None
    folder, colon, amount = text.rpartition(":")
    size = None
    if colon:
        try:
            size = parse_size(amount)
        except WrongUsage:
            folder = text  # the colon is part of the name
    else:
        folder = text
    if size is not None and size < LEAST_CACHE:
        raise WrongUsage(f"--network-cache {text}: at least {LEAST_CACHE >> 20}M are needed")
    if not folder:
        from dmgfs.remote.settings import default_folder

        return default_folder(), size
    return os.path.abspath(folder), size
