"""dmgfs shadow, of a shadow file that nobody uses: what is in it over its image, without a mount. FUSE is not imported.

Rule: the file is opened for reading only, with a lock that other readers share.
"""

import argparse
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dmgfs.cli.network import add_network_options
from dmgfs.cli.options import WrongUsage
from dmgfs.cli.passphrase import add_passphrase_options
from dmgfs.cli.target import open_target, size
from dmgfs.cli.view import add_view_options, view_of
from overlay.overlay import Overlay
from overlay.vfs import Buffer

if TYPE_CHECKING:
    from dmgfs.image import Image
    from dmgfs.partitions import Partition


def add_offline_options(parser: argparse.ArgumentParser) -> None:
    """What it takes to read a shadow file without a mount."""
    parser.add_argument("--snapshot", metavar="NAME", help="what it was in this snapshot, instead of what it is")
    group = parser.add_argument_group("for a shadow FILE that nobody uses")
    add = group.add_argument
    add("--image", metavar="IMAGE", help="the image that the changes were made over")
    add(
        "--shadow-ro",
        metavar="FILE",
        action="append",
        default=[],
        help="a shadow that was between the image and this one; several: lowest first",
    )
    add("--force-base", action="store_true", help="take another image than that")
    add("--partition", metavar="N|NAME", help="which partition, if several hold a volume")
    add("--no-replay", action="store_true", help="take a dirty volume as it stands, without its journal")
    add("--cache", metavar="SIZE", type=size, default="64M", help="memory for decoded chunks, default 64M")
    add_network_options(parser)
    add_passphrase_options(parser)
    add_view_options(parser)


def is_file(where: str) -> bool:
    """Whether a MOUNTPOINT|FILE is meant as a file. What is not there is: the message will say so."""
    try:
        return not stat.S_ISDIR(os.stat(where).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a dead mount, most likely


class Opened(NamedTuple):
    """A shadow file over its image. partition: the one that holds the volume. layers: the shadows between the two, lowest
    first."""

    overlay: Overlay
    layers: list[Overlay]
    image: "Image"
    partition: "Partition"


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Overlay]:
    """The changes of the file over the image, as a mount would show them. Raises WrongUsage, DmgError, ShadowError,
    OSError."""
    with opened_over(args) as found:
        yield found.overlay


@contextmanager
def opened_over(args: argparse.Namespace) -> Iterator[Opened]:
    """The same, with the image."""
    from dmgfs.identity import identity
    from dmgfs.layers import stacked
    from dmgfs.lower import VolumeLower
    from overlay.file import FileStore

    if args.image is None:
        raise WrongUsage(
            f"{args.where} is no mount point; of a shadow file, say with --image IMAGE what it belongs to"
        )
    view = view_of(args)
    with ExitStack() as open_files:
        image = open_files.enter_context(open_target(args))
        partition = image.choose(args.partition)
        volume = image.volume_on(partition)
        below = stacked(
            VolumeLower(volume, view), identity(image, volume), args.shadow_ro, force_base=args.force_base
        )
        stack = open_files.enter_context(below)
        store = FileStore.open_file(args.where, stack.base(), read_only=True, force_base=args.force_base)
        try:
            overlay = Overlay(stack.lower, store)
            if args.snapshot is not None:
                found = overlay.snapshots().get(os.fsencode(args.snapshot))
                if found is None:
                    text = f"there is no snapshot {args.snapshot}; `dmgfs shadow snapshot list` shows them"
                    raise OSError(errno.ENOENT, text, args.where)
                overlay = found.view
            yield Opened(overlay, stack.views, image, partition)
        finally:
            store.close()


def records_of(overlay: Overlay) -> Iterator[dict[str, Any]]:
    """What differs from what is below."""
    from dmgfs.changelist import records

    return records(overlay)


def layer_of(overlay: Overlay, put: Callable[[Buffer], object]) -> int:
    """The changes as a layer; how many sockets were left out."""
    from dmgfs.layertar import write_layer

    return write_layer(overlay, put)


def snapshots_of(path: str) -> list[dict[str, Any]]:
    """As the daemon tells them. Raises ShadowError, OSError."""
    from overlay.file import FileStore
    from overlay.superblock import first_ino
    from overlay.tree import Tree

    store = FileStore.open_file(path, None, read_only=True)
    try:
        store.load(Tree(first_ino(store.base)))
        history = store.history()
        return [
            {"name": os.fsdecode(name), "made": one.made_ns / 1e9, **history.frozen[one.moment].count()}
            for name, one in history.snapshots.items()
        ]
    finally:
        store.close()
