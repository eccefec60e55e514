"""The mount beside a real directory: thousands of random operations must end alike on both, and leave equal trees; random
contents of one file must be what was written. The image has hard links, and is the same afterwards.

A few seeds here; `scripts/test-random` runs as many as one likes and shortens what fails.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from exercise import fsx, randomops
from exercise.mounted import mounted
from exercise.trees import digest

pytestmark = pytest.mark.kernel

WORKLOAD = Path(__file__).resolve().parents[1] / "data/workload.dmg"
LARGE = b"".join(b"%015d\n" % (line % 997) for line in range(1 << 16))
"""The content of the file "large" in the workload image (see scripts/fixtures/guest/workload.py)."""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """The workload image with a shadow in RAM."""
    before = digest(os.fsencode(WORKLOAD))
    with mounted(WORKLOAD, tmp_path / "mnt", "--shadow", "ram:512M", "-o", "allow_other,dev,suid") as place:
        yield place
    assert digest(os.fsencode(WORKLOAD)) == before


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_end_alike(mount: Path, tmp_path: Path, seed: int) -> None:
    model = tmp_path / "model"
    subprocess.run(["cp", "-a", mount, model], check=True)
    done = randomops.exercise(mount, model, seed, 3000)
    assert len(done) == 3000
    shutil.rmtree(model)


def test_random_contents_of_a_file_of_the_image(mount: Path) -> None:
    fsx.exercise(mount / "large", LARGE, seed=3, operations=10000, limit=2 << 20)
    assert (mount / "bee3/large too").read_bytes() == (mount / "large").read_bytes()


def test_random_contents_of_a_new_file(mount: Path) -> None:
    (mount / "new").write_bytes(b"")
    fsx.exercise(mount / "new", b"", seed=4, operations=10000)


def test_the_exercises_notice_lost_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: a write that stores nothing is found at once."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: len(data))
    with pytest.raises(fsx.BadData):
        fsx.exercise(file, b"", seed=5, operations=50)


def test_the_exercises_notice_a_wrong_result(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "file").write_bytes(b"a")
    (other / "file").write_bytes(b"b")
    found = randomops.replay(one, other, [("read", "file", 0, 10)])
    assert found is not None
    assert "read" in found
