"""Whether a daemon's needs are flat: samples of its memory, descriptors, threads and shadow over a long run, and the rule
by which they are judged.

The rule, after the first fifth of the run (the warm-up): the anonymous memory grows by no more than 2 MiB an hour along the
line of least squares, and its highest value in the last half is at most a tenth above the highest before; in the
last three samples no more descriptors and threads stay open than there ever were in the first half (a single sample may
catch a file that is just being looked at); and what the shadow uses after everything was taken back is the same
every time.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

GROWTH_PER_HOUR = 2 << 20
RISE = 0.10
WARM_UP = 0.2


class Sample(NamedTuple):
    """seconds: since the run began. rss, anonymous, file: bytes (file: what the shadow file takes on its disk). baseline:
    all changes had just been taken back."""

    seconds: float
    mount: str
    pid: int
    baseline: bool
    rss: int
    anonymous: int
    used: int
    objects: int
    file: int
    fds: int
    threads: int
    requests: int


def needs(pid: int) -> tuple[int, int, int, int]:
    """Resident bytes, anonymous bytes among them, open descriptors, threads."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    anonymous = int(fields["RssAnon"]) << 10
    return int(fields["VmRSS"]) << 10, anonymous, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line of least squares."""
    count = len(points)
    x, y = sum(point[0] for point in points) / count, sum(point[1] for point in points) / count
    spread = sum((point[0] - x) ** 2 for point in points)
    return sum((point[0] - x) * (point[1] - y) for point in points) / spread if spread else 0.0


def judged(samples: Sequence[Sample], seconds: float) -> tuple[str, list[str]]:
    """The samples of one mount over a run of that many seconds: the figures in a line, and what is not flat. Samples of one
    process only are compared by memory: a mount that was killed starts over."""
    warm = [sample for sample in samples if sample.seconds >= WARM_UP * seconds]
    middle = (WARM_UP + 1) / 2 * seconds
    before = [sample for sample in warm if sample.seconds < middle]
    after = [sample for sample in warm if sample.seconds >= middle]
    if len(before) < 5 or len(after) < 5:
        return "too few samples", ["there are too few samples to tell"]
    problems = []
    lives = len({sample.pid for sample in samples})
    growth = 3600 * slope([(sample.seconds, sample.anonymous) for sample in warm])
    highest = [max(sample.anonymous for sample in part) for part in (before, after)]
    if growth > GROWTH_PER_HOUR:
        problems.append(f"anonymous memory grows by {growth / 2**20:.1f} MiB an hour")
    if highest[1] > (1 + RISE) * highest[0]:
        problems.append(f"anonymous memory rose from {highest[0] / 2**20:.1f} to {highest[1] / 2**20:.1f} MiB")
    for field in ("fds", "threads"):
        one = max(getattr(sample, field) for sample in before)
        other = min(getattr(sample, field) for sample in after[-3:])
        if other > one:
            problems.append(f"{field} rose from {one} to {other}")
    used = {sample.used for sample in warm if sample.baseline}
    if lives == 1 and len(used) > 1 and samples[0].file == 0:
        problems.append(f"the empty shadow uses {sorted(used)} bytes")
    files = [max(sample.file for sample in part) for part in (before, after)]
    if files[1] > (1 + RISE) * files[0] + (1 << 20):
        problems.append(f"the shadow file rose from {files[0] / 2**20:.1f} to {files[1] / 2**20:.1f} MiB")
    text = (
        f"{len(samples)} samples, {lives} processes; after the warm-up anonymous memory {growth / 2**20:+.2f} MiB/h,"
        f" at most {highest[0] / 2**20:.1f} then {highest[1] / 2**20:.1f} MiB, RSS at most"
        f" {max(sample.rss for sample in warm) / 2**20:.1f} MiB; descriptors at most"
        f" {max(sample.fds for sample in warm)}, threads {max(sample.threads for sample in warm)}"
    )
    if files[1]:
        text += f"; shadow file at most {files[0] / 2**20:.1f} then {files[1] / 2**20:.1f} MiB"
    return text, problems
