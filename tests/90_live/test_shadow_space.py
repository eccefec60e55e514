"""What a shadow holds for nothing goes back; and the file, when it is to go."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from exercise.daemon import becomes
from exercise.shadowed import change, facts, refused, shadow, start, unmount, used

pytestmark = pytest.mark.kernel


def taken(file: Path) -> int:
    """What it takes of its file system."""
    return file.stat().st_blocks * 512


def test_space_of_a_file_in_use_goes_back(image, place, tmp_path):
    """When asked for, while others write; and by itself some time after much was removed."""
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    for number in range(8):
        (place / f"big {number}").write_bytes(os.urandom(6 << 20))
    kept = hashlib.sha256((place / "big 7").read_bytes()).digest()
    ending = threading.Event()
    written: list[bytes] = []

    def write() -> None:
        while not ending.is_set():
            data = os.urandom(50_000)
            (place / f"more {len(written)}").write_bytes(data)
            written.append(hashlib.sha256(data).digest())
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            os.unlink(place / f"big {number}")
        assert becomes(lambda: used(place) < (28 << 20) + len(written) * 60_000)
        said = shadow("compact", place)
    finally:
        ending.set()
        writer.join()
    assert " before, " in said
    assert taken(file) < (27 << 20) + len(written) * 60_000
    for number in range(4, 7):
        os.unlink(place / f"big {number}")
    for number, digest in enumerate(written):
        assert hashlib.sha256((place / f"more {number}").read_bytes()).digest() == digest
        os.unlink(place / f"more {number}")
    assert becomes(lambda: taken(file) < 12 << 20, 120), taken(file)
    assert hashlib.sha256((place / "big 7").read_bytes()).digest() == kept
    unmount(place)
    assert "clean" in shadow("check", file)


def test_compacting_what_has_no_file(image, place):
    start(image, place, "--shadow", "ram:8M")
    assert shadow("compact", place) == ""
    unmount(place)
    start(image, place)
    assert "read-only" in refused("compact", place)


def test_compact_and_discard(image, place, tmp_path):
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    change(place)
    for number in range(20):
        (place / f"big {number}").write_bytes(os.urandom(1 << 20))
    for number in range(20):
        if number != 10:
            os.unlink(place / f"big {number}")
    now = facts(place)
    for what in (file, place):
        said = refused("discard", what)
        assert f"`dmgfs shadow reset {place}` takes all changes back" in said
        assert f"`dmgfs shadow discard {file}` removes the file" in said
    assert "another process is using it" in refused("check", file)
    unmount(place)
    before = file.stat().st_size
    shadow("compact", file)
    assert file.stat().st_size < before / 2
    start(image, place, "--shadow", file)
    assert facts(place) == now
    unmount(place)
    text = tmp_path / "text"
    text.write_text("not a shadow")
    assert "left alone" in refused("discard", text)
    refused("compact", text)
    refused("check", text)
    assert text.read_text() == "not a shadow"
    shadow("discard", file)
    assert not file.exists()
    assert "No such file" in refused("discard", file)
    assert "nothing is mounted there" in refused("discard", place)
    start(image, place, "--shadow", "ram:8M")
    assert "unmounting throws them away" in refused("discard", place)
    unmount(place)
    start(image, place)
    assert "has no changes" in refused("discard", place)
    assert not file.exists()
