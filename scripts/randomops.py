#!/usr/bin/env python3
"""Random operations on mounts, for as long as one likes: `randomops.py [--seeds FROM:TO] [--minutes N] [--image IMAGE]`.

Per seed: a fresh mount with a shadow in RAM beside a fresh copy of it in an ordinary directory (see tests/exercise); then
fsx-like runs on a file of the image and on a new file; then the kinds of tests/exercise/varieties.py: a shadow file mounted
again and again, snapshots, no room, names without case, access lists, many processes. What fails is shortened to the fewest
operations that still fail (of the plain runs), and printed. Exit 1 if anything failed.
"""

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise import fsx, randomops  # noqa: E402
from exercise.mounted import mounted  # noqa: E402
from exercise.trees import digest, paths  # noqa: E402
from exercise.varieties import KINDS  # noqa: E402

SHRINK_SECONDS = 300


@contextlib.contextmanager
def fresh(image: Path) -> Iterator[tuple[Path, Path]]:
    """A mount, and a directory that is equal to it."""
    with tempfile.TemporaryDirectory(prefix="dmgfs-random-") as work:
        place, model = Path(work) / "mnt", Path(work) / "model"
        with mounted(image, place, "--shadow", "ram:1G", "-o", "allow_other,dev,suid"):
            subprocess.run(["cp", "-a", place, model], check=True)
            yield place, model


def operations(image: Path, seed: int, count: int) -> bool:
    started = time.monotonic()
    try:
        with fresh(image) as (place, model):
            randomops.exercise(place, model, seed, count)
            left = sum(1 for _ in paths(os.fsencode(place)))
    except randomops.Different as difference:
        print(f"seed {seed}: FAILED after {len(difference.operations)} operations: {difference.what}", flush=True)
        shorter, what = randomops.shrink(difference.operations, lambda: fresh(image), SHRINK_SECONDS)
        print(f"seed {seed}: {len(shorter)} operations are enough: {what or 'no: it does not happen again'}")
        for operation in shorter if what else []:
            print(f"    {operation},")
        return False
    seconds = time.monotonic() - started
    print(f"seed {seed}: {count} operations, {left} objects left, no difference ({seconds:.0f} s)", flush=True)
    return True


def contents(image: Path, seed: int, count: int) -> bool:
    try:
        with fresh(image) as (place, model):
            files = [path for path in sorted(paths(os.fsencode(model))) if (model / os.fsdecode(path)).is_file()]
            largest = os.fsdecode(
                max(files, key=lambda path: os.lstat(os.path.join(os.fsencode(model), path)).st_size)
            )
            content = (model / largest).read_bytes()
            fsx.exercise(place / largest, content, seed, count, limit=max(1 << 20, 2 * len(content)))
            (place / "a new file").write_bytes(b"")
            fsx.exercise(place / "a new file", b"", seed, count)
    except fsx.BadData as bad:
        print(f"seed {seed}: FAILED: {bad}", flush=True)
        return False
    print(f"seed {seed}: {count} operations on {largest!r} and on a new file, no bad data", flush=True)
    return True


def variety(kind: str, seed: int, count: int) -> bool:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dmgfs-random-") as work:
        try:
            told = KINDS[kind](Path(work), seed, count)
        except (randomops.Different, AssertionError) as problem:
            print(f"seed {seed}, {kind}: FAILED: {problem}", flush=True)
            return False
    print(f"seed {seed}, {kind}: {told}, no difference ({time.monotonic() - started:.0f} s)", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="random operations on a mount")
    parser.add_argument("--seeds", default="1:6", help="FROM:TO, the last not included (default 1:6)")
    parser.add_argument("--operations", type=int, default=3000)
    parser.add_argument("--fsx", type=int, default=10000, help="operations on one file")
    parser.add_argument("--minutes", type=float, default=0, help="go on with further seeds for that long")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "tests/data/workload.dmg")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split(":"))
    before = digest(os.fsencode(options.image))
    good = True
    deadline = time.monotonic() + 60 * options.minutes
    for seed in itertools.count(first):
        if seed >= last and time.monotonic() >= deadline:
            break
        good &= operations(options.image, seed, options.operations)
        good &= contents(options.image, seed, options.fsx)
        for kind in KINDS:
            good &= variety(kind, seed, options.operations)
    if digest(os.fsencode(options.image)) != before:
        print(f"FAILED: {options.image} has changed")
        good = False
    return 0 if good else 1


raise SystemExit(main())
