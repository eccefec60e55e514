"""Real images through a real mount: whatever HFS+, HFSX or HFS volume the corpus holds must show what independent readers
found in it, and everything else must end in one clear line, the right exit code, at once and in little memory.

Manifests are taken literally but for what they cannot know: a mount hides private metadata items and a compressed file's
own attributes, shows names composed, and some hard links were beyond the reader that wrote the manifest.
"""

import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from exercise.mounted import dmgfs, is_mounted, mounted
from exercise.trees import digest, paths

pytestmark = [pytest.mark.kernel, pytest.mark.corpus]

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("DMGFS_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
INDEX = CORPUS / "index.json"
IMAGES: list[dict[str, Any]] = json.loads(INDEX.read_text()) if INDEX.exists() else []

SMALL = 200 << 20
PRIVATE = (
    "\u2400\u2400\u2400\u2400HFS+ Private Data",
    ".HFS+ Private Directory Data\r",
    ".journal",
    ".journal_info_block",
)
LEFT_OUT = ("Desktop", "Desktop DB", "Desktop DF")
"""The Finder's own files, which the reference reader of HFS standard leaves out."""

XATTR_LIMIT = 64 << 10


class Row(NamedTuple):
    """A line of a manifest. type: f file, d directory, l symbolic link, x attribute or [rsrc]."""

    type: str
    size: int
    sha256: str
    path: str
    attribute: str


def manifest(name: str) -> list[Row]:
    rows = []
    for line in (CORPUS / "manifests" / f"{name}.tsv").read_text().splitlines():
        if not line.startswith("#"):
            kind, size, sha256, path, *attribute = line.split("\t")
            plain = path.encode("latin-1", "backslashreplace").decode("unicode_escape")
            rows.append(Row(kind, int(size), sha256, decomposed(plain), attribute[0] if attribute else ""))
    return rows


def decomposed(name: str) -> str:
    return unicodedata.ucd_3_2_0.normalize("NFD", name)


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
        assert sorted(disagreements(root, manifest(entry["name"]))) == []
    assert digest(os.fsencode(image)) == before


def disagreements(root: Path, rows: list[Row]) -> list[str]:
    """One line per difference between the mount and the manifest."""
    found = []
    expected = {row.path: row for row in rows if row.type != "x" and not is_private(row.path)}
    hidden = {row.sha256 for row in rows if row.type == "f" and is_private(row.path)}
    actual = {
        decomposed(os.fsdecode(path)): os.path.join(os.fsencode(root), path) for path in paths(os.fsencode(root))
    }
    found += [f"{path!a} is missing" for path in expected.keys() - actual.keys()]
    found += [f"{path!a} is not in the manifest" for path in actual.keys() - expected.keys() - set(LEFT_OUT)]
    for path in expected.keys() & actual.keys():
        found += [f"{path!a}: {what}" for what in compare(actual[path], expected[path], hidden)]
    for row in rows:
        if row.type == "x" and row.path in actual:
            found += [f"{row.path!a}: {what}" for what in compare_attribute(actual[row.path], row)]
    return found


def is_private(path: str) -> bool:
    return path.split("/")[0] in PRIVATE


def compare(path: bytes, row: Row, hidden: set[str]) -> list[str]:
    status = os.lstat(path)
    kinds = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "another type")
    if kind != row.type:
        return [f"type is {kind}, must be {row.type}"]
    if kind == "d":
        return []
    if kind == "l":
        found = hashlib.sha256(os.readlink(path)).hexdigest()
        return [] if found == row.sha256 else [f"target is {os.readlink(path)!r}, must have sha256 {row.sha256}"]
    found = digest(path)
    if row.sha256.startswith("ERR"):
        # The reference reader did not follow this hard link: it must be one of the inodes of the private folder.
        return (
            [] if found in hidden and status.st_nlink > 1 else ["is no hard link to an inode of the private folder"]
        )
    if status.st_size != row.size:
        return [f"size is {status.st_size}, must be {row.size}"]
    return [] if found == row.sha256 else [f"sha256 is {found}, must be {row.sha256}"]


def compare_attribute(path: bytes, row: Row) -> list[str]:
    if row.attribute == "com.apple.decmpfs":
        hidden = "user.com.apple.decmpfs" not in os.listxattr(path)
        return [] if hidden else ["com.apple.decmpfs of a compressed file shows"]
    if row.attribute == "[type/creator]":
        shown = "user.com.apple.FinderInfo" in os.listxattr(path)
        found = os.getxattr(path, "user.com.apple.FinderInfo")[:8].hex() if shown else "00" * 8
        return [] if found == row.sha256 else [f"type and creator are {found}, must be {row.sha256}"]
    if os.path.islink(path):
        return []  # Linux does not ask a FUSE file system for attributes of symbolic links
    name = "com.apple.ResourceFork" if row.attribute == "[rsrc]" else row.attribute
    if not name.startswith(("user.", "trusted.", "security.")):  # those come from Linux and stay what they were
        name = "user." + name
    if row.size > XATTR_LIMIT:
        return [f"{name} shows and cannot be read"] if name in os.listxattr(path) else []
    try:
        value = os.getxattr(path, name)
    except OSError as error:
        return [f"{name}: {error.strerror}"]
    same = len(value) == row.size and hashlib.sha256(value).hexdigest() == row.sha256
    return [] if same else [f"{name} has {len(value)} bytes, must have {row.size} with sha256 {row.sha256}"]


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
