"""Real images through `open_image`, as a program would use it: map, volumes and contents are what independent readers
found. Expectations come from the corpus's index (`features`) and manifests only."""

import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.manifest import Row, decomposed, is_private, read_manifest
from builders.walk import walk, whole

from dmgfs.errors import DmgError
from dmgfs.image import Image, open_image
from dmgfs.source import ByteSource
from dmgfs.volume import Node, Volume

pytestmark = pytest.mark.corpus

MAP_TYPES = re.compile(r"\b(APM|GPT|MBR)(\d*):([\w.]+)")
VOLUMES = re.compile(r"\| (HFS\+|HFSX|HFS|APFS|FAT)(?!\w)(?:\[([^\]]*))?")


def opened(entry: dict[str, Any], corpus_image: Callable[[str], Path]) -> Image | None:
    """None where nobody knows the passphrase, or the image is malformed and says so."""
    password = entry.get("password")
    try:
        return open_image(corpus_image(entry["name"]), passphrase=password.encode() if password else None)
    except DmgError:
        readable = "enc-v" not in entry["features"] and not entry["name"].startswith("SecurityRonin")
        assert password is None, f"{entry['name']} must open"
        assert not readable, f"{entry['name']} must open"
        return None


@pytest.fixture(scope="module")
def entries(corpus_index: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return corpus_index


def test_every_partition_map_and_volume_is_what_the_index_says(entries, corpus_image) -> None:
    looked_at = 0
    for entry in entries:
        image = opened(entry, corpus_image)
        if image is None or not entry["features"]:
            continue
        with image:
            features = entry["features"]
            types = MAP_TYPES.findall(features)
            if types:
                scheme, unit, _ = types[0]
                assert image.scheme == scheme, entry["name"]
                assert not unit or image.map.block_size == int(unit), entry["name"]
                # The index has the types it knew, perhaps cut short at the end.
                found = [one.type if scheme != "MBR" else f"type{int(one.type, 16):02x}" for one in image.partitions]
                wanted = [name for _, _, name in types]
                assert all(any(one.startswith(name) for one in found) for name in wanted), (entry["name"], found)
            elif VOLUMES.search("| " + features.split("|")[-1].strip()):
                assert image.scheme == "none", entry["name"]
            kinds = [kind for kind, _ in VOLUMES.findall("| " + features.replace("P:", ""))]
            readable = [one for one in image.partitions if one.may_hold_volume]
            contents = [image.found(one).kind for one in readable]
            assert [kind for kind in contents if kind in kinds] == kinds, (entry["name"], contents, kinds)
            looked_at += 1
    assert looked_at >= 70


def test_every_disk_is_the_one_that_others_decoded(entries, corpus, corpus_image) -> None:
    """Whatever is on it: also disks of sparse images and bundles, of encrypted ones, and of volumes that we do not read."""
    looked_at = 0
    for entry in entries:
        if "manifest" not in entry:
            continue
        manifest = (corpus / "manifests" / entry["manifest"]).read_text()
        decoded = re.search(r"^# decoded raw: (\d+) bytes sha256 (\w+)", manifest, re.MULTILINE)
        image = opened(entry, corpus_image) if decoded else None
        if decoded is None or image is None:
            continue
        with image:
            disk = image.container.disk
            digest = hashlib.sha256()
            for at in range(0, disk.size, 1 << 20):
                digest.update(disk.read(at, min(1 << 20, disk.size - at)))
            assert (disk.size, digest.hexdigest()) == (int(decoded[1]), decoded[2]), entry["name"]
            looked_at += 1
    assert looked_at >= 75


def test_every_hfs_volume_has_the_numbers_that_the_index_says(entries, corpus_image) -> None:
    looked_at = 0
    for entry in entries:
        matches = VOLUMES.findall("| " + entry["features"])
        facts = [details for kind, details in matches if kind.startswith("HFS")]
        image = opened(entry, corpus_image) if facts else None
        if image is None:
            continue
        with image:
            info = image.volume().info
            assert re.search(rf"\bf{info.files} ", facts[0]), (entry["name"], info.files, facts)
            assert re.search(rf"\bd{info.folders}\b", facts[0]), (entry["name"], info.folders, facts)
            if "bs" in facts[0]:
                assert f"bs{info.block_size} " in facts[0]
                assert info.case_sensitive == ("key0xbc" in facts[0])
                assert (info.journal is not None) == (" J " in facts[0] or " JDIRTY " in facts[0])
                assert (info.journal == "replayed") == (" JDIRTY " in facts[0]), (entry["name"], info.journal)
            else:
                size = f"{info.total_blocks}x{info.block_size} "
                assert facts[0].startswith(size), (entry["name"], info, facts)
            looked_at += 1
    assert looked_at >= 45


def is_hfs_plus(entry: dict[str, Any]) -> bool:
    return "HFS+[" in entry["features"] or "HFSX[" in entry["features"]


def test_every_hfs_plus_volume_holds_what_its_manifest_says(entries, corpus, corpus_image) -> None:
    looked_at = 0
    differences = []
    for entry in filter(is_hfs_plus, entries):
        image = opened(entry, corpus_image)
        if image is None:
            continue
        with image:
            rows = read_manifest(corpus / "manifests" / f"{entry['name']}.tsv")
            differences += [f"{entry['name']}: {what}" for what in disagreements(image.volume(), rows)]
            looked_at += 1
    assert differences == []
    assert looked_at >= 45


def disagreements(volume: Volume, rows: list[Row]) -> list[str]:
    """One line per difference between volume and manifest."""
    shown = {decomposed(path): node for path, node in walk(volume)}
    expected = {row.path: row for row in rows if row.type != "x" and not is_private(row.path)}
    hidden = {row.sha256 for row in rows if row.type == "f" and is_private(row.path)}
    found = [f"{path!a} is missing" for path in expected.keys() - shown.keys()]
    found += [f"{path!a} is not in the manifest" for path in shown.keys() - expected.keys()]
    for path in expected.keys() & shown.keys():
        found += [f"{path!a}: {what}" for what in compare(volume, shown[path], expected[path], hidden)]
    for row in rows:
        if row.type == "x" and row.path in shown and row.attribute != "com.apple.decmpfs":
            source = attribute(volume, shown[row.path], row.attribute)
            if source is None or sha256(source) != row.sha256:
                found.append(f"{row.path!a}: {row.attribute} is missing or another")
    return found


def compare(volume: Volume, node: Node, row: Row, hidden: set[str]) -> list[str]:
    kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}[stat.S_IFMT(node.mode)]
    if kind != row.type:
        return [f"type is {kind}, must be {row.type}"]
    if kind == "d":
        return []
    content = sha256(volume.data(node))
    if row.sha256.startswith("ERR"):  # the reference reader does not follow hard links
        return [] if content in hidden and node.nlink > 1 else ["is no hard link to a private file"]
    return [] if content == row.sha256 else [f"sha256 is {content}, must be {row.sha256}"]


def attribute(volume: Volume, node: Node, name: str) -> ByteSource | None:
    if name == "[rsrc]":
        return volume.resource(node)
    return volume.attributes(node).get(name)


def sha256(source: ByteSource) -> str:
    return hashlib.sha256(whole(source)).hexdigest()
