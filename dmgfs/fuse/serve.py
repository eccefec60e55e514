"""From an image to a served mount: the parts put together, in the order in which they depend on each other.

Rule: what can fail fails here, before the kernel is asked for anything: a damaged image leaves no mount behind.
"""

import ctypes
import errno
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, ExitStack, closing
from typing import TYPE_CHECKING, NamedTuple

import pyfuse3

from dmgfs.fuse.boundary import Boundary, guard
from dmgfs.fuse.channel import Channel
from dmgfs.fuse.control import Control
from dmgfs.fuse.direct import Direct
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.extras import Extras
from dmgfs.fuse.forks import ForkOperations
from dmgfs.fuse.housekeeping import Housekeeping
from dmgfs.fuse.log import Target, open_log
from dmgfs.fuse.mountpoint import FSTYPE
from dmgfs.fuse.pool import Pool
from dmgfs.fuse.prefetch import REMOTE_WINDOW, WINDOW, ReadAhead
from dmgfs.fuse.respelling import Respelling
from dmgfs.fuse.service import Service
from dmgfs.fuse.session import Session
from dmgfs.fuse.squeezer import Squeezer
from dmgfs.fuse.verbs import Verbs
from dmgfs.identity import identity
from dmgfs.layers import Stack
from dmgfs.lower import View
from overlay.errors import ShadowError
from overlay.overlay import Overlay
from overlay.store import Store
from overlay.superblock import Base
from overlay.vfs import Lower

if TYPE_CHECKING:
    from dmgfs.image import Image

log = logging.getLogger(__name__)


PLAIN = Extras()

WORKERS_VARIABLE = "DMGFS_WORKERS"
MOST_WORKERS = 64
REMOTE_WORKERS = 9
"""Of an image behind a URL: they wait for the server most of the time, and one is for who waits for them."""

TURN = 0.0005
"""Seconds that a thread of Python keeps the others waiting, a tenth of what is usual. Beside a reader of a file in ADC,
whose decoder is Python code, other requests take a third of the time (scripts/bench/turns)."""

_M_ARENA_MAX = -8  # of malloc.h


class Shadow(NamedTuple):
    """Where changes go. name: as the user calls it. open: makes the store, over what the function identifies. otherwise:
    what to take when it cannot be had, given why; nothing makes the mount read-only."""

    name: str
    open: Callable[[Callable[[], Base]], Store]
    otherwise: "Callable[[Exception], Shadow | None] | None" = None


def serve(
    open_image: Callable[[], "Image"],
    path: str,
    *,
    partition: str | None,
    view: View,
    layers: Callable[[Lower, Base], AbstractContextManager[Stack]],
    shadow: Shadow | None,
    late_shadow: bool,
    access_lists: bool,
    kernel_words: Collection[str],
    log_target: Target | None,
    foreground: bool,
    ready: Callable[[], None],
    extras: Extras = PLAIN,
    direct: bool = True,
) -> None:
    """Mounts the image on `path` and returns when the mount is gone.

    layers: lays saved shadows over the volume. shadow: None for a read-only mount. late_shadow: let the kernel ask about
    changes, which are refused until there is a shadow, so that it needs no remount then. access_lists: obey POSIX ACLs.
    kernel_words: -o words for libfuse. ready: called when the mount answers. extras: what it may have besides. direct:
    answer the most frequent requests without pyfuse3. Raises MountFailed, DmgError, ShadowError, MemoryError and OSError
    before that, with nothing mounted.
    """
    open_log(log_target, foreground=foreground)
    one_heap()
    sys.setswitchinterval(TURN)
    live_root = extras.make_live_root()
    service = Service(watched=live_root is None) if foreground else None
    with (
        open_image() as image,
        extras.scaffold(path, image.path, kernel_words) as scaffold,
        extras.beside(image) as companions,
        ExitStack() as below,
    ):
        extras.check(image)
        beside = [*companions, *([live_root] if live_root is not None else [])]
        chosen = image.choose(partition)
        volume = image.volume_on(chosen)
        for warning in [*image.warnings, *volume.info.warnings]:
            log.warning("%s: %s", ascii(image.path)[1:-1], ascii(warning)[1:-1])
        if volume.info.journal == "replayed":
            detail = ascii(volume.info.journal_detail)[1:-1]
            log.info("%s: the journal is replayed: %s; the image stays as it is", ascii(image.path)[1:-1], detail)
        lower = extras.lower(volume, view, companions)
        stack = below.enter_context(layers(lower, identity(image, volume)))
        overlay, shadow = overlay_with(stack, shadow)
        writable = shadow is not None or late_shadow
        remote = image.remote_below
        pool = Pool(workers(remote=remote is not None))
        driver = Driver(pool)
        boundary = Boundary()
        ahead = ReadAhead(pool, image.cache.budget // 2, WINDOW if remote is None else REMOTE_WINDOW)
        operations = ForkOperations(
            lower,
            overlay,
            driver,
            ahead,
            frozen=not writable,
            access_lists=access_lists,
            only_spelling=lower.only_spelling,
            control=lambda uid: control.told(uid),
            respelling=None if volume.info.case_sensitive else below.enter_context(closing(Respelling(lower.fold))),
        )
        channel = Channel(Direct(lower, overlay, operations, ahead), driver, boundary) if direct else None
        verbs = Verbs(
            image,
            f"{chosen.index} {volume.info.name}",
            lower,
            overlay,
            driver,
            boundary,
            operations,
            stack,
            shadow.name if shadow is not None else None,
            channel if channel is not None else pyfuse3,
        )
        if live_root is not None:
            live_root.keep_safe(lambda: driver.run(overlay.fsync()))
        control: Control = Control(verbs.handlers())

        def statistics() -> str:
            chunks = image.cache.statistics()
            store = overlay.store
            used = "read-only" if store is None else f"{store.used} of {store.budget} bytes"
            failures = ", ".join(f"{kind} {count}" for kind, count in sorted(boundary.failures.items())) or "none"
            return (
                f"statistics: lower asked {driver.hits + driver.misses} times, {driver.misses} not in memory; "
                f"cache {chunks.bytes} of {chunks.budget} bytes in {chunks.entries} chunks, {chunks.hits} hits, "
                f"{chunks.misses} misses, {chunks.evictions} evictions; loads {pool.foreground} wanted, "
                f"{pool.background} ahead; open files {len(operations.handles)}; shadow {used}; failures {failures}"
                + "".join(f"; {one.describe()}" for one in beside)
            )

        def announce() -> None:
            ready()
            if service is not None:
                changes = "read-only" if shadow is None else f"changes in {shadow.name}"
                service.ready(ascii(f"{image.path} on {path}, {changes}")[1:-1])

        session = Session(
            guard(operations, boundary),
            path if scaffold is None else scaffold.lower,
            libfuse_options(image.path, kernel_words if scaffold is None else (), writable=writable),
            pool,
            statistics=statistics,
            ready=announce,
            companions=[
                control,
                Squeezer(overlay),
                Housekeeping(overlay, driver),
                *beside,
                *([service] if service is not None else []),
            ],
            cover=None if scaffold is None else scaffold.cover,
            live_root=live_root,
            channel=channel,
        )
        try:
            session.run()
        finally:
            overlay.close()
        log.info("%s is unmounted", path)


def overlay_with(stack: Stack, shadow: Shadow | None) -> tuple[Overlay, Shadow | None]:
    """The overlay and the shadow that it has in the end. Raises ShadowError, OSError."""
    while shadow is not None:
        try:
            store = shadow.open(stack.base)
            try:
                return Overlay(stack.lower, store), shadow
            except BaseException:
                store.close()
                raise
        except (ShadowError, OSError) as error:
            if shadow.otherwise is None:
                raise
            shadow = shadow.otherwise(error)
    return Overlay(stack.lower), None


def one_heap() -> None:
    """All threads take memory from one heap. glibc gives every thread its own, and chunks that one thread decodes and
    another lets go of leave each of them full of holes: a fifth more memory (measured)."""
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        pass  # another C library: its heap is its own business


def workers(*, remote: bool = False) -> int:
    """One for who waits, and one per processor for who will: decoding takes no lock. More than four gain nothing beside one
    thread of Python. The environment may say otherwise, for measurements (scripts/bench/plot)."""
    told = os.environ.get(WORKERS_VARIABLE, "")
    if told.isascii() and told.isdigit() and len(told) < 4 and 0 < int(told) <= MOST_WORKERS:
        return int(told)
    return REMOTE_WORKERS if remote else 1 + max(1, min(4, len(os.sched_getaffinity(0))))


def libfuse_options(image: str, words: Iterable[str], *, writable: bool) -> set[str]:
    """What pyfuse3 passes on. Permissions are always the kernel's business; the source column shows the image."""
    options = {"default_permissions", f"subtype={FSTYPE.partition('.')[2]}", *words}
    if not writable:
        options = (options - {"rw"}) | {"ro"}
    if not any(word.startswith("fsname=") for word in options):
        name = image.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
        options.add(f"fsname={name}")
    for word in options:
        if not word.isascii():
            raise OSError(errno.EINVAL, f"-o {word}: libfuse takes ASCII only")
    return options
