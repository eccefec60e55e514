#!/usr/bin/env python3
"""Programs living in mounts: `workloads.py [--shadow ram|file|both] [--image IMAGE] [PROGRAM...]`. Each program works in a
fresh mount and is followed by its own checks (see tests/exercise/workloads); with a shadow in a file the daemon is killed
under sqlite and postgres, and everything is looked at again after a new mount. Root only; Debian packages git, make, rsync,
acl, postgresql. Exit 1 if anything failed.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise.daemon import clear_away  # noqa: E402
from exercise.trees import digest  # noqa: E402
from exercise.workloads.home import Home  # noqa: E402

PROGRAMS = ["git", "compiler", "copies", "sqlite", "postgres"]


def lived(name: str, image: Path, kind: str) -> bool:
    program = importlib.import_module(f"exercise.workloads.{name}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dmgfs-workload-") as folder:
        os.chmod(folder, 0o755)  # other users live here, too
        place = Path(folder) / "mnt"
        home = Home(image, place, Path(folder) / "shadow" if kind == "file" else "ram:2G", "--acl")
        try:
            home.enter()
            program.live(home)
            home.leave()
        except Exception:
            print(f"{name} on {kind}: FAILED", flush=True)
            traceback.print_exc()
            return False
        finally:
            clear_away(place)
    print(f"{name} on {kind}: {'; '.join(home.notes)} ({time.monotonic() - started:.0f} s)", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="programs living in mounts")
    parser.add_argument("names", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)} (default all)")
    parser.add_argument("--shadow", choices=("ram", "file", "both"), default="both")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "tests/data/workload.dmg")
    options = parser.parse_args()
    before = digest(os.fsencode(options.image))
    good = True
    for name in options.names or PROGRAMS:
        for kind in ("ram", "file") if options.shadow == "both" else (options.shadow,):
            good &= lived(name, options.image, kind)
    if digest(os.fsencode(options.image)) != before:
        print(f"FAILED: {options.image} has changed")
        good = False
    return 0 if good else 1


raise SystemExit(main())
