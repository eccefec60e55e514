"""Disks on disk, so that `open_image` can open them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dmgfs.image import Image, open_image

Opener = Callable[..., Image]


@pytest.fixture
def opened(tmp_path: Path):
    """bytes → open Image; closed at the end of the test."""
    images: list[Image] = []

    def open_bytes(data: bytes, **options: object) -> Image:
        path = tmp_path / f"disk{len(images)}.img"
        path.write_bytes(data)
        images.append(open_image(path, **options))  # type: ignore[arg-type]
        return images[-1]

    yield open_bytes
    for image in images:
        image.close()
