"""Device nodes of a volume that macOS wrote and of one that Linux wrote: the two pack a device number differently."""

import os

import pytest

from dmgfs.lower import device_number


@pytest.mark.parametrize(
    ("special", "last_mounted_by", "major", "minor"),
    [
        (0x03000002, "10.0", 3, 2),
        (0xF0011170, "HFSJ", 240, 70000),
        (0x00FFFFFF, "10.0", 0, 0xFFFFFF),
        (0x00100003, "H+Lx", 1, 3),
        (0x0F011170, "H+Lx", 240, 70000),
        (0xFFFFFFFF, "H+Lx", 0xFFF, 0xFFFFF),
    ],
)
def test_the_writer_decides_how_a_device_number_is_read(
    special: int, last_mounted_by: str, major: int, minor: int
) -> None:
    device = device_number(special, last_mounted_by)
    assert (os.major(device), os.minor(device)) == (major, minor)
