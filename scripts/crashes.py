#!/usr/bin/env python3
"""Shadow files under kill -9 and on disks that are full: `crashes.py [--lives N] [--full N] [--seed S] [--image IMAGE]`.

The daemon of a mount is killed under the load of several processes, again and again (tests/exercise/crashes.py), and random
operations go on where the shadow file's disk has no room (tests/exercise/full.py). After every new mount the trees must be
what models say, and `dmgfs shadow check` must say clean. Exit 1 if anything failed.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise import full  # noqa: E402
from exercise.crashes import Life  # noqa: E402
from exercise.daemon import clear_away  # noqa: E402
from exercise.randomops import Different  # noqa: E402
from exercise.trees import digest  # noqa: E402
from exercise.workloads.home import Home  # noqa: E402


def killed(image: Path, lives: int, processes: int, seed: int) -> bool:
    chance = random.Random(seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dmgfs-crashes-") as folder:
        work = Path(folder)
        home = Home(image, work / "mnt", work / "shadow")
        try:
            life = Life(home, work / "models", processes, seed)
            for number in range(lives):
                life.once(chance.choice((0.05, 0.2, 0.5, 1.0, 2.0)) * (0.5 + chance.random()))
                if number % 20 == 19:
                    print(f"{number + 1} lives, {life.ended} operations", flush=True)
            home.leave()
        except (Different, AssertionError) as problem:
            print(f"FAILED: {problem}", flush=True)
            return False
        finally:
            clear_away(home.place)
    seconds = time.monotonic() - started
    print(
        f"{life.lives} times kill -9 under {processes} processes: {life.ended} operations, {life.under_way} found done that"
        f" had not returned, none missing or by half; the shadow clean every time ({seconds:.0f} s)",
        flush=True,
    )
    return True


def without_room(image: Path, seed: int, size: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="dmgfs-full-") as folder:
        work = Path(folder)
        with full.small_disk(work / "disk", size) as disk:
            home = Home(image, work / "mnt", disk / "shadow")
            try:
                refused = full.exercise(home, work / "model", seed, rounds=6, operations=400, kill=True)
            except (Different, AssertionError) as problem:
                print(f"seed {seed}: FAILED on a disk of {size}: {problem}", flush=True)
                return False
            finally:
                clear_away(home.place)
    print(
        f"seed {seed}: 2400 operations on a full disk of {size}, {refused} refused, no difference, clean", flush=True
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="shadow files under kill -9 and on full disks")
    parser.add_argument("--lives", type=int, default=100, help="how often the daemon is killed (default 100)")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--full", type=int, default=4, help="runs on a full disk (default 4)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=Path, default=REPOSITORY / "tests/data/workload.dmg")
    options = parser.parse_args()
    before = digest(os.fsencode(options.image))
    good = True
    if options.lives:
        good &= killed(options.image, options.lives, options.processes, options.seed)
    for seed in range(options.seed, options.seed + options.full):
        good &= without_room(options.image, seed, ("3m", "6m")[seed % 2])
    if digest(os.fsencode(options.image)) != before:
        print(f"FAILED: {options.image} has changed")
        good = False
    return 0 if good else 1


raise SystemExit(main())
