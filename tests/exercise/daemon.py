"""A daemon under test: started in the foreground or background, watched by its process number, and cleared away for good
whatever the test did to it."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from exercise.mounted import DMGFS, is_mounted

SECONDS = 15.0


def process_of(place: Path) -> int:
    """The number of the daemon that serves `place`."""
    return int(os.getxattr(place, "user.dmgfs.pid"))


def has_ended(process: int, seconds: float = SECONDS) -> bool:
    """Waits for the process (not necessarily our child) to end."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def becomes(condition, seconds: float = SECONDS) -> bool:
    """Waits until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def clear_away(place: Path) -> None:
    """No mount on `place` and no daemon behind it, by force."""
    while is_mounted(place):
        with contextlib.suppress(OSError):
            os.kill(process_of(place), signal.SIGKILL)
        subprocess.run(["umount", "-l", place], check=False)


@contextlib.contextmanager
def in_foreground(place: Path, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`command` (a Python program that mounts on `place` and stays) until the block ends; standard error is a pipe."""
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert becomes(lambda: is_mounted(place) or process.poll() is not None), "the mount does not appear"
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process
    finally:
        clear_away(place)
        process.kill()
        process.communicate()


def dmgfs_in_foreground(
    image: Path, place: Path, *options: str | Path
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return in_foreground(place, DMGFS, "mount", "-f", image, place, *options)


def python_in_foreground(
    program: Path, image: Path, place: Path, *options: str | Path
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return in_foreground(place, sys.executable, program, "mount", "-f", image, place, *options)
