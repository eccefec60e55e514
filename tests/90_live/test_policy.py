"""--on-error, --wait, --verify: what a mount does where nobody is there to decide."""

import os
import threading
import time
from pathlib import Path

import pytest
from builders.udif import Piece, Table, build
from exercise.mounted import dmgfs, is_mounted, mounted

pytestmark = pytest.mark.kernel

NOT_A_SHADOW, IN_USE, DAMAGED, OF_ANOTHER = 73, 75, 76, 78


def make_shadow(image: Path, place: Path, shadow: Path) -> None:
    with mounted(image, place, "--shadow", shadow):
        (place / "new").write_text("kept")


@pytest.fixture(params=["other file", "damaged", "of another image", "in use", "no folder"])
def trouble(request, image, sensitive_image, place, tmp_path):
    """(shadow file that cannot be had, exit code, a word of the reason)."""
    shadow = tmp_path / "a.shadow"
    if request.param == "other file":
        shadow.write_bytes(b"something else" * 1000)
        yield shadow, NOT_A_SHADOW, "left alone"
    elif request.param == "damaged":
        make_shadow(image, place, shadow)
        data = bytearray(shadow.read_bytes())
        data[2 * 4096 :] = os.urandom(len(data) - 2 * 4096)
        shadow.write_bytes(data)
        yield shadow, DAMAGED, ""
    elif request.param == "of another image":
        make_shadow(sensitive_image, place, shadow)
        yield shadow, OF_ANOTHER, "another image"
    elif request.param == "in use":
        other = tmp_path / "other place"
        with mounted(image, other, "--shadow", shadow):
            yield shadow, IN_USE, "another process"
        return
    else:
        yield tmp_path / "absent/a.shadow", 66, "No such file"
    assert not is_mounted(place)


def test_every_trouble_has_its_code_and_what_to_do_instead(trouble, image, place):
    shadow, code, reason = trouble
    before = shadow.read_bytes() if shadow.exists() else None

    ended = dmgfs("mount", image, place, "--shadow", shadow)
    assert ended.code == code
    assert ended.err.count("\n") == 1
    assert str(shadow) in ended.err
    assert reason in ended.err
    assert not is_mounted(place)

    ended = dmgfs("mount", image, place, "-o", f"shadow={shadow},on-error=ro")
    assert ended.code == 0
    assert "read-only instead" in ended.err
    assert reason in ended.err
    assert (place / "ReadMe").read_bytes() == b"read me\n"
    with pytest.raises(OSError, match="Read-only"):
        (place / "more").touch()
    assert dmgfs("unmount", place).code == 0

    ended = dmgfs("mount", image, place, "--shadow", shadow, "--on-error", "ram")
    assert ended.code == 0
    assert "will be lost" in ended.err
    (place / "more").write_text("for now")
    assert not (place / "new").exists()
    assert '"kind": "ram"' in dmgfs("status", place, "--json").out
    assert dmgfs("unmount", place).code == 0
    assert (shadow.read_bytes() if shadow.exists() else None) == before


def later(seconds: float, action) -> threading.Thread:
    thread = threading.Thread(target=lambda: (time.sleep(seconds), action()))
    thread.start()
    return thread


def test_a_late_image_is_waited_for(image, place, tmp_path):
    absent = tmp_path / "late.img"
    waiting = later(1.0, lambda: os.link(image, absent))
    ended = dmgfs("mount", absent, place, "--wait", "20")
    waiting.join()
    assert ended.code == 0
    assert (place / "ReadMe").read_bytes() == b"read me\n"


def test_a_shadow_in_use_and_a_late_folder_are_waited_for(image, place, tmp_path):
    shadow = tmp_path / "late/a.shadow"
    waiting = later(1.0, shadow.parent.mkdir)
    assert dmgfs("mount", image, place, "--shadow", shadow, "--wait", "20").code == 0
    waiting.join()
    other = tmp_path / "other"
    other.mkdir()
    waiting = later(1.0, lambda: dmgfs("unmount", place))
    assert dmgfs("mount", image, other, "--shadow", shadow, "--wait", "20").code == 0
    waiting.join()
    assert dmgfs("unmount", other).code == 0


def test_waiting_has_a_limit(place, tmp_path):
    started = time.monotonic()
    ended = dmgfs("mount", tmp_path / "absent.img", place, "--wait", "0.5")
    assert ended.code == 66
    assert 0.5 <= time.monotonic() - started < 10


def test_damage_is_not_waited_for(place, tmp_path):
    broken = tmp_path / "broken.img"
    broken.write_bytes(bytes(4096))
    started = time.monotonic()
    assert dmgfs("mount", broken, place, "--wait", "60").code in (65, 66, 69)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--on-error", "panic"], "panic"),
        (["--wait", "soon"], "soon"),
        (["--wait", "-1"], "-1"),
        (["--verify", "some"], "some"),
        (["-o", "on-error"], "on-error"),
    ],
)
def test_wrong_usage(image, place, options, word):
    ended = dmgfs("mount", image, place, *options)
    assert ended.code == 64
    assert word in ended.err


def test_checksums_before_the_mount(image, place, tmp_path):
    packed = tmp_path / "image.dmg"
    data = image.read_bytes()
    packed.write_bytes(build([Table("t", [Piece("raw", data)])]).bytes)
    log = tmp_path / "log"
    with mounted(packed, place, "--verify", "full", "--log", log):
        assert (place / "ReadMe").read_bytes() == b"read me\n"
    assert "checksums are right" in log.read_text()
    damaged = bytearray(packed.read_bytes())
    at = damaged.index(b"other\n" * 10)
    damaged[at] ^= 1
    packed.write_bytes(damaged)
    ended = dmgfs("mount", packed, place, "-o", "verify=full")
    assert ended.code == 65
    assert "computed" in ended.err
    assert not is_mounted(place)
    with mounted(packed, place, "--verify", "none"):
        assert (place / "ReadMe").exists()


def test_an_image_without_checksums_is_none_the_worse(image, place, tmp_path):
    log = tmp_path / "log"
    with mounted(image, place, "--verify", "full", "--log", log):
        assert "carries no checksums" in log.read_text()
