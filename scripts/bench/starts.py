"""A start of a live root on a fresh mount: some programs under chroot, and what they made the mount do. Nothing of the
image is in the page cache before.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from exercise.mounted import mounted
from systems import cold

PROGRAMS = {
    "python3": (
        "python3",
        "-c",
        "import argparse, csv, inspect, ipaddress, pickle, random, subprocess",
    ),
    "gcc": ("sh", "-c", "echo 'int main(void){return 0;}' > /tmp/a.c && gcc -O2 -o /tmp/a /tmp/a.c && /tmp/a"),
    "perl": ("perl", "-MPOSIX", "-MFile::Find", "-MGetopt::Long", "-e", "print 1"),
    "git": ("git", "init", "-q", "/tmp/repository"),
}
_ASKED = re.compile(r"lower asked (\d+) times, (\d+) not in memory")
_PATIENCE = 10.0


class Start(NamedTuple):
    """asked: requests that came to the volume; misses: those that had to wait; seconds: for all programs."""

    asked: int
    misses: int
    seconds: float


def start(image: Path, cache: str, *options: str | Path, programs: Iterable[str] = tuple(PROGRAMS)) -> Start:
    """programs: of PROGRAMS; those that the root has."""
    cold(image)
    with tempfile.TemporaryDirectory(prefix="dmgfs-playlist-") as work:
        log = Path(work) / "log"
        with mounted(
            image, Path(work) / "root", "--shadow", "ram:512M", "-o", "dev", "--cache", cache, "--log", log, *options
        ) as root:
            there = [name for name in programs if (root / "usr/bin" / name).exists()]
            if not there:
                raise SystemExit(f"starts: {image} has none of {', '.join(programs)} in /usr/bin: take a live root")
            begin = time.perf_counter()
            for name in there:
                subprocess.run(["chroot", root, *PROGRAMS[name]], check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - begin
            os.kill(int(os.getxattr(root, "user.dmgfs.pid")), signal.SIGUSR1)
            end = time.monotonic() + _PATIENCE
            while (found := _ASKED.search(log.read_text())) is None and time.monotonic() < end:
                time.sleep(0.01)
        if found is None:
            raise SystemExit(f"playlist: no statistics in the log:\n{log.read_text()}")
        return Start(int(found[1]), int(found[2]), seconds)
