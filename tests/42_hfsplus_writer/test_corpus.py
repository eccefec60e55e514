"""Volumes that macOS and others wrote, written anew without a change: they hold the same, and fsck.hfsplus finds no fault
where it found none before (where the fixtures are set up)."""

import os
import subprocess
from pathlib import Path

import pytest
from builders.walk import walk

from dmgfs import open_image
from dmgfs.cache import ChunkCache
from dmgfs.errors import DmgError
from dmgfs.hfsplus.volume import HfsPlusVolume, open_volume
from dmgfs.hfsplus_writer.base import Base
from dmgfs.hfsplus_writer.inventory import Inventory
from dmgfs.hfsplus_writer.revision import revise_volume
from dmgfs.source import ByteSource
from dmgfs.volume import Node

REPOSITORY = Path(__file__).resolve().parents[2]
FSCK = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures")) / "hfsprogs/sbin/fsck.hfsplus"
LARGEST = 40 << 20
LARGEST_JUDGED = 64 << 20
LEAST_VOLUMES = 30


def everything(volume: HfsPlusVolume) -> list[tuple[str, Node]]:
    """(HFSX volumes without counts of folders get them.)"""
    return [(path, node._replace(folders=None)) for path, node in walk(volume)]


def is_sound(source: ByteSource, path: Path) -> bool:
    with path.open("wb") as file:
        for at in range(0, source.size, 1 << 20):
            file.write(source.read(at, min(1 << 20, source.size - at)))
    return subprocess.run([FSCK, "-fn", path], capture_output=True, check=False).returncode == 0


@pytest.mark.corpus
def test_real_volumes_written_anew(corpus: Path, corpus_image, tmp_path: Path) -> None:
    rewritten = 0
    for stored in sorted((corpus / "images").iterdir()):
        if not stored.is_file() or stored.stat().st_size > LARGEST:
            continue
        try:
            image = open_image(corpus_image(stored.name.removesuffix(".xz")), passphrase=lambda: b"")
            part = next((one for one in image.partitions if image.mountable(one)), None)
            volume = None if part is None else image.volume_on(part)
        except (DmgError, OSError):
            continue  # what it says is other tests' business
        if isinstance(volume, HfsPlusVolume):
            base = Base(volume)
            inventory = Inventory(case_sensitive=base.case_sensitive)
            base.load(inventory)
            revised = revise_volume(inventory, Nothing(), base, modified=1_700_000_000, may_grow=True)
            again = open_volume(revised.source, cache=ChunkCache(1 << 20))
            assert everything(again) == everything(volume), stored.name
            if FSCK.exists() and revised.source.size <= LARGEST_JUDGED and is_sound(volume.source, tmp_path / "old"):
                assert is_sound(revised.source, tmp_path / "new"), stored.name
            inventory.close()
            rewritten += 1
        image.close()
    assert rewritten >= LEAST_VOLUMES


class Nothing:
    def read(self, source: object, offset: int, length: int) -> bytes:
        raise AssertionError("nothing is new")
