"""Real images through a real mount: whatever HFS+, HFSX or HFS volume the corpus holds must show what independent readers
found in it, and everything else must end in one clear line, the right exit code, at once and in little memory.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.manifest import decomposed, read_manifest
from exercise.mounted import dmgfs, is_mounted, mounted
from exercise.shown import disagreements
from exercise.trees import digest, paths

pytestmark = [pytest.mark.kernel, pytest.mark.corpus]

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("DMGFS_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
INDEX = CORPUS / "index.json"
IMAGES: list[dict[str, Any]] = json.loads(INDEX.read_text()) if INDEX.exists() else []

SMALL = 200 << 20


def holds_volume(entry: dict[str, Any]) -> bool:
    return any(kind in entry["features"] for kind in ("HFS+[", "HFSX[", "HFS["))


def needs_password(entry: dict[str, Any]) -> bool:
    return "enc-v" in entry["features"]


def names(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["name"] for entry in entries]


MOUNTABLE = [entry for entry in IMAGES if holds_volume(entry) and ("password" in entry or not needs_password(entry))]
REFUSED = {
    "an APFS container": (69, "APFS", [e for e in IMAGES if "APFS[" in e["features"] and not needs_password(e)]),
    "a FAT disk": (69, "FAT", [e for e in IMAGES if "| FAT | FAT" in e["features"]]),
    "encryption without a passphrase": (77, "passphrase", [e for e in IMAGES if needs_password(e)]),
}
REFUSALS = [(name, code, word) for code, word, entries in REFUSED.values() for name in names(entries)]
NO_IMAGES = [entry for entry in IMAGES if entry["file"].endswith("decmpfs/")]
OTHERS = sorted(set(names(IMAGES)) - set(names(MOUNTABLE + NO_IMAGES)) - {name for name, _, _ in REFUSALS})


def test_the_corpus_was_found(corpus: Path) -> None:
    assert len(IMAGES) >= 80


@pytest.mark.parametrize("entry", MOUNTABLE, ids=names(MOUNTABLE))
def test_a_volume_shows_what_is_in_it(
    entry: dict[str, Any], corpus_image: Callable[[str], Path], tmp_path: Path
) -> None:
    image = corpus_image(entry["name"])
    before = digest(os.fsencode(image))
    options: list[str | Path] = []
    if "password" in entry:
        secret = tmp_path / "passphrase"
        secret.write_text(entry["password"] + "\n")
        options = ["--passphrase-file", secret]
    with mounted(image, tmp_path / "mnt", *options) as root:
        assert sorted(disagreements(root, read_manifest(CORPUS / "manifests" / f"{entry['name']}.tsv"))) == []
    assert digest(os.fsencode(image)) == before


MACOS_SAW = "deploymenttheory_go-apfs-v2__hfs-manifest.json"
"""Written on macOS from the mounted volume: the strongest truth there is, with modes and the exact set of attributes."""


@pytest.mark.parametrize("codec", ["hfs-basic", "hfs-basic-adc", "hfs-basic-lzma"])
def test_a_volume_shows_what_macos_saw(
    codec: str, corpus: Path, corpus_image: Callable[[str], Path], tmp_path: Path
) -> None:
    truth = json.loads((corpus / "manifests" / MACOS_SAW).read_text())["files"]
    seen = {}
    with mounted(corpus_image(f"deploymenttheory_go-apfs-v2__{codec}.dmg"), tmp_path / "mnt") as root:
        for raw in paths(os.fsencode(root)):
            path = os.path.join(os.fsencode(root), raw)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                seen[decomposed(os.fsdecode(raw))] = as_macos_saw(path)
    expected = {decomposed(path): dict(found) for path, found in truth.items()}
    for found in expected.values():
        found.pop("compressed", None)  # how it is stored does not show
        if found["type"] == "symlink":
            del found["xattrs"]  # nor do a symbolic link's attributes, on Linux
    assert seen == expected


def as_macos_saw(path: bytes) -> dict[str, Any]:
    """One entry of that manifest, from our mount."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return {"type": "symlink", "target": os.fsdecode(os.readlink(path))}
    values = {name.removeprefix("user."): os.getxattr(path, name) for name in os.listxattr(path)}
    return {
        "type": "file",
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "size": status.st_size,
        "sha256": digest(path),
        "xattrs": {n: {"sha256": hashlib.sha256(v).hexdigest(), "size": len(v)} for n, v in values.items()},
    }


@pytest.mark.parametrize(("name", "code", "word"), REFUSALS, ids=[name for name, _, _ in REFUSALS])
def test_what_we_cannot_mount_is_called_by_its_name(
    name: str, code: int, word: str, corpus_image: Callable[[str], Path], tmp_path: Path
) -> None:
    line = refusal(corpus_image(name), tmp_path, code)
    assert word in line


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_damaged_or_no_volume_is_refused(
    name: str, corpus_image: Callable[[str], Path], tmp_path: Path
) -> None:
    refusal(corpus_image(name), tmp_path, 65, 66, 69)


def refusal(image: Path, tmp_path: Path, *codes: int) -> str:
    """The line with which the mount of the image fails."""
    place = tmp_path / "mnt"
    place.mkdir()
    ended = dmgfs("mount", image, place)
    assert not is_mounted(place)
    assert list(place.iterdir()) == []
    lines = ended.err.splitlines()
    assert len(lines) == 1, f"one line, please: {ended.err}"
    assert lines[0].startswith("dmgfs: ")
    assert ended.out == ""
    assert ended.code in codes, lines[0]
    assert ended.cpu < 1, f"{ended.cpu} seconds of processor time"
    assert ended.memory < SMALL, f"{ended.memory >> 20} MiB of memory"
    return lines[0]
