#!/usr/bin/env python3
"""stress-ng's file system stressors with --verify, one at a time, on a tmpfs and on mounts with a shadow in RAM and in a
file: `stress.py [--seconds N] [--workers N] [STRESSOR...]`. Root only; Debian package stress-ng.

What fails on a mount and not on the tmpfs is a failure of ours: a stressor that complains, that leaves files, that does not
end, or after which the shadow file is not clean. What a stressor skips on a mount and not on the tmpfs is told. Exit 1 if
anything failed.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise.daemon import has_ended, process_of  # noqa: E402
from exercise.mounted import dmgfs, mounted  # noqa: E402
from exercise.trees import digest  # noqa: E402

PLACES = ("tmpfs", "ram", "file")

ELSEWHERE = {"bind-mount", "binderfs", "procfs", "io"}
"""Stressors that never touch the directory they are given, or (io) keep every mount of the machine busy besides."""

BOUNDS = {
    "copy-file": ["--copy-file-bytes", "128M"],
    "dentry": ["--dentries", "200"],
    "dirdeep": ["--dirdeep-dirs", "2", "--dirdeep-inodes", "400"],
    "fallocate": ["--fallocate-bytes", "16M"],
    "fiemap": ["--fiemap-bytes", "16M"],
    "hdd": ["--hdd-bytes", "16M"],
    "iomix": ["--iomix-bytes", "16M"],
    "sync-file": ["--sync-file-bytes", "16M"],
}
"""What keeps a stressor small whose size the time alone does not bound."""

GRACE = 60
"""Seconds that a stressor may take beyond its time, to clear away."""


class Outcome(NamedTuple):
    """code: exit status, None if it had to be killed. told: its lines that tell of failures, or why it was skipped."""

    code: int | None
    told: list[str]
    seconds: float

    @property
    def good(self) -> bool:
        return self.code == 0

    @property
    def skipped(self) -> bool:
        return self.code in (3, 4) or any("skip" in line for line in self.told)

    def __str__(self) -> str:
        how = "killed after its time" if self.code is None else "ok" if self.good else f"exit {self.code}"
        return f"{'skipped' if self.skipped else how}, {self.seconds:.0f} s"


def stressors() -> list[str]:
    answer = subprocess.run(["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False)
    names = re.search(r"stressors: (.*)", answer.stdout + answer.stderr)
    if names is None:
        raise SystemExit(f"stress-ng does not list its stressors: {answer.stderr.strip()}")
    return [name for name in names[1].split() if name not in ELSEWHERE]


def ended(process: "subprocess.Popen[str]", daemon: int | None, seconds: float) -> str:
    """What the stressor says. One that does not end is killed, and if it waits for a daemon that does not answer, so is
    the daemon."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=10)[0] + "\nfail: it did not end"
    except subprocess.TimeoutExpired:
        if daemon is None:
            raise
        os.kill(daemon, signal.SIGKILL)
        return process.communicate()[0] + "\nfail: the daemon did not answer any more and was killed"


def stress(name: str, place: Path, daemon: int | None, seconds: float, workers: int) -> Outcome:
    inner = place / "stress"
    inner.mkdir()
    bounds = [*BOUNDS.get(name, []), "--timeout", f"{seconds:g}s"]
    command = ["stress-ng", f"--{name}", str(workers), *bounds, "--verify", "--oomable", "--no-rand-seed"]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--temp-path", str(inner)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    out = ended(process, daemon, seconds + GRACE)
    took = time.monotonic() - started
    lines = [re.sub(r"^stress-ng: |\[\d+\] ", "", line).strip() for line in out.splitlines()]
    told = [line for line in lines if re.match("fail|error|warn", line) or "skipp" in line or "implemented" in line]
    if out.endswith(("did not end", "was killed")):
        return Outcome(None, told, took)
    left = [os.path.join(folder, file) for folder, _, files in os.walk(inner) for file in files]
    shutil.rmtree(inner)
    if left:
        return Outcome(
            process.returncode or 1, [*told, f"fail: {len(left)} files were left, {left[0]} among them"], took
        )
    return Outcome(process.returncode, told, took)


@contextlib.contextmanager
def prepared(kind: str, image: Path) -> Iterator[tuple[Path, int | None]]:
    """A fresh place of that kind, and the daemon that serves it. A shadow file must be sound afterwards."""
    with tempfile.TemporaryDirectory(prefix="dmgfs-stress-") as folder:
        place, shadow = Path(folder) / "mnt", Path(folder) / "shadow"
        if kind == "tmpfs":
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", place], check=True)
            try:
                yield place, None
            finally:
                subprocess.run(["umount", place], check=True)
            return
        chosen = shadow if kind == "file" else "ram:1G"
        with mounted(image, place, "--shadow", chosen, "-o", "allow_other,dev,suid"):
            daemon = process_of(place)
            yield place, daemon
        if kind == "file":
            assert has_ended(daemon, 2 * GRACE)  # perhaps a copy of the mount is in somebody's mount namespace
            check = dmgfs("shadow", "check", shadow)
            assert check.code == 0, check.out + check.err


def main() -> int:
    parser = argparse.ArgumentParser(description="stress-ng's file system stressors on mounts")
    parser.add_argument("names", nargs="*", metavar="STRESSOR", help="these only")
    parser.add_argument("--seconds", type=float, default=3, help="per stressor and place (default 3)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image", type=Path, default=REPOSITORY / "tests/data/workload.dmg")
    options = parser.parse_args()
    names = options.names or stressors()
    before = digest(os.fsencode(options.image))
    bad: list[str] = []
    skipped: list[str] = []
    for name in names:
        found: dict[str, Outcome] = {}
        for kind in PLACES:
            try:
                with prepared(kind, options.image) as (place, daemon):
                    found[kind] = stress(name, place, daemon, options.seconds, options.workers)
            except (AssertionError, OSError) as error:
                bad.append(f"{name} on {kind}")
                print(f"    {kind}: fail: {error}", flush=True)
        print(f"{name}: " + "; ".join(f"{kind} {outcome}" for kind, outcome in found.items()), flush=True)
        ordinary = found["tmpfs"]
        for kind, outcome in found.items():
            if outcome.skipped and not ordinary.skipped:
                skipped.append(f"{name} on {kind}")
            elif not outcome.good and ordinary.good:
                bad.append(f"{name} on {kind}")
            for line in outcome.told:
                if kind == "tmpfs" or line not in ordinary.told:
                    print(f"    {kind}: {line}", flush=True)
    if digest(os.fsencode(options.image)) != before:
        bad.append("the image has changed")
    print(f"{len(names)} stressors; skipped there and not on tmpfs: {', '.join(skipped) or 'none'}")
    print(f"failed there and not on tmpfs: {', '.join(bad) or 'none'}")
    return 1 if bad else 0


raise SystemExit(main())
