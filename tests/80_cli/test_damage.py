"""Damaged images through whole verbs: an exit code of ours, one line per complaint, nothing outside the folder, in time."""

import shutil
import time
from pathlib import Path

import pytest
from builders.rich import rich_volume
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmgfs.cli import main

CODES = (0, 65, 66, 69)
VOLUME = bytes(rich_volume().build().data)
HEADER_AND_TREES = len(VOLUME) - 24 * 1024
"""The builder puts the trees behind the contents; the header stands in front."""

places = st.one_of(
    st.integers(1024, 1535), st.integers(HEADER_AND_TREES, len(VOLUME) - 1), st.integers(0, len(VOLUME) - 1)
)
changes = st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.parametrize("verb", ["info", "ls", "verify", "extract"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=changes, cut=st.one_of(st.none(), st.integers(512, len(VOLUME))))
def test_damage_ends_in_a_code_and_lines(
    verb: str, tmp_path: Path, capfdbinary, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(VOLUME)
    for place, value in changes:
        data[place] = value
    image = tmp_path / "image"
    image.write_bytes(data[:cut])
    out = tmp_path / "out"
    more = {"ls": ["-lR"], "verify": ["--deep"], "extract": ["-C", str(out)]}.get(verb, [])
    capfdbinary.readouterr()
    started = time.process_time()
    code = main([verb, str(image), *more])
    assert time.process_time() - started < 2
    err = capfdbinary.readouterr().err.decode()
    assert code in CODES
    assert all(line.startswith(f"dmgfs: {image}: ") for line in err.splitlines())
    assert {path.name for path in tmp_path.iterdir()} <= {"image", "out"}
    shutil.rmtree(out, ignore_errors=True)
