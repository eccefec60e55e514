"""SQLite with a rollback journal and with a write-ahead log: a writer that is killed in the middle, and (with a shadow in a
file) a daemon that is killed in the middle. Every transaction whose end was reported must be there, whole."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from exercise.workloads.home import Home

ROWS = 5
"""Rows of one transaction: none or all of them may be there."""

WRITER = """
import sqlite3, sys
path, mode, first, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
base = sqlite3.connect(path, isolation_level=None, timeout=30)
base.execute(f"PRAGMA journal_mode={mode}")
base.execute("PRAGMA synchronous=FULL")
base.execute("CREATE TABLE IF NOT EXISTS t (number INTEGER, row INTEGER, filling BLOB)")
base.execute("CREATE INDEX IF NOT EXISTS i ON t (number, filling)")
for number in range(first, 1 << 30):
    base.execute("BEGIN IMMEDIATE")
    for row in range(rows):
        base.execute("INSERT INTO t VALUES (?, ?, randomblob(1000))", (number, row))
    if number % 7 == 0:
        base.execute("DELETE FROM t WHERE number = ?", (number - 3,))
    base.execute("COMMIT")
    print(number, flush=True)
"""


def write(path: Path, mode: str, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), mode, str(first), str(ROWS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reported(writer: subprocess.Popen[str], count: int) -> int:
    """Reads until `count` transactions were reported; the number of the last one."""
    assert writer.stdout is not None
    last = -1
    for _ in range(count):
        line = writer.stdout.readline()
        assert line, writer.stderr and writer.stderr.read()
        last = int(line)
    return last


def rest(writer: subprocess.Popen[str], last: int) -> int:
    """What was reported before it ended."""
    out, _ = writer.communicate(timeout=60)
    return int(out.split()[-1]) if out.split() else last


def check(path: Path, last: int) -> int:
    """The database is sound and has every transaction up to `last`; the number of the newest one."""
    with sqlite3.connect(path) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counts = dict(base.execute("SELECT number, COUNT(*) FROM t GROUP BY number"))
    base.close()
    newest = max(counts)
    assert newest >= last, f"transaction {last} was reported, {newest} is the newest"
    gone = {number - 3 for number in range(0, newest + 1, 7)}
    assert counts == {number: ROWS for number in range(newest + 1) if number not in gone}
    return newest


def live(home: Home) -> None:
    kills = total = 0
    for mode in ("DELETE", "TRUNCATE", "WAL"):
        path = home.place / f"base {mode}"
        newest = -1
        for turn in range(6):
            writer = write(path, mode, newest + 1)
            last = reported(writer, 10 + 7 * turn)
            time.sleep(0.003 * turn)
            if home.lasts and turn % 2:
                home.kill()
                last = rest(writer, last)
                home.enter_again()
                kills += 1
            else:
                writer.kill()
                last = rest(writer, last)
            newest = check(path, last)
        total += newest + 1
        if home.lasts:
            home.leave()
            home.enter()
            assert check(path, newest) == newest
    home.notes.append(
        f"{total} transactions, 18 interruptions, {kills} of them kill -9 of the daemon; all reported ones there"
    )
