"""Runs a verb in this process: a third of the time of a process of its own. For verbs that fork nothing."""

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from dmgfs.cli import main


class Said(NamedTuple):
    """How a verb ended. out and err with what processes that it started said, at the end."""

    code: int
    out: str
    err: str


def here(*arguments: str | Path) -> Said:
    """Never raises for the verb's exit code."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryFile() as others:
        kept = os.dup(2)
        os.dup2(others.fileno(), 2)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = main([str(argument) for argument in arguments])
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 1
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        others.seek(0)
        said = others.read().decode()
    return Said(code, out.getvalue(), err.getvalue() + said)
