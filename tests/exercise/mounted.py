"""Mounts an image with the command that users type, for as long as a `with` block lasts, and makes sure that nothing is
left behind: no mount, no daemon. Used by tests and scripts alike."""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DMGFS = Path(sys.executable).with_name("dmgfs")

EVERYWHERE = [word for word in os.environ.get("DMGFS_TEST_WORDS", "").split() if word]
"""Words for -o that every `mounted` gets: so scripts/test-options runs tests with an option that they know nothing of."""


class Ended(NamedTuple):
    """How a command ended. cpu: seconds of processor time, memory: largest resident size in bytes, both with its
    children. The processor time tells how slow a command is whatever else the machine does."""

    code: int
    out: str
    err: str
    cpu: float
    memory: int
    seconds: float


def dmgfs(*arguments: str | Path, timeout: float = 60) -> Ended:
    """Runs the program. Never raises for its exit code."""
    command = [str(DMGFS), *map(str, arguments)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    # A shell's worth of indirection: a fresh process asks for its own children's usage, so that earlier ones do not count.
    measure = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[2:], check=False).returncode\n"
        "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))\n"
        "raise SystemExit(code)\n"
    )
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", measure, f"/dev/fd/{writing}", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            pass_fds=[writing],
        )
        os.close(writing)
        writing = -1
        memory = int(os.read(reading, 100) or b"0") * 1024
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(done.returncode, done.stdout, done.stderr, cpu, memory, time.monotonic() - started)


def is_mounted(place: Path) -> bool:
    """Looks into the kernel's table: a dead mount is one too."""
    wanted = str(place).replace(" ", "\\040")
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1] == wanted for line in mounts)


@contextlib.contextmanager
def mounted(image: Path | str, place: Path, *options: str | Path) -> Iterator[Path]:
    """`dmgfs mount IMAGE PLACE OPTION...`, then `dmgfs unmount PLACE`. `place` is made if it is not there. Raises
    AssertionError when either command fails or the mount outlives its end."""
    place.mkdir(exist_ok=True)
    ended = dmgfs("mount", image, place, *options, *(part for word in EVERYWHERE for part in ("-o", word)))
    assert ended.code == 0, f"mount of {image} failed with {ended.code}: {ended.err}"
    try:
        assert is_mounted(place), f"mount of {image} says it succeeded, and nothing is mounted at {place}"
        yield place
    finally:
        ended = dmgfs("unmount", place)
        if is_mounted(place):
            subprocess.run(["umount", "-l", place], check=False)
            raise AssertionError(f"unmount left {place} mounted (exit {ended.code}): {ended.err}")
    assert ended.code == 0, f"unmount of {place} failed with {ended.code}: {ended.err}"
