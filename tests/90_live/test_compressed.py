"""A shadow in memory that compresses, on real mounts: more fits in, every byte comes back, the books are right."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from exercise import randomops
from exercise.mounted import DMGFS, dmgfs, mounted
from exercise.trees import digest

pytestmark = pytest.mark.kernel

WORKLOAD = Path(__file__).resolve().parents[1] / "data/workload.dmg"
PIECE = 1 << 20


def text(seed: int) -> bytes:
    """A MiB that can be compressed to a third or so."""
    source = random.Random(seed)
    words = [source.randbytes(5).hex().encode() for _ in range(700)]
    return b" ".join(source.choices(words, k=PIECE // 10))[:PIECE]


def figures(place: Path) -> dict[str, object]:
    return json.loads(dmgfs("status", place, "--json").out)


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def test_twice_as_much_as_the_budget(image, place):
    with mounted(image, place, "--shadow", "ram:40M,compress=zstd"):
        (place / "warm").write_bytes(text(0))
        now = figures(place)
        process = now["pid"]
        before, counted = resident(process), now["shadow"]["used"]
        sums = {}
        with open(place / "large", "wb") as file:
            for number in range(80):
                data = text(number % 20)
                sums[number] = hashlib.sha256(data).digest()
                file.write(data)
        assert (place / "large").stat().st_size == 80 << 20
        deadline = time.monotonic() + 60
        while (shadow := figures(place)["shadow"])["compressed"]["pages"] < 15_000 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert shadow["used"] < shadow["budget"] == 40 << 20
        assert shadow["pages"] >= 20_000
        packed = shadow["compressed"]
        assert packed["with"] == "zstd"
        assert packed["bytes"] < packed["pages"] * 4096 / 2
        said = dmgfs("status", place).out
        assert " pages, " in said
        assert "(zstd)" in said
        usage = os.statvfs(place)
        assert abs(usage.f_bavail * usage.f_frsize - (shadow["budget"] - shadow["used"])) < 1 << 20
        grown, counted = resident(process) - before, shadow["used"] - counted
        assert 0.9 * grown < counted < 1.1 * grown, f"{grown} bytes more, {counted} counted"
        with open(place / "large", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the pages that the kernel has
            for number in range(80):
                assert hashlib.sha256(file.read(PIECE)).digest() == sums[number]
        os.unlink(place / "large")
        shadow = figures(place)["shadow"]
        assert shadow["used"] < 2 << 20
        assert resident(process) - before < 8 << 20


def test_random_operations_end_alike(tmp_path):
    """With a budget so small that everything is compressed all the time."""
    before = digest(os.fsencode(WORKLOAD))
    model = tmp_path / "model"
    words = "shadow=ram:20M,compress=zstd,allow_other,dev,suid"
    with mounted(WORKLOAD, tmp_path / "mnt", "-o", words) as place:
        (place / "filler").write_bytes(b"".join(map(text, range(22))))
        subprocess.run(["cp", "-a", place, model], check=True)
        try:
            randomops.exercise(place, model, 5, 800)
        finally:
            packed = figures(place)["shadow"]["compressed"]["pages"]
        assert packed > 1000
        assert digest(os.fsencode(place / "filler")) == digest(os.fsencode(model / "filler"))
    assert digest(os.fsencode(WORKLOAD)) == before


def test_a_late_shadow_that_compresses(image, place):
    with mounted(image, place, "--late-shadow"):
        ended = dmgfs("shadow", "attach", place, "ram:16M,compress=zstd")
        assert (ended.code, ended.err) == (0, "")
        for number in range(24):
            (place / f"text {number}").write_bytes(text(number))
        assert all((place / f"text {number}").read_bytes() == text(number) for number in range(24))
        shadow = figures(place)["shadow"]
        assert shadow["compressed"]["pages"] > 2000
        assert shadow["used"] <= 16 << 20


def test_a_snapshot_shares_what_is_compressed(image, place):
    with mounted(image, place, "--shadow", "ram:16M,compress=zstd"):
        for number in range(20):
            (place / f"text {number}").write_bytes(text(number))
        before = figures(place)["shadow"]
        assert before["compressed"]["pages"] > 1000
        assert dmgfs("shadow", "snapshot", "create", place, "then").code == 0
        assert figures(place)["shadow"]["used"] - before["used"] < 100_000
        for number in range(0, 20, 5):
            with open(place / f"text {number}", "r+b") as file:
                file.write(b"changed")
            os.unlink(place / f"text {number + 1}")
        ended = dmgfs("shadow", "snapshot", "rollback", place, "then")
        assert (ended.code, ended.err) == (0, "")
        assert all((place / f"text {number}").read_bytes() == text(number) for number in range(20))


def test_without_the_package_one_line_says_what_is_missing(image, place):
    program = (
        "import sys\n"
        "sys.modules['compression.zstd'] = sys.modules['backports.zstd'] = None\n"
        "from dmgfs.cli import main\n"
        "sys.exit(main())\n"
    )
    words = ["mount", image, place, "--shadow", "ram,compress=zstd"]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 69
    assert len(ended.stderr.splitlines()) == 1
    assert "pip install 'dmgfs[zstd]'" in ended.stderr
    assert DMGFS.exists()
