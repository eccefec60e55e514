#!/usr/bin/env python3
"""How fast `dmgfs convert` writes every format here, how small, and with how much memory.

    scripts/bench/convert.py [--size MIB] [--folder DIR] [--jobs N] [FORMAT ...]

The disk is a tar stream of real files (default: /usr) cut to size. Its bytes are in the page cache; the result is synced.
MB/s are of the disk: by the clock, and per second of processor time, which does not depend on what else runs here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dmgfs.cli.convert import FORMATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=200, help="MiB of disk")
    parser.add_argument("--folder", default="/usr", help="what the disk is made of")
    parser.add_argument("--jobs", default=str(os.cpu_count()), help="threads")
    parser.add_argument("formats", nargs="*", metavar="FORMAT")
    args = parser.parse_args()
    if unknown := set(args.formats).difference(FORMATS):
        parser.error(f"no formats: {', '.join(sorted(unknown))}; there are: {', '.join(FORMATS)}")
    print(f"{'format':12} {'MB/s':>8} {'MB/s per CPU':>13} {'size':>7} {'memory':>8}")
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder, "disk")
        make_disk(disk, args.folder, args.size << 20)
        for name in args.formats or FORMATS:
            measure(disk, Path(folder, "out"), name, args.jobs)


def make_disk(path: Path, folder: str, size: int) -> None:
    with subprocess.Popen(["tar", "-cf", "-", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
        assert tar.stdout is not None
        with path.open("wb") as disk:
            while (left := size - disk.tell()) and (block := tar.stdout.read(min(left, 1 << 20))):
                disk.write(block)
        tar.kill()
    if path.stat().st_size < size:
        sys.exit(f"convert.py: {folder} has less than {size} bytes; name a larger one with --folder")


def measure(disk: Path, out: Path, name: str, jobs: str) -> None:
    command = [sys.executable, "-m", "dmgfs", "convert", disk, out, "--to", name, "--jobs", jobs, "--json", "--force"]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    seconds, busy = time.monotonic() - begun, used.ru_utime + used.ru_stime
    told = json.loads(said)
    amount = told["disk_size"] / 1e6
    share = 100 * told["size"] / told["disk_size"]
    print(
        f"{name:12} {amount / seconds:8.1f} {amount / busy:13.1f} {share:6.1f}% {used.ru_maxrss / 1e3:6.0f}MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
