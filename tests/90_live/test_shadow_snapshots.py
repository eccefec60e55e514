"""What a shadow was, kept under a name and gone back to."""

import json
import os
import signal

import pytest
from exercise.daemon import becomes, clear_away, has_ended, process_of
from exercise.mounted import dmgfs
from exercise.shadowed import change, facts, refused, shadow, start, unmount, used

pytestmark = pytest.mark.kernel


def test_snapshots(image, place):
    start(image, place, "--shadow", "ram:64M")
    (place / "data").write_bytes(b"1" * 10_000_000)
    shadow("snapshot", "create", place, "first")
    assert used(place) < 10_100_000
    first = facts(place)
    with open(place / "data", "r+b") as data:
        data.seek(5000)
        data.write(b"2" * 5000)
    change(place)
    shadow("snapshot", "create", place, "second")
    second = facts(place)
    os.unlink(place / "data")
    assert "there is a snapshot first already" in refused("snapshot", "create", place, "first")
    assert "no snapshot third" in refused("snapshot", "rollback", place, "third")
    listed = json.loads(shadow("snapshot", "list", place, "--json"))
    assert [one["name"] for one in listed] == ["first", "second"]
    shadow("snapshot", "rollback", place, "first")
    assert facts(place) == first
    shadow("snapshot", "rollback", place, "second")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "first")
    shadow("snapshot", "rollback", place, "second")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "second")
    assert shadow("snapshot", "list", place) == ""
    assert facts(place) == second
    shadow("reset", place)
    assert becomes(lambda: used(place) == 0), dmgfs("status", place).out


def test_snapshots_in_a_file_survive_everything(image, place, tmp_path):
    """Unmounting, and the end of the daemon by force; made, gone back to and deleted while the mount is used."""
    file = tmp_path / "a.shadow"
    start(image, place, "--shadow", file)
    (place / "data").write_bytes(os.urandom(10_000_000))
    os.sync()
    size = file.stat().st_size
    shadow("snapshot", "create", place, "first")
    first = facts(place)
    assert file.stat().st_size - size < 2 << 20
    with open(place / "data", "r+b") as data:
        data.seek(5000)
        data.write(b"2" * 5000)
    change(place)
    shadow("snapshot", "create", place, "zweiter ü")
    second = facts(place)
    words, lines = shadow("diff", place), shadow("diff", place, "--json")
    listed = shadow("snapshot", "list", place, "--json")
    process = process_of(place)
    os.unlink(place / "data")
    os.kill(process, signal.SIGKILL)
    assert has_ended(process)
    clear_away(place)
    assert shadow("snapshot", "list", file, "--json") == listed
    assert "2 snapshots" in shadow("check", file)
    assert shadow("diff", file, "--image", image, "--snapshot", "zweiter ü") == words
    assert [
        one["path"] for one in json.loads(shadow("diff", file, "--image", image, "--json", "--snapshot", "first"))
    ] == ["data"]
    assert "no snapshot third" in refused("diff", file, "--image", image, "--snapshot", "third")
    assert "mount the image" in refused("snapshot", "delete", file, "first")
    start(image, place, "--shadow", file)
    assert not (place / "data").exists()
    shadow("snapshot", "rollback", place, "first")
    assert facts(place) == first
    assert shadow("diff", place, "--json", "--snapshot", "zweiter ü") == lines
    shadow("snapshot", "rollback", place, "zweiter ü")
    assert facts(place) == second
    shadow("reset", place)
    unmount(place)
    shadow("compact", file)
    assert file.stat().st_size < 11 << 20
    start(image, place, "--shadow", file)
    shadow("snapshot", "rollback", place, "zweiter ü")
    assert facts(place) == second
    shadow("snapshot", "delete", place, "zweiter ü")
    shadow("snapshot", "delete", place, "first")
    shadow("reset", place)
    assert becomes(lambda: used(place) < 2 << 20), dmgfs("status", place).out
    unmount(place)
    assert "0 objects, " in shadow("check", file)
    assert file.stat().st_size < 2 << 20
