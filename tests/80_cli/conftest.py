"""Running verbs in this process, on images built here."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from builders.rich import as_udif, rich_volume

from dmgfs.cli import main


class Said(NamedTuple):
    """How a verb ended."""

    code: int
    out: bytes
    err: str


Runner = Callable[..., Said]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Runner:
    """("ls", image, "-l") → Said, without a process."""

    def run_verb(*arguments: str | os.PathLike[str]) -> Said:
        capfdbinary.readouterr()
        code = main([os.fspath(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Said(code, out, err.decode())

    return run_verb


@pytest.fixture(scope="session")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rich") / "rich.dmg"
    path.write_bytes(as_udif(bytes(rich_volume().build().data)))
    return path
