"""Real HFS+ and HFSX volumes against what independent readers say is in them."""

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.walk import walk, whole

from dmgfs.cache import ChunkCache
from dmgfs.container import open_container
from dmgfs.hfsplus.attributes import DECMPFS
from dmgfs.hfsplus.unicode import decompose
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.source import SliceSource
from dmgfs.volume import Volume

pytestmark = pytest.mark.corpus

CorpusImage = Callable[[str], Path]
Row = tuple[str, str, str, str]
"""Type, size, SHA-256 and path, as in a manifest."""

AT_LEAST = 42
"""HFS+ volumes with contents in the corpus: fewer mean that the search for them is wrong."""

GPT_VOLUME = 20480
"""Where the first partition of Apple's GPT images begins."""


def volumes_of(index: list[dict[str, Any]], corpus: Path) -> Iterator[tuple[str, int, str, str]]:
    """(image, byte offset of the volume, manifest, password) of every HFS+ volume."""
    for row in index:
        if not row.get("manifest"):
            continue
        manifest = (corpus / "manifests" / row["manifest"]).read_text()
        password = re.search(r"^# encryption .* password (.*)$", manifest, re.MULTILINE)
        for volume in re.finditer(r"^# fs at byte (\d+): (HFS\+|HFSX);", manifest, re.MULTILINE):
            yield row["name"], int(volume[1]), manifest, password[1] if password else ""


def opened(path: Path, offset: int, password: str) -> HfsPlusVolume:
    """Without journal replay, as the manifests were made, and with everything shown."""
    cache: ChunkCache[Any] = ChunkCache(16 << 20)
    container = open_container(path, passphrase=password.encode if password else None, cache=cache)
    disk = container.disk
    return open_volume(SliceSource(disk, offset, disk.size - offset), cache=cache, replay=False, show_private=True)


def digest(data: bytes) -> tuple[str, str]:
    return str(len(data)), hashlib.sha256(data).hexdigest()


def rows(volume: Volume) -> tuple[set[Row], set[Row]]:
    """What the volume holds, as rows of a manifest: objects, and attributes with the name behind the path."""
    objects, attributes = set(), set()
    for path, node in walk(volume):
        assert node.broken is None, path
        for name, value in volume.attributes(node).items():
            attributes.add(("x", *digest(whole(value)), f"{path}\t{name}"))
        if stat.S_ISDIR(node.mode):
            objects.add(("d", "0", "-", path))
            continue
        source = volume.data(node)
        assert source.size == node.data_size
        objects.add(("l" if stat.S_ISLNK(node.mode) else "f", *digest(whole(source)), path))
        resource = volume.resource(node)
        if resource.size:
            assert resource.size == node.resource_size
            attributes.add(("x", *digest(whole(resource)), f"{path}\t[rsrc]"))
        elif node.compressed:
            attributes.add(("x", "", "", f"{path}\t{DECMPFS}"))
    return objects, attributes


def expected(manifest: str) -> tuple[set[Row], set[Row]]:
    objects, attributes = set(), set()
    for line in manifest.splitlines():
        if line.startswith("#") or not line:
            continue
        kind, size, sha256, path, *name = line.split("\t")
        path = path.encode("ascii").decode("unicode_escape")
        if kind == "x" and name == [DECMPFS]:
            size = sha256 = ""  # seen by the reader of the manifest, hidden here behind the decompressed data
        if kind == "x":
            attributes.add((kind, size, sha256, f"{path}\t{name[0]}"))
        else:
            objects.add((kind, size, sha256, path))
    return objects, attributes


def test_every_volume_against_its_manifest(
    corpus: Path, corpus_index: list[dict[str, Any]], corpus_image: CorpusImage
) -> None:
    differences: list[str] = []
    count = 0
    for name, offset, manifest, password in volumes_of(corpus_index, corpus):
        count += 1
        volume = opened(corpus_image(name), offset, password)
        for found, wanted in zip(rows(volume), expected(manifest), strict=True):
            # The reference reader failed on some files; then only that they are there can be compared.
            unread = {row[3] for row in wanted if row[2].startswith("ERR")}
            assert unread <= {row[3] for row in found}, name
            differences += [f"{name}: ours {row}" for row in found - wanted if row[3] not in unread]
            differences += [f"{name}: theirs {row}" for row in wanted - found if row[3] not in unread]
    assert differences == []
    assert count >= AT_LEAST


def test_names_find_what_listings_show(
    corpus: Path, corpus_index: list[dict[str, Any]], corpus_image: CorpusImage
) -> None:
    for name, offset, _, password in volumes_of(corpus_index, corpus):
        volume = opened(corpus_image(name), offset, password)
        for path, node in walk(volume):
            assert volume.find(node.parent, node.name) == node, (name, path)
            again = volume.node(node.cnid)
            assert again._replace(parent=node.parent, name=node.name) == node, (name, path)


def test_what_macos_itself_saw(corpus: Path, corpus_image: CorpusImage) -> None:
    """The strongest truth of the corpus: a manifest taken on macOS from the mounted volume."""
    truth = json.loads((corpus / "manifests" / "deploymenttheory_go-apfs-v2__hfs-manifest.json").read_text())
    manifest = (corpus / "manifests" / "deploymenttheory_go-apfs-v2__hfs-basic.dmg.tsv").read_text()
    at = re.search(r"^# fs at byte (\d+)", manifest, re.MULTILINE)
    assert at
    volume = opened(corpus_image("deploymenttheory_go-apfs-v2__hfs-basic.dmg"), int(at[1]), "")
    found = dict(walk(volume))
    assert truth["files"]
    for path, wanted in truth["files"].items():
        node = found[decompose(path)]
        if wanted["type"] == "symlink":
            assert stat.S_ISLNK(node.mode), path
            assert whole(volume.data(node)).decode() == wanted["target"], path
        else:
            assert oct(node.mode & 0o7777) == wanted["mode"], path
        if wanted["type"] == "file":
            assert node.data_size == wanted["size"], path
            assert digest(whole(volume.data(node)))[1] == wanted["sha256"], path
            assert node.compressed == wanted.get("compressed", False), path
        for name, value in wanted.get("xattrs", {}).items():
            if name == "com.apple.ResourceFork":
                data = whole(volume.resource(node))
            elif name == "com.apple.FinderInfo":
                continue  # masked and shown by the mount
            else:
                data = whole(volume.attributes(node)[name])
            assert digest(data) == (str(value["size"]), value["sha256"]), (path, name)


def test_empty_volumes(corpus_index: list[dict[str, Any]], corpus_image: CorpusImage) -> None:
    empty = [
        row["name"]
        for row in corpus_index
        if "HFS+[" in row["features"] and "f0 d0" in row["features"] and "fs:empty" in row["agreeing_readers"]
    ]
    assert len(empty) == 6
    for name in empty:
        volume = opened(corpus_image(name), GPT_VOLUME, "")
        assert list(walk(volume)) == []
        assert (volume.info.files, volume.info.folders, volume.info.name) == (0, 0, "ForensicCorpus")
