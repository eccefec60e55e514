"""Damaged copies of real images on real mounts: a short set of what `scripts/test-damage` does with all of them. Whatever
is damaged, the daemon answers, lives and leaves no traceback; and the exercise itself notices when it does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exercise.damage import damage, damage_inside, is_fault, try_out

pytestmark = [pytest.mark.kernel, pytest.mark.corpus]

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("DMGFS_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
INDEX = CORPUS / "index.json"
ENTRIES: dict[str, dict[str, Any]] = (
    {entry["name"]: entry for entry in json.loads(INDEX.read_text())} if INDEX.exists() else {}
)

FLIPS = 12
INSIDE = [
    ("sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg", 1),
    ("sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg", 2),
    ("deploymenttheory_go-apfs-v2__hfs-basic.dmg", 1),
    ("keramics_keramics__hfsplus_lzfse.dmg", 3),
    ("penguin359_hfsplus-rs__hfsp-small.img", 4),
    ("log2timeline_plaso__spotlight.12.dmg", 5),
    ("google_syzkaller__syz_mount_image_hfsplus_9.img", 6),
]
OUTSIDE = [
    ("sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg", 0),
    ("sparkle-project_Sparkle__SparkleTestCodeSignApp.enc.dmg", 0),
    ("deploymenttheory_go-apfs-v2__hfs-basic-lzma.dmg", 0),
    ("google_syzkaller__syz_mount_image_hfs_1.img", 0),
    ("citruz_dmgwiz__input_zlib.dmg", 0),
]
SLOWEST = 20.0
"""Seconds for one image, mount and walk. The first image took 40 while a damaged chunk was decoded at every request."""


@pytest.mark.parametrize(("name", "seed"), INSIDE)
def test_damaged_structures_of_a_volume(
    name: str, seed: int, corpus_image: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = tmp_path / "damaged.img"
    damage_inside(corpus_image(name), copy, seed, FLIPS)
    outcome = try_out(copy, tmp_path)
    assert outcome.faults == []
    assert outcome.seconds < SLOWEST


@pytest.mark.parametrize(("name", "seed"), OUTSIDE)
def test_damaged_image_files(name: str, seed: int, corpus_image: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / "damaged.dmg"
    damage(corpus_image(name), copy, seed, FLIPS)
    options: list[str | Path] = []
    if "password" in ENTRIES[name]:
        (tmp_path / "passphrase").write_text(ENTRIES[name]["password"] + "\n")
        options = ["--passphrase-file", tmp_path / "passphrase"]
    outcome = try_out(copy, tmp_path, options)
    assert outcome.faults == []
    assert outcome.seconds < SLOWEST


def test_a_sound_image_is_seen_whole(corpus_image: Callable[[str], Path], tmp_path: Path) -> None:
    name = "sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg"
    outcome = try_out(corpus_image(name), tmp_path)
    assert (outcome.faults, outcome.mounted, outcome.errors, outcome.slow) == ([], True, {}, False)
    assert outcome.objects > 200
    assert outcome.bytes > 2 << 20


def test_the_exercise_notices_what_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "not there").mkdir()
    outcome = try_out(tmp_path / "image", tmp_path, ["--no-such-option"])
    assert "exit code 64" in outcome.faults[0]
    assert is_fault("2026-01-01 10:00:00,000 ERROR lookup failed, it gets EIO: KeyError: 'x'")
    assert not is_fault("2026-01-01 10:00:00,000 WARNING read: UDIF: block table 0: run 3: it is damaged")
