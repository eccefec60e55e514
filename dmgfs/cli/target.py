"""The image a verb works on: the options all verbs share, and how they become an Image, a Volume and a tree of names as
Linux shows them. Every verb that has these options opens its image here."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from dmgfs.cli.network import add_network_options, network_of
from dmgfs.cli.passphrase import add_passphrase_options, passphrase_source

if TYPE_CHECKING:
    from dmgfs.cli.tree import Tree
    from dmgfs.container import OpenFile
    from dmgfs.image import Image
    from dmgfs.remote.settings import Settings


def add_image_options(parser: argparse.ArgumentParser, *, volume: bool = True, cache: bool = True) -> None:
    """IMAGE and what opening it may need. volume: the verb works on one volume, so it can be chosen. cache: so can the
    memory for decoded chunks."""
    parser.add_argument(
        "image", metavar="IMAGE", help="disk image, or its URL; outer.dmg//inner.dmg names an image in an image"
    )
    if volume:
        parser.add_argument("--partition", metavar="N|NAME", help="which partition, if several hold a volume")
    parser.add_argument(
        "--no-replay", action="store_true", help="take a dirty volume as it stands, without its journal"
    )
    if cache:
        parser.add_argument(
            "--cache", metavar="SIZE", type=size, default="64M", help="memory for decoded chunks, default 64M"
        )
    add_network_options(parser)
    add_passphrase_options(parser)


def size(text: str) -> int:
    from dmgfs.cli.options import parse_size

    return parse_size(text)


def absolute(image: str) -> str:
    """For a process that leaves its working directory; also where links lead elsewhere meanwhile."""
    return image if os.path.isabs(image) else os.path.join(os.getcwd(), image)


def open_as_told(
    args: argparse.Namespace,
    cache_bytes: int,
    network: "Settings | None",
    *,
    path: str | None = None,
    passphrase: Callable[[], bytes] | None = None,
    open_file: "OpenFile | None" = None,
) -> "Image":
    """What the options of the command line say of opening. network: `network_of`, which a daemon asks before it leaves its
    folder. path: another image than theirs. The rest: as for `open_image`, which says what is raised."""
    from dmgfs.image import open_image
    from dmgfs.source import FileSource

    return open_image(
        args.image if path is None else path,
        passphrase=passphrase or passphrase_source(args),
        cache_bytes=cache_bytes,
        replay=not args.no_replay,
        open_file=open_file or FileSource,
        network=network,
    )


def open_target(args: argparse.Namespace) -> "Image":
    """The image of the command line. Raises what `open_image` raises."""
    image = open_as_told(args, args.cache, network_of(args))
    if image.remote is not None:
        args.image = image.path  # for messages: without what is secret in a URL
    return image


def open_tree(image: "Image", args: argparse.Namespace) -> "Tree":
    """The volume of the command line as a tree. Raises what `Image.volume` raises."""
    from dmgfs.cli.tree import Tree
    from dmgfs.forks import WithForks
    from dmgfs.lower import VolumeLower

    volume = image.volume(args.partition)
    return Tree(volume, WithForks(VolumeLower(volume)))
