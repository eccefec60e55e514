"""Real HFS standard volumes equal their manifests (made by machfs and hfsutils)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dmgfs.hfs.volume import HfsVolume, open_volume
from dmgfs.source import MemorySource

VOLUMES = [
    ("fadden_CiderPress2__MultiPart.hdv", 821248),
    ("fadden_CiderPress2__test1-source.img", 0),
    ("elliotnunn_BeHierarchic__manyExtents.img", 0),
    ("google_syzkaller__syz_mount_image_hfs_0.img", 0),
    ("google_syzkaller__syz_mount_image_hfs_1.img", 0),
    ("google_syzkaller__syz_mount_image_hfs_2.img", 0),
    ("google_syzkaller__syz_mount_image_hfs_3.img", 0),
]


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "start"), VOLUMES, ids=[name for name, _ in VOLUMES])
def test_volume_equals_its_manifest(
    corpus: Path,
    corpus_image: Callable[[str], Path],
    rows: Callable[[HfsVolume], set[str]],
    name: str,
    start: int,
) -> None:
    volume = open_volume(MemorySource(corpus_image(name).read_bytes()[start:]))
    lines = (corpus / "manifests" / f"{name}.tsv").read_text().splitlines()
    expected = {line.encode().decode("unicode_escape") for line in lines if not line.startswith("#")}
    found = rows(volume)
    # machfs, which made the manifests, leaves the Finder's databases out.
    databases = {row for row in found if row.split("\t")[3] in ("Desktop", "Desktop DB", "Desktop DF")}
    assert found - databases == expected
    assert volume.info.files == sum(row.startswith("f") for row in found)
    assert volume.info.folders == sum(row.startswith("d") for row in found)
    assert volume.info.warnings == []
