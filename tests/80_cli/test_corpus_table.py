"""docs/corpus.md is true: made again, with what dmgfs does with each image now, it is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.corpus
def test_the_table_of_the_corpus_is_still_true(corpus: Path) -> None:
    ended = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/corpus-table"],
        env=os.environ | {"DMGFS_CORPUS": str(corpus)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    written = (REPOSITORY / "docs/corpus.md").read_text()
    changed = set(ended.stdout.splitlines()) ^ set(written.splitlines())
    assert not changed, "make it again: scripts/corpus-table > docs/corpus.md\n" + "\n".join(sorted(changed))
    assert written == ended.stdout
