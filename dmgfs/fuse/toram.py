"""`--toram`: the image's files go into memory while the mount serves, and are let go of (see `ResidentFile`).

Rules that hold here:
- memory is asked for before the mount, by what the kernel calls available and what the control groups still allow: an
  image that does not fit is refused, it does not end in the out-of-memory killer;
- one thread copies, one file after the other. A disk that fails stops it: what is in memory stays there, the rest is read
  from the file as ever, and the log says so.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dmgfs.container.residentfile import ResidentFile
from dmgfs.errors import Unsupported

log = logging.getLogger(__name__)

MARGIN = 64 << 20
"""Bytes that stay free for everybody else."""

REPORT_SECONDS = 10.0

PATIENCE = 5.0
"""Seconds for a read that hangs (a dead network disk) before `stop` leaves the thread behind."""

_GROUPS = Path("/sys/fs/cgroup")


class ToRam:
    """The move of one image. `open_file` opens its files; `prepare` once all are open; `start` when the mount stands."""

    def __init__(self) -> None:
        self._files: list[ResidentFile] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed = ""

    def open_file(self, path: str | os.PathLike[str], *, follow: bool = True) -> ResidentFile:
        file = ResidentFile(path, follow=follow)
        self._files.append(file)
        return file

    def prepare(self, kind: str, besides: int) -> None:
        """Checks the memory and sets it aside. kind: of the container, for messages. besides: bytes that the mount will
        take for other things. Raises Unsupported, MemoryError."""
        if not self._files:
            raise Unsupported(
                f"--toram for a {kind}",
                "it is a folder of many files; `dmgfs convert` makes one file of it, or copy it to a tmpfs",
            )
        needed = sum(file.size for file in self._files)
        free = available()
        if free is not None and needed + besides + MARGIN > free:
            raise MemoryError(
                f"--toram needs {_mib(needed)} for the image, {_mib(besides)} for the cache and {_mib(MARGIN)} to spare; "
                f"{_mib(free)} of memory are available: free some, or mount without --toram",
            )
        for file in self._files:
            file.reserve()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._copy, name="dmgfs-toram", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Before the image is closed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def describe(self) -> str:
        """For the statistics."""
        done, size = self._progress()
        if self._failed:
            return f"in memory {done} of {size} bytes of the image, the rest stays in its file: {self._failed}"
        released = ", the file is closed" if all(file.complete for file in self._files) else ""
        return f"in memory {done} of {size} bytes of the image{released}"

    def _progress(self) -> tuple[int, int]:
        return sum(file.copied for file in self._files), sum(file.size for file in self._files)

    def _copy(self) -> None:
        begin = reported = time.monotonic()
        try:
            for file in self._files:
                while file.step():
                    if self._stop.is_set():
                        return
                    now = time.monotonic()
                    if now - reported >= REPORT_SECONDS:
                        reported = now
                        done, size = self._progress()
                        log.info("toram: %s of %s are in memory (%d %%)", _mib(done), _mib(size), 100 * done // size)
        except OSError as error:
            self._failed = error.strerror or str(error)
            log.error("toram: %s; the rest stays in the file, which must remain", ascii(self._failed)[1:-1])
            return
        log.info(
            "toram: all %s of the image are in memory after %.1f s; its file is closed, its file system may be unmounted",
            _mib(self._progress()[1]),
            time.monotonic() - begin,
        )


def available() -> int | None:
    """Bytes of memory that can be had without pushing anybody out. None where the system does not say."""
    amounts = [*_machine(), *_of_groups()]
    return min(amounts) if amounts else None


def _machine() -> Iterator[int]:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    yield int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        return


def _of_groups(groups: Path = _GROUPS, membership: str = "/proc/self/cgroup") -> Iterator[int]:
    """What each control group (version 2) that we are in leaves: its limit, less what it uses and could not give back."""
    try:
        with open(membership, encoding="utf-8", errors="surrogateescape") as lines:
            own = next((line.rstrip("\n")[3:] for line in lines if line.startswith("0::")), "/")
    except OSError:
        own = "/"
    folder = groups / own.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(groups):
            return
        try:
            limit = int((group / "memory.max").read_text())
            used = int((group / "memory.current").read_text())
            kept = _field((group / "memory.stat").read_text().splitlines(), "inactive_file")
        except (OSError, ValueError):
            continue  # no limit ("max"), or no such group
        yield max(limit - used + kept, 0)


def _field(lines: Sequence[str], name: str) -> int:
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
