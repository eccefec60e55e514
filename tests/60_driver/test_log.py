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


def test_the_log_of_the_kernel(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kmsg = tmp_path / "kmsg"
    kmsg.touch()
    monkeypatch.setattr("dmgfs.fuse.log.KMSG", str(kmsg))
    monkeypatch.setenv("DMGFS_INITRD", "1")
    for handler in logging.getLogger().handlers:
        handler.close()
    open_log(None, foreground=False)
    logging.getLogger("dmgfs").warning("two\nlines")
    logging.getLogger("dmgfs").error("x" * 2000)
    first, second, third = kmsg.read_text().splitlines()
    assert first.startswith("<28>dmgfs[")
    assert first.endswith("]: WARNING two")
    assert second.endswith("]: lines")
    assert third.startswith("<27>")
    assert len(third) == 899
