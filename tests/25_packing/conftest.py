"""Packing disks and getting them back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dmgfs import open_image
from dmgfs.packing import FORMATS, Packed, pack
from dmgfs.partitions import read_map
from dmgfs.source import MemorySource

UDIF_FORMATS = tuple(name for name in FORMATS if name.startswith("u"))


def packed_to(path: Path, disk: bytes, format_name: str, **options: object) -> Packed:
    """The disk with its own map, whatever it is, written to `path`."""
    source = MemorySource(disk)
    return pack(source, path, format_name, layout=read_map(source), **options)  # type: ignore[arg-type]


def disk_in(path: Path) -> bytes:
    """The disk of an image, after all its checksums were found right."""
    with open_image(path) as image:
        if image.container.verify is not None:
            wrong = [step for step in image.container.verify() if getattr(step, "ok", True) is not True]
            assert wrong == []
        return bytes(image.disk.read(0, image.disk.size))


@pytest.fixture
def packed() -> Callable[..., Packed]:
    return packed_to


@pytest.fixture
def unpacked() -> Callable[[Path], bytes]:
    return disk_in
