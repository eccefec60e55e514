"""What gets into the daemon's log."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmgfs.fuse.log import open_log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level, logging.raiseExceptions
    path = tmp_path / "log"
    open_log(str(path), foreground=False)
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers[:], level, logging.raiseExceptions = kept
    root.setLevel(level)


def test_answers_that_nobody_waits_for_are_no_error(log: Path) -> None:
    for reason in ("No such file or directory", "Bad address"):
        logging.getLogger("pyfuse3").error("fuse_read(): fuse_reply_* failed with %s", reason)
    logging.getLogger("dmgfs.fuse.boundary").warning("read: fuse_reply_* failed with No such file or directory")
    lines = [line.partition(" ")[2].split(" ", 1)[1] for line in log.read_text().splitlines()]
    assert lines == [
        "ERROR fuse_read(): fuse_reply_* failed with Bad address",
        "WARNING read: fuse_reply_* failed with No such file or directory",
    ]
