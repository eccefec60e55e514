"""A mount whose shadow file lies on a disk that is too small: what needs room is refused and changes nothing, what frees
room is never refused, and the shadow stays sound and can be mounted, also after kill -9."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from exercise.randomops import Chooser, Different, Operation, Pair
from exercise.workloads.home import Home


class FrugalChooser(Chooser):
    """Without what is written through mappings (that room was lacking is told when nobody knows what counts), and what
    cannot be undone where room ends in the middle of it."""

    def next(self) -> Operation:
        while (operation := super().next())[0] in ("map_write", "far_and_back"):
            pass
        return operation


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def empty(folder: bytes) -> None:
    for name in os.listdir(folder):
        inner = os.path.join(folder, name)
        shutil.rmtree(inner) if os.path.isdir(inner) and not os.path.islink(inner) else os.unlink(inner)


def fill(file: Path) -> int:
    """Writes until there is no room; how many bytes there was room for."""
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as out:
        while True:
            out.write(os.urandom(50000))
    return file.stat().st_size


def exercise(home: Home, model: Path, seed: int, rounds: int, operations: int, kill: bool) -> int:
    """Rounds of random operations on a disk that is full, new mounts between them, at last everything deleted. How often
    room was lacking. Raises Different."""
    os.umask(0o022)
    home.enter()
    subprocess.run(["cp", "-a", home.place, model], check=True)
    pair = Pair(home.place, model, full=True)
    chance = random.Random(seed)
    for number in range(rounds):
        chooser = FrugalChooser(chance, model)
        taken = fill(home.place / "ballast")
        (model / "ballast").write_bytes((home.place / "ballast").read_bytes())
        for step in range(operations):
            pair.do(chooser.next())
            if step % 100 == 99:
                pair.compare()
        pair.close()
        pair.compare()
        if kill and number % 2:
            home.kill()
            home.enter_again()
        else:
            home.leave()
            home.enter()
        pair.compare()
        for side in pair.sides:
            with contextlib.suppress(FileNotFoundError):
                side.unlink("ballast")
    for side in pair.sides:
        empty(side.root)
    pair.compare()
    again = fill(home.place / "again")
    if again < taken // 2:
        raise Different(f"after everything was deleted there is room for {again} bytes, there was for {taken}", [])
    home.leave()
    return pair.refused
