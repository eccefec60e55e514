"""What differs from the image, of mounts while they are used."""

import json
import threading

import pytest
from exercise.shadowed import CHANGES, change, shadow, start

pytestmark = pytest.mark.kernel


def test_diff(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert shadow("diff", place) == ""
    assert json.loads(shadow("diff", place, "--json")) == []
    change(place)
    lines = json.loads(shadow("diff", place, "--json"))
    assert {(line["change"], line["path"]) for line in lines} == CHANGES
    said = shadow("diff", place)
    assert "renamed   Folder -> Renamed/\n" in said
    assert "deleted   ReadMe\n" in said
    assert "metadata  program  (mode)\n" in said


def test_diff_while_the_mount_is_busy(image, place):
    """It shows one moment, and the mount does not wait for it."""
    start(image, place, "--shadow", "ram:64M")
    for number in range(2000):
        (place / f"file {number:04}").write_bytes(b"x")
    ending = threading.Event()

    def write() -> None:
        number = 0
        while not ending.is_set():
            (place / f"more {number}").write_bytes(b"y" * 5000)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            lines = json.loads(shadow("diff", place, "--json"))
            assert sum(line["path"].startswith("file ") for line in lines) == 2000
    finally:
        ending.set()
        writer.join()


def test_diff_of_a_mount_without_changes_to_see(image, place):
    start(image, place)
    assert shadow("diff", place) == ""
