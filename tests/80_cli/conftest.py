"""Running verbs in this process, on images built here."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from builders.partitions import Part, apm_disk
from builders.rich import as_udif, rich_volume
from exercise.here import here
from exercise.nbd import PARTITION

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


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two partitions of random digits and zeros behind an Apple map, 2 MiB, compressed; and the bytes beside it."""
    folder = tmp_path_factory.mktemp("made")
    raw = apm_disk(
        [Part("Apple_partition_map", 1, 63), Part("Apple_HFS", 64, 800), Part("Apple_HFS", 864, 1000)], 2 << 20
    )
    raw[PARTITION : 1864 * 512] = random.Random(7).randbytes(450 * 512).hex().encode() + bytes(900 * 512)
    raw[1900 * 512 :] = random.Random(8).randbytes((len(raw) - 1900 * 512) // 2).hex().encode()
    (folder / "raw").write_bytes(raw)
    assert here("convert", folder / "raw", folder / "disk.dmg", "--to", "udzo", "--chunk", "512").code == 0
    return folder
