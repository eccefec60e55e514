"""Runs the fuzz targets of tests/fuzz side by side and says what they found. What coverage has led to is kept in
build/fuzz/corpus and used again by the next run; inputs that failed are kept in build/fuzz/findings, with the trace.

Exit code 0: nothing found; 1: findings; 70: a target could not run at all.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ROOT / "tests" / "fuzz"
WORK = ROOT / "build" / "fuzz"
PACKAGES = WORK / "atheris"

NICE = 19
MOST_MEMORY_MB = 1024
SLOWEST_INPUT = 10
"""Seconds; an input that takes longer is a finding."""
MOST_FINDINGS = 20
"""Of one target in one run. libFuzzer ends at each; beyond this the rest of the time only finds the same again."""

_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PROGRESS = re.compile(r"^#(\d+)\s", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")
_WRITTEN = re.compile(r"Test unit written to (\S+)")


class Result(NamedTuple):
    """Of one target. error: why it could not run, "" if it could."""

    name: str
    seconds: float
    executions: int
    coverage: int
    findings: list[Path]
    error: str


def main() -> int:
    args = arguments()
    names = sorted(path.stem.removeprefix("fuzz_") for path in TARGETS.glob("fuzz_*.py"))
    unknown = set(args.targets) - set(names)
    if unknown:
        print(
            f"fuzz: there is no target {', '.join(sorted(unknown))}; there are: {', '.join(names)}", file=sys.stderr
        )
        return 64
    names = args.targets or names
    install()
    share = max(1.0, args.seconds * args.processes / len(names))
    print(f"{len(names)} targets, {share:.0f} s each, {args.processes} at a time", flush=True)
    with concurrent.futures.ThreadPoolExecutor(args.processes) as pool:
        results = []
        for done in concurrent.futures.as_completed([pool.submit(fuzz, name, share) for name in names]):
            results.append(done.result())
            show(done.result())
    executions = sum(result.executions for result in results)
    findings = sum(len(result.findings) for result in results)
    spent = sum(result.seconds for result in results)
    print(f"in all: {executions} executions in {spent:.0f} s of fuzzing, {findings} findings")
    if any(result.error for result in results):
        return 70
    return 1 if findings else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="fuzz every parser, or some")
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="hfsplus, udif, ... (default: all)")
    parser.add_argument("--seconds", type=float, default=600, help="how long in all (default 600)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time")
    return parser.parse_args()


def install() -> None:
    if not (PACKAGES / "atheris").is_dir():
        print("installing atheris", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(PACKAGES), "atheris"]
        subprocess.run(pip, check=True)


def fuzz(name: str, seconds: float) -> Result:
    """One target for so long, begun again after each finding."""
    corpus, kept = WORK / "corpus" / name, WORK / "findings" / name
    corpus.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    executions = coverage = 0
    findings: list[Path] = []
    error = ""
    while (left := seconds - (time.monotonic() - began)) >= 1 and len(findings) < MOST_FINDINGS:
        code, output = run(name, corpus, kept, left)
        executions += executed(output)
        coverage = max([coverage, *map(int, _COVERED.findall(output))])
        written = _WRITTEN.search(output)
        if written is None:
            error = "" if code == 0 else output.strip()[-2000:]
            break
        finding = Path(written[1])
        finding.with_suffix(".txt").write_text(output[-20000:])
        findings.append(finding)
    return Result(name, time.monotonic() - began, executions, coverage, findings, error)


def run(name: str, corpus: Path, kept: Path, seconds: float) -> tuple[int, str]:
    """libFuzzer once: exit code and what it said."""
    command = [
        *("nice", "-n", str(NICE), sys.executable, str(TARGETS / f"fuzz_{name}.py")),
        f"-max_total_time={int(seconds)}",
        f"-timeout={SLOWEST_INPUT}",
        f"-rss_limit_mb={MOST_MEMORY_MB}",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 300
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def executed(output: str) -> int:
    """How many inputs were run; after a finding libFuzzer gives no final count, only that of its last line."""
    if final := _EXECUTED.search(output):
        return int(final[1])
    return max(map(int, _PROGRESS.findall(output)), default=0)


def show(result: Result) -> None:
    print(
        f"{result.name:12} {result.executions:9} executions in {result.seconds:5.0f} s, coverage {result.coverage:6}, "
        f"findings {len(result.findings)}",
        flush=True,
    )
    for finding in result.findings:
        print(f"  {finding.relative_to(ROOT)}", flush=True)
    if result.error:
        print("  could not run: " + result.error.replace("\n", "\n  "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
