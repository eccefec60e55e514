"""The budget against the memory that the process really takes, in fresh processes."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

PROGRAM = """
import gc, os, sys
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from overlay.overlay import Overlay
from overlay.ram import RamStore
from overlay.vfs import run

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

lower = LowerTree()
for number in range(2000):
    lower.add_file(2, b"lower%06d" % number, b"x" * 5000)
store = RamStore(1 << 32)
overlay = Overlay(lower, store)
caller = Caller()

def make(parent, name):
    ino = run(overlay.create(parent, name, 0o644, 0, caller)).ino
    overlay.release(ino)
    overlay.forget(ino)
    return ino

def names(count):
    for number in range(count):
        make(2, b"a name of some length %06d" % number)

def small(count):
    for number in range(count):
        run(overlay.write(make(2, b"file%06d" % number), 0, os.urandom(700)))

def large(count):
    ino = make(2, b"large")
    for number in range(count):
        run(overlay.write(ino, number << 16, os.urandom(1 << 16)))

def scattered(count):
    ino = make(2, b"large")
    for number in range(count):
        run(overlay.write(ino, number << 24, os.urandom(1 << 12)))

def directories(count):
    for number in range(count):
        overlay.forget(run(overlay.mkdir(2, b"directory%06d" % number, 0o755, caller)).ino)

def mixed(count):
    for number in range(count // 20):
        directory = run(overlay.mkdir(2, b"directory%06d" % number, 0o755, caller)).ino
        for index in range(20):
            ino = make(directory, b"some file %d" % index)
            run(overlay.write(ino, 0, os.urandom([10, 300, 2000, 5000, 20000][index % 5])))
            if index % 4 == 0:
                run(overlay.setxattr(ino, b"user.attribute%d" % index, os.urandom(20)))

make(2, b'warm')
before, counted = resident(), store.used
globals()[sys.argv[1]](int(sys.argv[2]))
print(resident() - before, store.used - counted)
"""


@pytest.mark.parametrize(
    ("work", "count"),
    [
        ("names", 30000),
        ("small", 20000),
        ("large", 600),
        ("scattered", 6000),
        ("directories", 20000),
        ("mixed", 10000),
    ],
)
def test_what_is_counted_is_what_is_taken(work: str, count: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, work, str(count)],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    real, counted = map(int, result.stdout.split())
    assert real > 10_000_000, "too little work to judge"
    assert 0.9 * real < counted < 1.1 * real


def test_deleting_gives_the_memory_back() -> None:
    program = PROGRAM.split("make(2, b'warm')")[0] + (
        "before = resident()\n"
        "large(1600)\n"
        "grown = resident() - before\n"
        "run(overlay.unlink(2, b'large'))\n"
        "print(grown, resident() - before, store.used)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=True,
    )
    grown, left, used = map(int, result.stdout.split())
    assert grown > 100_000_000
    assert left < 5_000_000
    assert used < 2000
