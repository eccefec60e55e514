"""dmgfs verify: does everything in the image decode, and is it what its checksums say? --deep: are the volumes sound, and
can every file be read?

The exit code is 0 when nothing is wrong, 65 when something is. What cannot be told is said and is no fault.
"""

import argparse
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dmgfs.cli.report import JsonList, Progress, add_progress_option, human, printable
from dmgfs.cli.target import add_image_options, open_target
from dmgfs.errors import DmgError

if TYPE_CHECKING:
    from dmgfs.cli.tree import Item, Tree
    from dmgfs.image import Image
    from dmgfs.partitions import Partition
    from dmgfs.source import ByteSource

SUMMARY = "check an image against its checksums, and its volumes"

BLOCK = 1 << 20
SECTOR = 512
MOST_BYTES = 1 << 44
"""A disk that claims more is not read to its end: nobody waits for that."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_image_options(parser, volume=False)
    parser.add_argument("--deep", action="store_true", help="also the structure of every volume, and every file")
    parser.add_argument("--json", action="store_true", help="a list of findings instead of lines")
    add_progress_option(parser)


def run(args: argparse.Namespace) -> int:
    good = True
    with open_target(args) as image, JsonList(args.json) as findings:
        for finding in _findings(image, args):
            good = good and finding["ok"] is not False
            if args.json:
                findings.add(finding)
            else:
                print(printable(_line(finding)), flush=True)
    if not args.json:
        print("nothing is wrong" if good else "the image is damaged")
    return 0 if good else 65


def finding(what: str, ok: bool | None, why: str = "", **facts: Any) -> dict[str, Any]:
    """One result. ok None: could not be told."""
    return {"what": what, "ok": ok, "why": why, **facts}


def _line(finding: dict[str, Any]) -> str:
    word = {True: "ok", False: "BAD", None: "?"}[finding["ok"]]
    text = f"{word:4}{finding['what']}"
    if finding.get("algorithm"):
        text += f", {finding['algorithm']}"
    if finding["why"]:
        text += f": {finding['why']}"
    elif finding["ok"] is False and finding.get("expected"):
        text += f": {finding['actual']} computed, {finding['expected']} recorded"
    return text


def _findings(image: "Image", args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    yield from (finding(f"{image.container.kind} image", None, warning) for warning in image.warnings)
    yield from _container(image, args)
    for partition in image.partitions if args.deep else ():
        if image.mountable(partition):
            yield from _volume(image, partition, args)
        elif partition.may_hold_volume:
            kind = image.found(partition).kind
            yield finding(f"partition {partition.index}", None, f"{kind}: its contents are not checked")


def _container(image: "Image", args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The container's own checksums, and what they do not cover."""
    if image.container.verify is None:
        yield _readable(f"{image.container.kind} image", image.disk, 0, image.disk.size, args)
        return
    from dmgfs.container.checksum import Verdict

    progress = Progress(args.progress, "checksums")
    for step in image.container.verify():
        if isinstance(step, Verdict):
            progress.finish()
            yield finding(
                step.what, step.ok, step.why, algorithm=step.algorithm, expected=step.expected, actual=step.actual
            )
        else:
            progress.total = step.total
            progress.advance(step.done - progress.done, step.what)
    progress.finish()
    for table in image.container.details.get("tables", ()):
        if table["checksum"] is None:
            start = min(table["start"] * SECTOR, image.disk.size)
            length = min(table["sectors"] * SECTOR, image.disk.size - start)
            yield _readable(f"block table {table['name']!r}, which has no checksum", image.disk, start, length, args)


def _readable(what: str, disk: "ByteSource", start: int, length: int, args: argparse.Namespace) -> dict[str, Any]:
    """Whether all of a stretch can be read. Says the first damage only."""
    if length > MOST_BYTES:
        return finding(what, None, f"{human(length)} are too much to read")
    progress = Progress(args.progress, "reading", length)
    try:
        for offset in range(0, length, BLOCK):
            step = min(BLOCK, length - offset)
            disk.read(start + offset, step)
            progress.advance(step, what)
    except DmgError as error:
        return finding(what, False, str(error))
    finally:
        progress.finish()
    return finding(what, True, f"all {human(length)} can be read")


def _volume(image: "Image", partition: "Partition", args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from dmgfs.cli.tree import Tree
    from dmgfs.hfsplus.check import check_tree
    from dmgfs.hfsplus.volume import HfsPlusVolume
    from dmgfs.lower import VolumeLower

    where = f"partition {partition.index}"
    try:
        volume = image.volume_on(partition)
    except DmgError as error:
        yield finding(where, False, str(error))
        return
    where = f"{volume.info.kind} volume {volume.info.name!r} on {where}"
    for warning in volume.info.warnings:
        yield finding(where, None, warning)
    if isinstance(volume, HfsPlusVolume):
        for tree in volume.trees():
            faults = [str(fault) for fault in check_tree(tree)]
            yield from (finding(where, False, fault) for fault in faults)
            if not faults:
                yield finding(where, True, f"{tree.layer}: {tree.header.leaf_records} records in order")
    yield from _files(Tree(volume, VolumeLower(volume)), where, args)


def _files(tree: "Tree", where: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    progress = Progress(args.progress, "files")
    counts = {"files": 0, "folders": 0, "others": 0}
    damaged = 0
    for step in tree.walk(tree.root()):
        try:
            if step.item is None:
                raise step.error or AssertionError(step)
            kind = stat.S_IFMT(step.item.attr.mode)
            counts[{stat.S_IFREG: "files", stat.S_IFDIR: "folders"}.get(kind, "others")] += 1
            _read(tree, step.item, progress)
        except (DmgError, OSError) as error:
            damaged += 1
            yield finding(f"{where}: /{step.path.decode('utf-8', 'surrogateescape')}", False, str(error))
    progress.finish()
    if not damaged:
        amounts = ", ".join(f"{count} {what}" for what, count in counts.items())
        yield finding(where, True, f"{amounts}, {human(progress.done)} can be read")


def _read(tree: "Tree", item: "Item", progress: Progress) -> None:
    """Reads all of one object: both forks, link target, attributes."""
    node = tree.volume.node(item.ino)
    if stat.S_ISLNK(item.attr.mode):
        tree.lower.readlink(item.ino)
    elif stat.S_ISREG(item.attr.mode):
        for source in (tree.volume.data(node), tree.volume.resource(node)):
            _read_source(source, item, progress)
    for source in tree.volume.attributes(node).values():
        _read_source(source, item, progress)


def _read_source(source: "ByteSource", item: "Item", progress: Progress) -> None:
    for offset in range(0, source.size, BLOCK):
        step = min(BLOCK, source.size - offset)
        source.read(offset, step)
        progress.advance(step, item.path)
