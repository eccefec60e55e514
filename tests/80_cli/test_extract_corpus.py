"""Real images extracted: what lands in the folder is what the volume holds, and what macOS itself saw in it."""

import errno
import hashlib
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from builders.manifest import read_manifest
from exercise.shown import disagreements

from dmgfs.cli.tree import Tree
from dmgfs.image import open_image
from dmgfs.lower import VolumeLower
from overlay.vfs import Content

pytestmark = pytest.mark.corpus

IMAGES = [
    "deploymenttheory_go-apfs-v2__hfs-basic-adc.dmg",
    "deploymenttheory_go-apfs-v2__hfs-basic-lzma.dmg",
    "deploymenttheory_go-apfs-v2__hfs-basic.dmg",
    "elliotnunn_BeHierarchic__manyExtents.img",
    "fadden_CiderPress2__MultiPart.hdv",
    "google_syzkaller__syz_mount_image_hfsplus_3.img",
    "keramics_keramics__hfsplus_bzip2.dmg",
    "log2timeline_plaso__spotlight.12.dmg",
    "penguin359_hfsplus-rs__hfsp-small.img",
    "sparkle-project_Sparkle__SparkleTestCodeSignApp.dmg",
]

VOLUMES = 55
"""Images of the corpus with a volume that we read."""


def sha256(content: Content) -> str:
    return hashlib.sha256(content.read(0, content.size)).hexdigest()


@pytest.mark.parametrize("name", IMAGES)
def test_the_folder_is_the_volume(run, corpus_image, tmp_path: Path, name: str) -> None:
    assert run("extract", corpus_image(name), "-C", tmp_path / "out").code == 0
    with open_image(corpus_image(name)) as image:
        volume = image.volume()
        tree = Tree(volume, VolumeLower(volume))
        inodes: dict[int, int] = {}
        paths = set()
        for step in tree.walk(tree.root()):
            item = step.item
            assert item is not None
            paths.add(item.path)
            if not item.path:
                continue
            path = os.path.join(os.fsencode(tmp_path / "out"), item.path)
            status = os.lstat(path)
            assert status.st_mode == item.attr.mode or stat.S_ISLNK(item.attr.mode)
            assert status.st_mtime_ns == item.attr.mtime_ns
            if os.geteuid() == 0:
                assert (status.st_uid, status.st_gid) == (item.attr.uid, item.attr.gid)
            if stat.S_ISREG(status.st_mode):
                assert inodes.setdefault(item.ino, status.st_ino) == status.st_ino
                with open(path, "rb") as file:
                    assert hashlib.file_digest(file, "sha256").hexdigest() == sha256(tree.lower.open(item.ino))
            elif stat.S_ISLNK(status.st_mode):
                assert os.readlink(path) == tree.lower.readlink(item.ino)
    root = os.fsencode(tmp_path / "out")
    extracted = {os.path.relpath(os.path.join(at, name), root) for at, d, f in os.walk(root) for name in [*d, *f]}
    assert extracted == paths - {b""}


def test_every_folder_is_what_the_manifest_says(
    run, corpus: Path, corpus_index: list[dict[str, Any]], corpus_image, tmp_path: Path
) -> None:
    """All volumes, of encrypted images too: names, types, contents, targets, attributes and resource forks."""
    room = largest_attribute(tmp_path)
    secret = tmp_path / "passphrase"
    found = []
    compared = 0
    for entry in corpus_index:
        locked = "enc-v" in entry["features"] and "password" not in entry
        if locked or not any(kind in entry["features"] for kind in ("HFS+[", "HFSX[", "HFS[")):
            continue
        secret.write_text(entry.get("password", "") + "\n")
        options = ["--passphrase-file", secret] if "password" in entry else []
        out = tmp_path / "out" / entry["name"]
        said = run("extract", corpus_image(entry["name"]), "-C", out, "--no-owners", *options)
        assert said.code == 0, (entry["name"], said.err)
        rows = read_manifest(corpus / "manifests" / f"{entry['name']}.tsv")
        found += [f"{entry['name']}: {what}" for what in disagreements(out, rows, room)]
        compared += 1
    assert found == []
    assert compared == VOLUMES


def largest_attribute(folder: Path) -> int:
    """What the file system of the test can hold."""
    probe = folder / "probe"
    probe.touch()
    for size in (65536, 4000):
        try:
            os.setxattr(probe, "user.probe", bytes(size))
            return size
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.ENOTSUP):
                raise
    return 0


def test_the_folder_is_what_macos_saw(run, corpus: Path, corpus_image, tmp_path: Path) -> None:
    text = (corpus / "manifests" / "deploymenttheory_go-apfs-v2__hfs-manifest.json").read_text()
    files: dict[str, dict[str, Any]] = json.loads(text)["files"]
    out = tmp_path / "out"
    run("extract", corpus_image("deploymenttheory_go-apfs-v2__hfs-basic.dmg"), "-C", out)
    room = largest_attribute(tmp_path)
    compared = 0
    for name, facts in files.items():
        path = out / unicodedata.normalize("NFC", name)
        status = path.lstat()
        if facts["type"] == "symlink":
            assert os.readlink(path) == facts["target"]
            continue
        if "mode" in facts:
            assert stat.S_IMODE(status.st_mode) == int(facts["mode"], 8), name
        if facts["type"] == "file":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"], name
        attributes = {"user." + key: value for key, value in facts.get("xattrs", {}).items() if value["size"] <= room}
        found = {key: hashlib.sha256(os.getxattr(path, key)).hexdigest() for key in os.listxattr(path)}
        assert found == {key: value["sha256"] for key, value in attributes.items()}, name
        compared += 1
    assert compared == 10
