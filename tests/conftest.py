"""Shared ground of all tests: where the corpus is, and the rule that a daemon's log is part of the result."""

import hashlib
import json
import lzma
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("DMGFS_CORPUS", REPOSITORY.parent / "shared" / "corpus"))

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job: what tests start would ignore it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real images. Absent: the test is skipped with a reason, in CI it fails."""
    if not (CORPUS / "index.json").exists():
        message = f"no corpus of real images at {CORPUS} (set DMGFS_CORPUS)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return CORPUS


@pytest.fixture(scope="session")
def corpus_index(corpus: Path) -> list[dict[str, Any]]:
    index: list[dict[str, Any]] = json.loads((corpus / "index.json").read_text())
    return index


@pytest.fixture(scope="session")
def corpus_image(corpus: Path, tmp_path_factory: pytest.TempPathFactory):
    """name → path of the unpacked image. Those stored as .xz are unpacked once per run."""
    unpacked = tmp_path_factory.mktemp("corpus")

    def image(name: str) -> Path:
        stored = corpus / "images" / name
        if stored.exists():
            return stored
        target = unpacked / name
        if not target.exists():
            with lzma.open(corpus / "images" / (name + ".xz")) as source:
                target.write_bytes(source.read())
        return target

    return image


@pytest.fixture
def disk(made) -> Iterator[Path]:
    """The image in the folder `made` of a module. It must be the same afterwards."""
    before = hashlib.sha256((made / "disk.dmg").read_bytes()).digest()
    yield made / "disk.dmg"
    assert hashlib.sha256((made / "disk.dmg").read_bytes()).digest() == before, "the image was changed"


@pytest.fixture
def raw(made) -> bytearray:
    """The bytes of its disk."""
    return bytearray((made / "raw").read_bytes())
