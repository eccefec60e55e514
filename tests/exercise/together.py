"""Many processes at once in one mount. Each does random operations in a directory of its own, beside a model; and all of
them meet in one directory, where they append to one file, race for names, replace a file that others read, and give names
to one object and take them away. Afterwards everything must add up.
"""

import multiprocessing
import os
import random
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from exercise import randomops

RECORD = 100
VERSION = 20_000
MEETINGS = 25
"""Operations of one's own between two meetings."""


class Meeting:
    """The directory in which the processes meet, seen by the one called `number`."""

    def __init__(self, place: Path, number: int) -> None:
        self.place, self.number = place, number
        self.appended = 0
        self.won: list[str] = []
        self.names: list[str] = []

    @staticmethod
    def prepare(place: Path) -> None:
        place.mkdir()
        (place / "log").touch()
        (place / "shared").touch()
        (place / "replaced").write_bytes(b"0" * VERSION)

    def meet(self, turn: int, chance: random.Random) -> None:
        record = f"{self.number} {self.appended} ".encode().ljust(RECORD - 1, b".") + b"\n"
        log = os.open(self.place / "log", os.O_WRONLY | os.O_APPEND)
        os.write(log, record)
        os.close(log)
        self.appended += 1
        try:
            os.close(os.open(self.place / f"race {turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self.won.append(f"race {turn}")
        except FileExistsError:
            pass
        own = self.place / f"new {self.number}"
        own.write_bytes(b"%d" % self.number * VERSION)
        os.rename(own, self.place / "replaced")
        seen = (self.place / "replaced").read_bytes()
        assert len(seen) == VERSION, f"{len(seen)} bytes of a file that is replaced as a whole"
        assert len(set(seen)) == 1, "a file that is replaced as a whole is of two"
        if self.names and chance.random() < 0.5:
            os.unlink(self.place / self.names.pop())
        else:
            name = f"name {self.number} {turn}"
            os.link(self.place / "shared", self.place / name)
            self.names.append(name)


def work(own: Path, model: Path, meeting: Meeting, seed: int, operations: int, report: Connection) -> None:
    try:
        os.umask(0o022)
        chance = random.Random(seed)
        pair = randomops.Pair(own, model)
        chooser = randomops.Chooser(chance, model)
        for number in range(operations):
            pair.do(chooser.next())
            if number % MEETINGS == 0:
                meeting.meet(number, chance)
            if number % 200 == 199:
                pair.compare()
        pair.compare()
        pair.close()
        report.send((meeting.appended, meeting.won, meeting.names))
    except BaseException:
        report.send(traceback.format_exc())


def exercise(place: Path, models: Path, seed: int, processes: int, operations: int) -> None:
    """Raises Different or AssertionError."""
    meeting = place / "meeting"
    Meeting.prepare(meeting)
    models.mkdir()
    context = multiprocessing.get_context("fork")
    workers = []
    for number in range(processes):
        own, model = place / f"home {number}", models / f"home {number}"
        own.mkdir()
        model.mkdir()
        receiver, sender = context.Pipe(duplex=False)
        arguments = own, model, Meeting(meeting, number), seed * 100 + number, operations, sender
        process = context.Process(target=work, args=arguments)
        process.start()
        sender.close()
        workers.append((process, receiver))
    reports = []
    for process, receiver in workers:
        try:
            reports.append(receiver.recv())
        except EOFError:
            reports.append("a process ended without a word")
        process.join()
    for report in reports:
        if isinstance(report, str):
            raise randomops.Different(report, [])
    settle(meeting, reports)


def settle(meeting: Path, reports: list[tuple[int, list[str], list[str]]]) -> None:
    """Whether what the processes did together adds up."""
    lines = (meeting / "log").read_bytes().splitlines(keepends=True)
    expected = {(number, count) for number, (appended, _, _) in enumerate(reports) for count in range(appended)}
    assert all(len(line) == RECORD for line in lines), "a record is torn"
    found = [tuple(map(int, line.split()[:2])) for line in lines]
    assert len(found) == len(expected), f"{len(found)} records of {len(expected)}"
    assert set(found) == expected, "records are missing"
    won = [name for _, names, _ in reports for name in names]
    assert len(won) == len(set(won)), "a race was won twice"
    assert {name for name in os.listdir(meeting) if name.startswith("race")} == set(won)
    names = {name for _, _, names in reports for name in names}
    assert {name for name in os.listdir(meeting) if name.startswith("name")} == names
    assert os.stat(meeting / "shared").st_nlink == len(names) + 1
    for name in names:
        assert os.path.samefile(meeting / name, meeting / "shared")
