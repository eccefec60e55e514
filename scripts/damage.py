"""Flips bits in images, mounts each copy, looks at everything in it and says what must not be: a mount that hangs or dies,
a traceback, an errno that damage does not explain. Any finding can be made again with its image and seed.

Exit code 0: nothing found; 1: findings (the damaged images are kept in build/damage).
"""

import argparse
import concurrent.futures
import json
import lzma
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from exercise.damage import Outcome, damage, damage_inside, try_out  # noqa: E402  # the tests' folder is not installed

CORPUS = Path(os.environ.get("DMGFS_CORPUS", ROOT.parent / "shared" / "corpus"))
KEPT = ROOT / "build" / "damage"


def main() -> int:
    args = arguments()
    index = json.loads((CORPUS / "index.json").read_text())
    entries = [entry for entry in index if any(word in entry["name"] for word in args.images or [""])]
    tally: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    findings = 0
    with tempfile.TemporaryDirectory(prefix="dmgfs-damage-") as folder:
        work = Path(folder)
        jobs = []
        with concurrent.futures.ThreadPoolExecutor(args.processes) as pool:
            for entry in entries:
                image = unpacked(entry["name"], work)
                if image is None or image.stat().st_size > args.most << 20:
                    tally["left out"] += 1
                    continue
                ways = [False, True] if holds_volume(entry) else [False]
                jobs += [
                    pool.submit(one, entry, image, seed, args.flips, inside, work)
                    for seed in seeds(args)
                    for inside in ways
                ]
            for job in concurrent.futures.as_completed(jobs):
                name, seed, outcome = job.result()
                if outcome is None:
                    tally["too large inside"] += 1
                    continue
                show(name, seed, outcome, args.verbose)
                findings += bool(outcome.faults)
                tally["mounted" if outcome.mounted else "refused"] += 1
                tally["objects"] += outcome.objects
                tally["bytes"] += outcome.bytes
                tally["cut short"] += outcome.slow
                errors.update(outcome.errors)
    counts = ", ".join(f"{count} {what}" for what, count in tally.items())
    print(f"in all: {len(jobs)} damaged images ({args.flips} bits each): {counts}; errors {dict(errors)}")
    print(f"{findings} findings{f', kept in {KEPT}' if findings else ''}")
    return 1 if findings else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="mount damaged copies of the corpus and look at everything in them")
    parser.add_argument("images", metavar="NAME", nargs="*", help="images whose name contains this (default: all)")
    parser.add_argument("--copies", type=int, default=3, help="damaged copies of each image (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the first copy; the next ones count up (default 0)")
    parser.add_argument("--flips", type=int, default=12, help="bits changed in each copy (default 12)")
    parser.add_argument("--most", type=int, default=100, metavar="MIB", help="leave larger images out (default 100)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--verbose", action="store_true", help="a line for every copy, not only for findings")
    return parser.parse_args()


def holds_volume(entry: dict[str, Any]) -> bool:
    """Whether damage inside of the image is possible: an HFS+ volume that can be opened."""
    features = entry["features"]
    return ("HFS+[" in features or "HFSX[" in features) and ("password" in entry or "enc-v" not in features)


def seeds(args: argparse.Namespace) -> range:
    return range(args.seed, args.seed + args.copies)


def unpacked(name: str, work: Path) -> Path | None:
    """The image as a file; None for a folder of loose files."""
    stored = CORPUS / "images" / name
    if stored.is_file():
        return stored
    packed = CORPUS / "images" / f"{name}.xz"
    if not packed.is_file():
        return None
    target = work / name
    with lzma.open(packed) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def one(
    entry: dict[str, Any], image: Path, seed: int, flips: int, inside: bool, work: Path
) -> tuple[str, str, Outcome | None]:
    """inside: the damage is not in the image file but in the volume, whose disk then is a raw image."""
    own = Path(tempfile.mkdtemp(dir=work))
    copy = own / image.name
    label = f"{seed} {'inside' if inside else 'outside'}"
    options: list[str | Path] = []
    if inside:
        copy = own / f"{image.name}.raw"
        try:
            damage_inside(image, copy, seed, flips, entry["password"].encode() if "password" in entry else None)
        except ValueError:
            shutil.rmtree(own)
            return entry["name"], label, None
    else:
        damage(image, copy, seed, flips)
    if "password" in entry and not inside:
        secret = own / "passphrase"
        secret.write_text(entry["password"] + "\n")
        options = ["--passphrase-file", secret]
    outcome = try_out(copy, own, options)
    if outcome.faults:
        KEPT.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copy, KEPT / f"{seed}-{copy.name}")
    shutil.rmtree(own)
    return entry["name"], label, outcome


def show(name: str, seed: str, outcome: Outcome, verbose: bool) -> None:
    if outcome.faults or verbose:
        seen = f"{outcome.objects} objects, {outcome.bytes} bytes" if outcome.mounted else "refused"
        print(f"{name} seed {seed}: {seen}, errors {outcome.errors}, {outcome.seconds:.1f} s", flush=True)
    for fault in outcome.faults:
        print(f"  FAULT {fault}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
