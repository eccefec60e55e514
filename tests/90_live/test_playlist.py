"""--playlist: the second start waits for less, and no list ever does harm."""

import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build
from exercise.daemon import becomes, process_of
from exercise.mounted import dmgfs

from dmgfs import open_image
from dmgfs.playlist import read_file

pytestmark = pytest.mark.kernel

NAMES = [f"file {number:02}" for number in range(40)]
CHUNK = 64 << 10


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Files that each lie in chunks of their own."""
    folder = tmp_path_factory.mktemp("packed")
    builder = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096)
    for number, name in enumerate(NAMES):
        builder.file(ROOT, name, bytes([number]) * (2 * CHUNK))
    disk = bytes(builder.build(spare_blocks=64).data)
    pieces = [Piece("zlib", disk[at : at + CHUNK]) for at in range(0, len(disk), CHUNK)]
    for name, data in build([Table("t", pieces)]).files.items():
        (folder / name).write_bytes(data)
    return folder / "image.dmg"


class Figures(NamedTuple):
    misses: int
    text: str


def use(image: Path, place: Path, log: Path, names: list[str], *options: str | Path, wait_for: str = "") -> Figures:
    """Mounts, lets a list be fetched, reads the files, and tells how often somebody had to wait."""
    log.unlink(missing_ok=True)
    ended = dmgfs("mount", image, place, "--log", log, *options)
    assert (ended.code, ended.err) == (0, "")
    process = process_of(place)

    def said() -> str:
        before = log.read_text().count("statistics:")
        os.kill(process, signal.SIGUSR1)
        assert becomes(lambda: log.read_text().count("statistics:") > before)
        return log.read_text().splitlines()[-1]

    assert becomes(lambda: re.search(wait_for, said()) is not None), said()
    for name in names:
        assert (place / name).read_bytes() == bytes([int(name[-2:])]) * (2 * CHUNK)
    text = said()
    assert dmgfs("unmount", place).code == 0
    found = re.search(r"(\d+) not in memory", text)
    assert found is not None
    return Figures(int(found[1]), text)


def test_the_second_start_finds_everything_in_memory(packed, place, tmp_path):
    start = NAMES[30:20:-1] + NAMES[3:9]
    log, kept = tmp_path / "log", tmp_path / "list"
    first = use(packed, place, log, start, "--playlist", f"record={kept}")
    assert first.misses >= len(start)
    with open_image(packed) as image:
        volume = image.volume()
        assert [volume.node(number).name for number in read_file(str(kept)).files] == start
    shown = dmgfs("playlist", "show", kept, "--for", packed)
    assert shown.code == 0
    assert "recorded with it" in shown.out
    whole = r"playlist (\d+) of \d+ parts fetched ahead"
    parts = int(re.search(r"parts +(\d+),", shown.out)[1])
    second = use(packed, place, log, start, "--playlist", f"use={kept}", wait_for=rf"playlist \d+ of {parts} parts")
    assert second.misses <= first.misses // 10, second.text
    assert re.search(whole, second.text)


def test_automatic_lists(packed, place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = tmp_path / "log"
    first = use(packed, place, log, NAMES[:20], "--playlist", "auto")
    (kept,) = (tmp_path / "cache/dmgfs").iterdir()
    assert dmgfs("playlist", "show", kept, "--for", packed).code == 0
    second = use(packed, place, log, NAMES[:20], "-o", "playlist=auto", wait_for=r"(\d\d) of \1 parts|fetched ahead")
    assert second.misses < first.misses


def test_a_list_of_another_image_is_ignored_with_a_warning(packed, image, place, tmp_path):
    kept = tmp_path / "list"
    use(packed, place, tmp_path / "log", NAMES[:5], "--playlist", f"record={kept}")
    log = tmp_path / "log2"
    assert dmgfs("mount", image, place, "--playlist", f"use={kept}", "--log", log).code == 0
    assert (place / "ReadMe").read_bytes() == b"read me\n"
    assert "recorded with another image" in log.read_text()


@pytest.mark.parametrize("text", [b"", b"\0" * 5_000_000, b"dmgfs playlist 1\nimage x", None])
def test_no_list_keeps_an_image_from_being_mounted(packed, place, tmp_path, text):
    kept = tmp_path / "list"
    if text is not None:
        kept.write_bytes(text)
    use(packed, place, tmp_path / "log", NAMES[:2], "--playlist", f"use={kept}")
    assert "is ignored" in (tmp_path / "log").read_text()


def test_a_list_survives_a_daemon_that_is_killed(packed, place, tmp_path):
    """A live root is never unmounted."""
    kept = tmp_path / "list"
    assert dmgfs("mount", packed, place, "--playlist", f"record={kept}", "--log", tmp_path / "log").code == 0
    (place / NAMES[7]).read_bytes()
    assert becomes(kept.exists)
    os.kill(process_of(place), signal.SIGKILL)
    assert dmgfs("playlist", "show", kept).code == 0


@pytest.mark.parametrize("value", ["", "record", "record=", "use=", "sometimes", "auto=x"])
def test_other_words_are_wrong_usage(packed, place, value):
    ended = dmgfs("mount", packed, place, f"--playlist={value}")
    assert ended.code == 64
    assert "record=FILE" in ended.err
