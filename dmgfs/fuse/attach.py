"""From an image to its disk as files: what `dmgfs attach` serves. The order is that of `serve`."""

import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmgfs.blockshadow import DiskLower, DiskTree, View, views_of
from dmgfs.cache import ChunkCache
from dmgfs.fuse.diskoperations import DiskOperations
from dmgfs.fuse.operations import DmgOperations
from dmgfs.fuse.treeserve import serve_tree
from dmgfs.identity import disk_identity
from dmgfs.source import Buffer, ByteSource, Run, RunSource
from overlay.superblock import Base

if TYPE_CHECKING:
    from dmgfs.fuse.serve import Shadow
    from dmgfs.image import Image
    from dmgfs.remote import RemoteSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attached:
    """What is attached. path, cache, remote_below: as a Subject of the control verbs."""

    path: str
    cache: ChunkCache[Buffer]
    disk: ByteSource
    views: list[View]
    base: Base
    remote_below: "RemoteSource | None" = None


def of_image(image: "Image") -> Attached:
    """Raises OSError."""
    for warning in image.warnings:
        log.warning("%s: %s", ascii(image.path)[1:-1], ascii(warning)[1:-1])
    views = views_of(image.partitions, image.disk.size)
    return Attached(image.path, image.cache, image.disk, views, disk_identity(image), image.remote_below)


def of_memory(sectors: int) -> Attached:
    """A disk of zeros."""
    size = sectors * 512
    return Attached(f"ram://{sectors}", ChunkCache(0), RunSource([Run(None, 0, size)]), [], {"zeros": size})


def serve_disk(
    attached: Attached,
    path: str,
    *,
    shadow: "Shadow | None",
    late_shadow: bool,
    kernel_words: Collection[str],
    ready: Callable[[], None],
) -> None:
    """Mounts the files of the disk on `path` and returns when the mount is gone. As for `serve`."""
    lower = DiskLower(
        attached.disk, attached.views, uid=os.geteuid(), gid=os.getegid(), made_ns=time.time_ns() // 10**9 * 10**9
    )
    tree = DiskTree(lower, shadow.open(lambda: attached.base) if shadow is not None else None)
    operations: type[DmgOperations] = DiskOperations if attached.views else DmgOperations
    serve_tree(
        attached,
        lower,
        tree,
        path,
        operations=operations,
        part="disk",
        base=attached.base,
        shadow=shadow.name if shadow is not None else None,
        writable=shadow is not None or late_shadow,
        access_lists=False,
        kernel_words=kernel_words,
        ready=ready,
    )
