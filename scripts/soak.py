#!/usr/bin/env python3
"""Lives in mounts for a long time: `soak.py [--hours H] [--load F] [--csv FILE] [--image IMAGE]`.

Three mounts (a shadow in RAM, one in a file, one in a file whose daemon is killed now and then), each beside an ordinary
directory that must stay equal to it (see tests/exercise/randomops.py for what is done). Rounds end by deleting everything,
by `shadow reset`, or by kill -9 and a new mount; then the state must be what it must be, and begins anew. Once a minute
the needs of each daemon go into a table; tests/exercise/flatness.py says what counts as flat. The whole is held to a share
of one processor, daemons included. Exit 1 if anything differed or was not flat.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from exercise import flatness, randomops  # noqa: E402
from exercise.daemon import clear_away, has_ended, process_of  # noqa: E402
from exercise.mounted import dmgfs  # noqa: E402
from exercise.trees import digest  # noqa: E402

ROUND = 1200
"""Operations between two returns to the beginning."""
CHECK = 300
SAMPLE_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def run(*command: str | Path) -> str:
    ended = dmgfs(*command)
    if ended.code:
        raise SystemExit(f"dmgfs {' '.join(map(str, command))}: exit {ended.code}: {ended.err}")
    return ended.out


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Living:
    """One mount with its model. file: where its shadow is, None in RAM. killed: whether its daemon is killed at times."""

    def __init__(self, name: str, work: Path, image: Path, file: Path | None, killed: bool, seed: int) -> None:
        self.name, self.image, self.file, self.killed = name, image, file, killed
        self.place, self.model = work / f"{name}.mnt", work / f"{name}.model"
        self.place.mkdir()
        self.chance = random.Random(seed)
        self.operations = self.rounds = self.kills = 0
        self.spent = 0.0  # by daemons that have ended
        self.pid = 0
        self.mount()

    def mount(self) -> None:
        shadow = str(self.file or "ram:1G")
        run("mount", self.image, self.place, "--shadow", shadow, "--cache", "1M", "-o", "allow_other,dev,suid")
        self.pid = process_of(self.place)

    def begin(self, pristine: Path) -> None:
        """The model is the image again."""
        if self.model.exists():
            shutil.rmtree(self.model)
        subprocess.run(["cp", "-a", pristine, self.model], check=True)
        self.pair = randomops.Pair(self.place, self.model)
        self.chooser = randomops.Chooser(self.chance, self.model)
        self.pair.compare()

    def step(self) -> None:
        self.pair.do(self.chooser.next())
        self.operations += 1
        if self.operations % CHECK == 0:
            self.pair.compare()

    def end(self) -> None:
        """Back to the image, in one of three ways."""
        self.pair.compare()
        self.pair.close()
        self.rounds += 1
        way = self.chance.choice(("reset", "delete", "kill") if self.killed else ("reset", "delete"))
        if way == "delete":
            for side in self.pair.sides:
                for name in os.listdir(side.root):
                    inner = os.path.join(side.root, name)
                    shutil.rmtree(inner) if os.path.isdir(inner) and not os.path.islink(inner) else os.unlink(inner)
            self.pair.compare()
        if way == "kill":
            self.kill()
            self.pair.compare()
        run("shadow", "reset", self.place)

    def kill(self) -> None:
        """What had returned must be there afterwards. Pages that were changed through a mapping are the kernel's until
        they are synced, so that comes first."""
        self.kills += 1
        folder = os.open(self.place, os.O_RDONLY)
        os.fsync(folder)
        subprocess.run(["sync", "-f", self.place], check=True)
        os.close(folder)
        self.spent += processor_seconds(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        has_ended(self.pid)
        clear_away(self.place)
        assert self.file is not None
        run("shadow", "check", self.file)
        self.mount()

    def cpu(self) -> float:
        return self.spent + processor_seconds(self.pid)

    def sample(self, seconds: float, baseline: bool) -> flatness.Sample:
        status = json.loads(run("status", "--json", self.place))
        rss, anonymous, descriptors, threads = flatness.needs(self.pid)
        size = self.file.stat().st_blocks * 512 if self.file else 0
        shadow = status["shadow"]
        return flatness.Sample(
            round(seconds, 1), self.name, self.pid, baseline, rss, anonymous, shadow["used"], shadow["objects"], size,
            descriptors, threads, status["requests"],
        )  # fmt: skip


def live(options: argparse.Namespace, work: Path) -> bool:
    os.umask(0o022)
    pristine = work / "pristine"
    mounts: list[Living] = []
    samples: list[flatness.Sample] = []
    seconds = 3600 * options.hours
    started = time.monotonic()

    def spent() -> float:
        mine = time.process_time()
        children = os.times()
        return mine + children.children_user + children.children_system + sum(mount.cpu() for mount in mounts)

    def note(mount: Living, baseline: bool = False) -> None:
        sample = mount.sample(time.monotonic() - started, baseline)
        samples.append(sample)
        table.writerow(sample)
        out.flush()

    with open(options.csv, "w", newline="") as out:
        table = csv.writer(out)
        table.writerow(flatness.Sample._fields)
        try:
            for name, file, killed in (
                ("ram", None, False),
                ("file", work / "file.shadow", False),
                ("killed", work / "killed.shadow", True),
            ):
                mounts.append(Living(name, work, options.image, file, killed, options.seed + len(mounts)))
            subprocess.run(["cp", "-a", mounts[0].place, pristine], check=True)
            for mount in mounts:
                mount.begin(pristine)
            begun, sampled, told = spent(), 0.0, 0.0
            while (age := time.monotonic() - started) < seconds:
                for mount in mounts:
                    for _ in range(10):
                        mount.step()
                    if mount.operations % ROUND == 0:
                        mount.end()
                        note(mount, baseline=True)
                        mount.begin(pristine)
                if age - sampled >= min(SAMPLE_SECONDS, seconds / 40):
                    sampled = age
                    for mount in mounts:
                        note(mount)
                if age - told >= 600:
                    told = age
                    print(f"{age / 60:.0f} min: " + ", ".join(map(describe, mounts)), flush=True)
                ahead = (spent() - begun) / options.load - (time.monotonic() - started)
                if ahead > 0:
                    time.sleep(min(ahead, SAMPLE_SECONDS / 2))
            for mount in mounts:
                mount.end()
        except randomops.Different as difference:
            print(f"FAILED: {mount.name} after {mount.operations} operations: {difference}", flush=True)
            for operation in difference.operations[-40:]:
                print(f"    {operation},")
            return False
        finally:
            for mount in mounts:
                if sys.exc_info()[0] is None:
                    run("unmount", mount.place)
                    has_ended(mount.pid, 120)  # perhaps a copy of the mount is in somebody's mount namespace
                clear_away(mount.place)
    print(f"{(time.monotonic() - started) / 60:.1f} min: " + ", ".join(map(describe, mounts)))
    good = True
    for mount in mounts:
        text, problems = flatness.judged([sample for sample in samples if sample.mount == mount.name], seconds)
        print(f"{mount.name}: {text}: " + ("flat" if not problems else "NOT FLAT: " + "; ".join(problems)))
        good &= not problems
        if mount.file:
            print(run("shadow", "check", mount.file).strip())
    return good


def describe(mount: Living) -> str:
    killed = f", {mount.kills} kills" if mount.killed else ""
    return f"{mount.name} {mount.operations} operations in {mount.rounds} rounds{killed}"


def main() -> int:
    parser = argparse.ArgumentParser(description="a long life inside of mounts")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--load", type=float, default=0.25, help="share of one processor, daemons included")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"), help="the table (default soak.csv)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=Path, default=REPOSITORY / "tests/data/workload.dmg")
    options = parser.parse_args()
    before = digest(os.fsencode(options.image))
    with tempfile.TemporaryDirectory(prefix="dmgfs-soak-") as work:
        good = live(options, Path(work))
    if digest(os.fsencode(options.image)) != before:
        print(f"FAILED: {options.image} has changed")
        good = False
    return 0 if good else 1


raise SystemExit(main())
