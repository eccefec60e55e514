"""Kinds of random runs on a mount beside an ordinary directory, beyond the plain one of `exercise.randomops`: a shadow file
that is mounted again and again, snapshots, no room, names without case, access control lists, many processes at once. Each
function gets an empty folder to work in and says in a line what it did; it raises Different or AssertionError.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from exercise import full, together
from exercise.daemon import clear_away
from exercise.lists import KINDS as KINDS_OF_LISTS
from exercise.lists import ListChooser, ListSide
from exercise.mounted import dmgfs
from exercise.randomops import Chooser, Pair
from exercise.spelling import FoldingSide, SpellingChooser
from exercise.trees import paths
from exercise.workloads.home import Home

DATA = Path(__file__).resolve().parents[1] / "data"
WORKLOAD, SAMPLE = DATA / "workload.dmg", DATA / "sample.dmg"
"""Case-sensitive; not case-sensitive."""


def copied(home: Home, model: Path) -> None:
    subprocess.run(["cp", "-a", home.place, model], check=True)


def lives(work: Path, seed: int, operations: int) -> str:
    """A shadow file, its mount ended in good order or by kill -9, and begun again."""
    os.umask(0o022)
    home = Home(WORKLOAD, work / "mnt", work / "shadow")
    model = work / "model"
    chance = random.Random(seed)
    ended = killed = 0
    try:
        home.enter()
        copied(home, model)
        pair = Pair(home.place, model)
        for _ in range(5):
            chooser = Chooser(chance, model)
            for _ in range(operations // 5):
                pair.do(chooser.next())
            pair.compare()
            pair.close()
            if chance.random() < 0.5:
                subprocess.run(["sync", "-f", home.place], check=True)  # pages written through mappings
                home.kill()
                home.enter_again()
                killed += 1
            else:
                home.leave()
                home.enter()
                ended += 1
            pair.compare()
        home.leave()
    finally:
        clear_away(home.place)
    return (
        f"{len(pair.done)} operations, mounted again {ended} times after unmounting and {killed} times after kill -9"
    )


def snapshots(work: Path, seed: int, operations: int) -> str:
    """Snapshots made, gone back to and deleted, live; every third seed in RAM."""
    os.umask(0o022)
    home = Home(WORKLOAD, work / "mnt", work / "shadow" if seed % 3 else "ram:1G")
    model = work / "model"
    chance = random.Random(seed)
    kept: dict[str, Path] = {}
    back = 0

    def snapshot(action: str, name: str) -> None:
        ended = dmgfs("shadow", "snapshot", action, home.place, name)
        assert ended.code == 0, f"snapshot {action}: {ended.err}"

    try:
        home.enter()
        copied(home, model)
        pair = Pair(home.place, model)
        for turn in range(12):
            chooser = Chooser(chance, model)
            for _ in range(operations // 12):
                pair.do(chooser.next())
            pair.close()
            match chance.choice(("create", "rollback", "rollback", "delete")) if kept else "create":
                case "create":
                    name = f"state {turn}"
                    snapshot("create", name)
                    kept[name] = work / name
                    subprocess.run(["cp", "-a", model, kept[name]], check=True)
                case "rollback":
                    name = chance.choice(sorted(kept))
                    snapshot("rollback", name)
                    shutil.rmtree(model)
                    subprocess.run(["cp", "-a", kept[name], model], check=True)
                    back += 1
                case "delete":
                    name = chance.choice(sorted(kept))
                    snapshot("delete", name)
                    shutil.rmtree(kept.pop(name))
            pair.compare()
        home.leave()
    finally:
        clear_away(home.place)
    where = "a file" if home.lasts else "RAM"
    return f"{len(pair.done)} operations, {back} times back to a snapshot, in {where}"


def without_room(work: Path, seed: int, operations: int) -> str:
    """A budget of RAM that is used up."""
    os.umask(0o022)
    home = Home(WORKLOAD, work / "mnt", "ram:2M")
    model = work / "model"
    try:
        home.enter()
        copied(home, model)
        pair = Pair(home.place, model, full=True)
        chooser = full.FrugalChooser(random.Random(seed), model)
        full.fill(home.place / "ballast")
        shutil.copy(home.place / "ballast", model)
        for number in range(operations):
            pair.do(chooser.next())
            if number % 200 == 199:
                pair.compare()
        pair.compare()
        pair.close()
        for side in pair.sides:
            full.empty(side.root)
        pair.compare()
        room = full.fill(home.place / "again")
        assert room > 1 << 20, f"after everything was deleted there is room for {room} bytes"
        home.leave()
    finally:
        clear_away(home.place)
    return f"{operations} operations in 2 MiB, {pair.refused} refused"


def spellings(work: Path, seed: int, operations: int) -> str:
    """A volume that is not case-sensitive."""
    os.umask(0o022)
    home = Home(SAMPLE, work / "mnt", "ram:1G")
    model = work / "model"
    try:
        home.enter()
        for path in reversed(list(paths(os.fsencode(home.place)))):
            if os.path.islink(os.path.join(os.fsencode(home.place), path)):
                os.unlink(os.path.join(os.fsencode(home.place), path))
        copied(home, model)
        pair = Pair(home.place, model)
        pair.sides = (pair.sides[0], FoldingSide(model))
        chooser = SpellingChooser(random.Random(seed), model)
        for number in range(operations):
            pair.do(chooser.next())
            if number % 200 == 199:
                pair.compare()
        pair.compare()
        pair.close()
        home.leave()
    finally:
        clear_away(home.place)
    return f"{operations} operations, {chooser.respelled} names in other spellings"


def lists(work: Path, seed: int, operations: int) -> str:
    """Access control lists. No umask: with a default list the kernel applies it where others do not (README)."""
    os.umask(0)
    home = Home(WORKLOAD, work / "mnt", "ram:1G", "--acl")
    model = work / "model"
    try:
        home.enter()
        copied(home, model)
        pair = Pair(home.place, model)
        pair.sides = (ListSide(home.place), ListSide(model))
        chooser = ListChooser(random.Random(seed), model)
        for number in range(operations):
            pair.do(chooser.next())
            if number % 200 == 199:
                pair.compare()
        pair.compare()
        for path in (".", *map(os.fsdecode, paths(os.fsencode(model)))):
            for kind in KINDS_OF_LISTS:
                pair.do(("get_list", path, kind))
        pair.close()
        home.leave()
    finally:
        clear_away(home.place)
        os.umask(0o022)
    return f"{operations} operations, {chooser.lists} of them about access control lists"


def crowd(work: Path, seed: int, operations: int) -> str:
    """Many processes at once; every second seed with a shadow in a file."""
    home = Home(WORKLOAD, work / "mnt", work / "shadow" if seed % 2 else "ram:1G")
    try:
        home.enter()
        together.exercise(home.place, work / "models", seed, 6, operations // 6)
        home.leave()
    finally:
        clear_away(home.place)
    return f"6 processes, {operations // 6} operations each and {operations // 6 // together.MEETINGS} meetings"


KINDS: dict[str, Callable[[Path, int, int], str]] = {
    "lives": lives,
    "snapshots": snapshots,
    "without room": without_room,
    "spellings": spellings,
    "lists": lists,
    "crowd": crowd,
}
