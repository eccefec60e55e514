"""Runs one parser under atheris (coverage-guided): `python tests/fuzz/fuzz_NAME.py [-max_total_time=60] [FOLDER ...]`.

A target is a function of bytes that may end in DmgError or not at all; whatever else it raises is a finding. Seeds are
built, not stored. atheris is needed here only (`pip install atheris`), so that the tests do without it.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `builders`

import atheris


def fuzz(target: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Does not return: libFuzzer ends the process. Further arguments on the command line are libFuzzer's."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / f"seed{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], target)
        atheris.Fuzz()
