"""A tree that is no volume of an image, served as a mount: a RAM disk, the files of an attached disk. The little brother of
`serve`, with the same parts.

Rule: the tree is complete before the kernel is asked for anything.
"""

import logging
from collections.abc import Callable, Collection

import pyfuse3

from dmgfs.fuse.boundary import Boundary, guard
from dmgfs.fuse.control import Control
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.operations import DmgOperations
from dmgfs.fuse.pool import Pool
from dmgfs.fuse.prefetch import REMOTE_WINDOW, WINDOW, ReadAhead
from dmgfs.fuse.serve import libfuse_options, one_heap, workers
from dmgfs.fuse.session import Companion, Session
from dmgfs.fuse.verbs import Spelled, Subject, Verbs
from dmgfs.layers import Stack
from overlay.overlay import Overlay
from overlay.superblock import Base

log = logging.getLogger(__name__)


def serve_tree(
    subject: Subject,
    lower: Spelled,
    overlay: Overlay,
    path: str,
    *,
    operations: type[DmgOperations],
    part: str,
    base: Base,
    shadow: str | None,
    writable: bool,
    access_lists: bool,
    kernel_words: Collection[str],
    ready: Callable[[], None],
) -> None:
    """Mounts `overlay` on `path`, returns when the mount is gone and the overlay closed.

    subject: what it is, for `dmgfs status` and the mount table. part: which part of it. base: what a shadow is bound to.
    shadow: what the user calls the place of the changes. writable: for the kernel; it may be so before there is a shadow.
    kernel_words: -o words for libfuse. ready: called when the mount answers. Raises MountFailed, OSError, MemoryError with
    nothing mounted.
    """
    one_heap()
    remote = subject.remote_below
    pool = Pool(workers(remote=remote is not None))
    beside: list[Companion] = []
    if remote is not None:
        from dmgfs.fuse.network import Network

        beside.append(Network(remote))
    driver = Driver(pool)
    boundary = Boundary()
    served = operations(
        overlay,
        driver,
        ReadAhead(pool, subject.cache.budget // 2, WINDOW if remote is None else REMOTE_WINDOW),
        frozen=not writable,
        access_lists=access_lists,
        only_spelling=lower.only_spelling,
        control=lambda uid: control.told(uid),
    )
    verbs = Verbs(subject, part, lower, overlay, driver, boundary, served, Stack(lower, base), shadow, pyfuse3)
    control: Control = Control(verbs.handlers())
    session = Session(
        guard(served, boundary),
        path,
        libfuse_options(subject.path, kernel_words, writable=writable),
        pool,
        statistics=lambda: f"statistics: {verbs.report()}",
        ready=ready,
        companions=[control, *beside],
    )
    try:
        session.run()
    finally:
        overlay.close()
    log.info("%s is unmounted", path)
