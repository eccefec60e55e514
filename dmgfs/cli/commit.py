"""dmgfs commit: an image and what was changed over it, as a new image. Of a live mount it takes what the mount is at one
moment, and the mount goes on.

What did not change stays on its blocks and, where the image is a UDIF, in the coding that it has; only the rest is coded.
Exit codes besides the usual: 65 where the changes do not fit on the volume, 73 where the output exists or is an input.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dmgfs.cli.report import Progress, add_progress_option, human, print_json, printable
from dmgfs.cli.shadowfile import Opened, add_offline_options, is_file, opened_over
from dmgfs.cli.stopping import stopped_by_signals

if TYPE_CHECKING:
    from dmgfs.packing import Packed
    from dmgfs.packing.reuse import Reuse
    from dmgfs.partitions import Partition, PartitionMap
    from dmgfs.source import ByteSource

SUMMARY = "make a new image of an image and the changes over it"

USAGE = 64
SECTOR = 512
CHUNK_SECTORS = 2048
FORMATS = ("udzo", "ulfo", "udbz", "ulmo", "udco", "udro", "raw", "sparseimage")
LAYOUTS = ("gpt", "apm", "none")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", metavar="MOUNTPOINT|SHADOW", help="a live mount, or a shadow file that nobody uses")
    parser.add_argument("output", metavar="OUT", help="the image to write")
    parser.add_argument("--format", choices=FORMATS, help="default: that of the image, udzo where it is no UDIF")
    parser.add_argument("--level", metavar="N", type=int, help="udzo 1-12 (6), udbz 1-9 (9), ulmo 0-9 (6)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--jobs", metavar="N", type=int, help="threads (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="say what was written as a JSON object")
    add_offline_options(parser)
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli import code_of
    from dmgfs.cli.options import WrongUsage
    from dmgfs.errors import Unwritable
    from overlay.errors import ShadowError

    try:
        with stopped_by_signals(), _changes(args) as opened:
            return _commit(args, opened)
    except WrongUsage as error:
        return _refuse(args, str(error), USAGE)
    except ShadowError as error:
        return _refuse(args, str(error), code_of(error))
    except Unwritable as error:
        for place in error.places:
            print(printable(f"dmgfs: {args.where}: {place}"), file=sys.stderr)
        raise


@contextmanager
def _changes(args: argparse.Namespace) -> Iterator[Opened]:
    """The changes over their image: of a live mount a copy that does not change."""
    from dmgfs.cli.destination import files_of, require_apart

    with tempfile.TemporaryDirectory(prefix="dmgfs-commit-") as folder:
        told = argparse.Namespace(**vars(args))
        if is_file(args.where):
            require_apart(args.output, [args.where, *args.shadow_ro])
        else:
            told.where = os.path.join(folder, "shadow")
            _save(args, told)
        with opened_over(told) as opened:
            require_apart(args.output, files_of(opened.image))
            yield opened


def _save(args: argparse.Namespace, told: argparse.Namespace) -> None:
    """Has the daemon copy its changes to `told.where`, and makes `told` speak of the copy."""
    from dmgfs.cli.control import ask, require
    from dmgfs.cli.destination import require_apart

    mount = require(args.where)
    status = ask(mount.path, "status")
    if status["partition"] == "disk":
        from dmgfs.cli.options import WrongUsage

        how = "`dmgfs shadow save` its blocks, then `dmgfs convert IMAGE OUT --shadow FILE`"
        raise WrongUsage(f"an attached disk has blocks and no files to commit; {how}")
    args.image = args.image or status["image"]
    layers = [layer["file"] for layer in status["layers"]]
    shadow = (status["shadow"] or {}).get("kind", "ram")
    require_apart(args.output, [args.image, *layers, *([shadow] if shadow != "ram" else [])])
    file = os.open(told.where, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if status["shadow"] is None:
            from dmgfs.cli.options import WrongUsage

            raise WrongUsage("the mount is read-only, so nothing can have changed; `dmgfs convert` copies an image")
        ask(mount.path, "save", [file], seconds=None, path=told.where, snapshot=args.snapshot)
    finally:
        os.close(file)
    told.snapshot, told.shadow_ro, told.image = None, layers, args.image
    told.partition = args.partition or status["partition"].split()[0]


def _commit(args: argparse.Namespace, opened: Opened) -> int:
    from dmgfs.cli.create import epoch
    from dmgfs.errors import Unsupported
    from dmgfs.gathering.changes import ChangesOrigin
    from dmgfs.hfsplus.volume import HfsPlusVolume
    from dmgfs.hfsplus_writer.base import Base
    from dmgfs.hfsplus_writer.inventory import Inventory
    from dmgfs.hfsplus_writer.revision import revise_volume

    image, partition = opened.image, opened.partition
    volume = image.volume_on(partition)
    if not isinstance(volume, HfsPlusVolume):
        raise Unsupported(f"a new image of an {volume.info.kind} volume", "extract it, then create")
    scheme = _scheme(args, image.map, partition)
    base = Base(volume)
    inventory = Inventory(case_sensitive=base.case_sensitive)
    try:
        base.load(inventory)
        origin = ChangesOrigin([*opened.layers, opened.overlay], inventory, base.block_size)
        origin.apply()
        revised = revise_volume(inventory, origin, base, modified=epoch()[0], may_grow=True)
        for line in origin.left.lines():
            print(printable(f"dmgfs: {args.where}: left out or changed: {line}"), file=sys.stderr)
        packed, reuse = _pack(args, opened, revised.source, scheme)
    finally:
        inventory.close()
    _report(args, packed, revised.files, revised.folders, revised.source.size, reuse)
    return 0


def _scheme(args: argparse.Namespace, found: "PartitionMap", partition: "Partition") -> str:
    """The map that the new disk gets, which has this volume only. Raises Unsupported where others would be lost."""
    from dmgfs.errors import Unsupported
    from dmgfs.partitions.partition import SECOND_CHOICE

    others = [one for one in found.partitions if one.index != partition.index and one.may_hold_volume]
    for one in others:
        what = f"left out: partition {one.index} {one.type} {one.name}, {human(one.length)}"
        print(printable(f"dmgfs: {args.where}: {what}"), file=sys.stderr)
    if any(not one.type.startswith(SECOND_CHOICE) for one in others):
        raise Unsupported("a new image of a disk with several volumes", "make one of each with convert --partition")
    return {"GPT": "gpt", "APM": "apm", "MBR": "gpt", "none": "none"}[found.scheme]


def _pack(
    args: argparse.Namespace, opened: Opened, volume: "ByteSource", scheme: str
) -> "tuple[Packed, Reuse | None]":
    from dmgfs.cli.options import WrongUsage
    from dmgfs.container.udifdisk import UdifDisk
    from dmgfs.packing import FORMATS as KNOWN
    from dmgfs.packing import pack
    from dmgfs.packing.layout import partitioned, start_of
    from dmgfs.packing.reuse import Reuse
    from dmgfs.partitions import read_map

    old = opened.image.disk
    args.format = args.format or _format_of(old)
    codec = KNOWN[args.format].codec
    reuse = None
    if isinstance(old, UdifDisk) and codec is not None and args.level is None:
        found = opened.image.found(opened.partition)
        reuse = Reuse(old, codec, start_of(scheme) - found.start)
    identifier = bytes(volume.read(1024 + 104, 8))  # the volume's own, in its header
    disk = partitioned(volume, scheme, identifier)
    progress = Progress(args.progress, "commit", disk.size)
    try:
        packed = pack(
            disk,
            args.output,
            args.format,
            layout=read_map(disk),
            chunk=CHUNK_SECTORS * SECTOR,
            level=args.level,
            replace=args.force,
            workers=args.jobs,
            advance=lambda amount: progress.advance(amount, args.output),
            reuse=reuse,
        )
        return packed, reuse
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    finally:
        progress.finish()


def _format_of(old: "ByteSource") -> str:
    """The coding that most of the old image has."""
    from dmgfs.container.udifdisk import UdifDisk
    from dmgfs.packing import FORMATS as KNOWN

    if not isinstance(old, UdifDisk):
        return "udzo"
    names = {form.codec: name for name, form in KNOWN.items() if form.codec is not None}
    tallies = [(tally.expanded, name) for name, tally in old.tallies.items() if name in names]
    return names[max(tallies)[1]] if tallies else "udro"


def _report(
    args: argparse.Namespace, packed: "Packed", files: int, folders: int, size: int, reuse: "Reuse | None"
) -> None:
    facts: dict[str, Any] = {"files": files, "folders": folders, "volume_size": size, "size": packed.size}
    facts["runs"] = packed.runs
    facts["runs_kept"] = 0 if reuse is None else reuse.kept
    if args.json:
        print_json({"output": args.output, "format": args.format, **facts})
    else:
        total = sum(count for name, count in packed.runs.items() if name not in ("zero", "ignore"))
        what = f"{files} files and {folders} folders; {facts['runs_kept']} of {total} chunks as they were"
        print(printable(f"{args.output}: {args.format}, {human(packed.size)}: {what}"))


def _refuse(args: argparse.Namespace, why: str, code: int) -> int:
    print(printable(f"dmgfs: {args.where}: {why}"), file=sys.stderr)
    return code
