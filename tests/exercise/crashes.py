"""A mounted daemon with its shadow in a file, killed under load again and again. Several processes work, each in a
directory of its own beside a model; the daemon dies at any moment. After a new mount each directory must be what it was
before the operation that was under way, or after it: nothing that had returned is missing, nothing is there by half.

Every operation here is one change for the daemon (one that is several requests may rightly be found half done), and what
is written through a mapping is waited for.
"""

import errno
import multiprocessing
import os
import random
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path

from exercise.daemon import SECONDS, has_ended
from exercise.randomops import Chooser, Different, Operation, Pair, outcome
from exercise.workloads.home import Home

SEVERAL = {"remove_tree", "rewrite", "hold_new", "map_write", "far_and_back"}
"""Operations that are more than one change."""

DEAD = ("failed with", "ENOTCONN"), ("failed with", "ECONNABORTED")


class SingleChooser(Chooser):
    """Only operations that are one change each, and none on set-id bits (which the kernel takes away in a step of its
    own)."""

    def next(self) -> Operation:
        while True:
            name, *arguments = super().next()
            if name == "map_write":
                return ("map_sync", *arguments)
            if name in SEVERAL:
                continue
            if name in ("write", "append", "held_write"):
                arguments[-1] = min(arguments[-1], 60000)
            if name in ("create", "mkdir", "chmod", "held_chmod"):
                arguments[-1] &= 0o1777
            return (name, *arguments)


def work(place: Path, model: Path, seed: int, started: float, report: Connection) -> None:
    """Works until the daemon is gone. Its last message says how many operations ended and which one was under way, or what
    was different."""
    os.umask(0o022)
    pair = Pair(place, model, started)
    chooser = SingleChooser(random.Random(seed), model)
    ended = 0
    try:
        while True:
            operation = chooser.next()
            if operation[0] == "map_sync":  # a mapping of a dead mount is the end of its process
                report.send((ended, operation))
            seen = outcome(pair.sides[0], operation)
            if seen in DEAD or not alive(place):
                report.send((ended, operation))
                return
            expected = outcome(pair.sides[1], operation)
            if seen != expected:
                raise Different(f"{operation}: the mount {seen}, the directory {expected}", [])
            ended += 1
    except Different as difference:
        report.send((ended, difference.what))
    finally:
        os._exit(0)  # descriptors of a dead mount cannot be closed in good order


def last(receiver: Connection) -> tuple[int, Operation | str]:
    """The last message of a process that has ended."""
    message: tuple[int, Operation | str] | None = None
    try:
        while True:
            message = receiver.recv()
    except EOFError:
        assert message is not None, "a process ended without a word"
        return message


def alive(place: Path) -> bool:
    try:
        os.lstat(place)
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


def differs(place: Path, model: Path, started: float) -> str | None:
    try:
        Pair(place, model, started).compare()
    except Different as difference:
        return difference.what
    return None


class Life:
    """A mount of `image` with a shadow in a file, `processes` directories in it (the image's own objects are in the first)
    and their models in `models`."""

    def __init__(self, home: Home, models: Path, processes: int, seed: int) -> None:
        self.home, self.models, self.seed = home, models, seed
        self.started = time.time()
        self.names = [f"home {number}" for number in range(processes)]
        self.lives = self.ended = self.under_way = 0
        home.enter()
        found = os.listdir(home.place)
        for name in self.names:
            (home.place / name).mkdir()
        for entry in found:
            os.rename(home.place / entry, home.place / self.names[0] / entry)
        subprocess.run(["find", home.place, "-perm", "/6000", "-exec", "chmod", "a-s", "{}", "+"], check=True)
        models.mkdir()
        subprocess.run(["cp", "-a", *(home.place / name for name in self.names), models], check=True)

    def once(self, seconds: float) -> None:
        """Load, kill -9 after that time, a new mount, a look at everything. Raises Different, AssertionError."""
        context = multiprocessing.get_context("fork")
        workers = []
        for number, name in enumerate(self.names):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (
                self.home.place / name,
                self.models / name,
                self.seed + 1000 * self.lives + number,
                self.started,
            )
            process = context.Process(target=work, args=(*arguments, sender))
            process.start()
            sender.close()
            workers.append((name, process, receiver))
        time.sleep(seconds)
        self.home.kill()
        reports = []
        for name, process, receiver in workers:
            assert has_ended(process.pid, 4 * SECONDS), (
                f"the process in {name!r} does not see that the daemon is gone"
            )
            process.join()
            reports.append((name, *last(receiver)))
        self.home.enter_again()
        self.lives += 1
        for name, ended, operation in reports:
            if isinstance(operation, str):
                raise Different(f"{name}: {operation}", [])
            self.ended += ended
            self._look(name, operation)

    def _look(self, name: str, operation: Operation) -> None:
        place, model = self.home.place / name, self.models / name
        before = differs(place, model, self.started)
        if before is None:
            return
        outcome(Pair(place, model).sides[1], operation)
        after = differs(place, model, self.started)
        if after is not None:
            raise Different(
                f"{name} after life {self.lives}, with {operation} under way: {before}; with it: {after}", []
            )
        self.under_way += 1
