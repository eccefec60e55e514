"""Mounts of images behind URLs: they show the same, live through faults of the server, and end without it."""

import errno
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.rangeserver import Fault, RangeServer, serving
from builders.udif import Piece, Table, build
from exercise.daemon import becomes, has_ended, process_of
from exercise.mounted import dmgfs, is_mounted, mounted

from dmgfs.remote.source import START

pytestmark = pytest.mark.kernel

CHUNK = 256 << 10
BIG = b"".join(os.urandom(CHUNK // 2) + bytes(CHUNK // 2) for _ in range(24))


def _image() -> bytes:
    builder = HfsPlusBuilder(block_size=4096)
    builder.file(ROOT, "big", BIG)
    builder.file(ROOT, "small", b"small\n")
    disk = bytes(builder.build(spare_blocks=64).data)
    pieces = [Piece("zlib", disk[at : at + CHUNK]) for at in range(0, len(disk), CHUNK)]
    [data] = build([Table("whole disk", pieces)]).files.values()
    return data


IMAGE = _image()


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving(IMAGE) as server:
        yield server


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Options of every mount here."""
    return ["--network-timeout", "2", "--network-cache", f"{tmp_path / 'cache'}:64M", "--log", str(tmp_path / "log")]


def status(place: Path) -> dict[str, object]:
    return json.loads(dmgfs("status", place, "--json").out)["network"]


def read_fails(path: Path, offset: int) -> float:
    """Seconds until the read of a page failed with EIO."""
    started = time.monotonic()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=r".") as caught:
            os.pread(descriptor, 4096, offset)
    finally:
        os.close(descriptor)
    assert caught.value.errno == errno.EIO
    return time.monotonic() - started


def test_it_shows_the_same_and_fetches_each_block_once(server: RangeServer, place: Path, words: list[str]) -> None:
    url = server.url.replace("://", "://me:secret@") + "?X-Amz-Signature=secret"
    with mounted(url, place, *words) as root:
        assert (root / "big").read_bytes() == BIG
        assert (root / "small").read_bytes() == b"small\n"
        report = status(place)
        assert report["url"] == server.url
        assert report["trouble"] is None
        assert "secret" not in Path("/proc/self/mounts").read_text()
        assert "answers" in dmgfs("status", place).out
    assert server.sent == len(IMAGE) + START
    assert len(server.requests) < 20
    assert "secret" not in Path(words[-1]).read_text()


def test_the_next_mount_finds_it_on_the_disk(server: RangeServer, place: Path, words: list[str]) -> None:
    for _ in range(2):
        with mounted(server.url, place, *words) as root:
            assert (root / "big").read_bytes() == BIG
    assert server.sent == len(IMAGE) + 2 * START


def test_a_shadow_file_belongs_to_the_image_not_to_its_place(
    server: RangeServer, place: Path, words: list[str], tmp_path: Path
) -> None:
    shadow = tmp_path / "changes"
    with mounted(server.url, place, *words, "--shadow", shadow) as root:
        (root / "new").write_bytes(b"new\n")
        with (root / "big").open("r+b") as file:
            file.write(b"changed")
    here = tmp_path / "image.dmg"
    here.write_bytes(IMAGE)
    with mounted(here, place, "--shadow", shadow) as root:
        assert (root / "new").read_bytes() == b"new\n"
        assert (root / "big").read_bytes() == b"changed" + BIG[7:]


def test_a_server_with_all_faults_in_turn(server: RangeServer, place: Path, words: list[str]) -> None:
    faults = [Fault(status=503), Fault(cut=5000), Fault(length=7), Fault(shift=1), Fault(drop=True), None, None]
    with mounted(server.url, place, *words) as root:
        server.behave = lambda number, start: faults[number % len(faults)]
        assert (root / "big").read_bytes() == BIG


def test_offline_is_eio_in_time_and_back_again(server: RangeServer, place: Path, words: list[str]) -> None:
    with mounted(server.url, place, *words) as root:
        assert (root / "small").read_bytes() == b"small\n"
        server.stop()
        assert read_fails(root / "big", len(BIG) // 2) < 10
        assert (root / "small").read_bytes() == b"small\n"
        assert os.listdir(root)
        assert "refused" in str(status(place)["trouble"])
        server.start()
        assert (root / "big").read_bytes() == BIG
        assert status(place)["trouble"] is None
    text = Path(words[-1]).read_text()
    assert "the image cannot be read: Connection refused" in text
    assert "answers again" in text
    assert "Traceback" not in text


def test_a_changed_object_is_eio_and_said(server: RangeServer, place: Path, words: list[str]) -> None:
    with mounted(server.url, place, *words) as root:
        server.data, server.etag = IMAGE[::-1], '"two"'
        assert read_fails(root / "big", len(BIG) // 2) < 10
        assert "has changed" in str(status(place)["trouble"])
        assert "has changed" in dmgfs("status", place).out
        server.data, server.etag = IMAGE, '"one"'
        assert (root / "big").read_bytes() == BIG
    assert 'ETag "one" then, "two" now' in Path(words[-1]).read_text()


def test_unmounting_waits_for_no_server(server: RangeServer, place: Path, words: list[str]) -> None:
    with mounted(server.url, place, *words, "--network-timeout", "60") as root:
        daemon = process_of(place)
        server.behave = lambda number, start: Fault(pause=20)
        reader = subprocess.Popen(["cat", root / "big"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        reader.kill()
        reader.wait()
        started = time.monotonic()
        ended = dmgfs("unmount", place)
        assert ended.code == 0, ended.err
        assert not is_mounted(place)
        assert has_ended(daemon)
        assert time.monotonic() - started < 5
        assert dmgfs("mount", server.url, place, *words, "--network-timeout", "1").code == 74
        server.behave = lambda number, start: None
        assert dmgfs("mount", server.url, place, *words).code == 0


def test_it_waits_for_a_server_that_is_late(server: RangeServer, place: Path, words: list[str]) -> None:
    server.stop()
    threading.Timer(3.0, server.start).start()
    with mounted(server.url, place, *words, "-o", "wait=20") as root:
        assert (root / "small").read_bytes() == b"small\n"


def test_fstab_words_and_nofail(server: RangeServer, place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with mounted(server.url, place, "-o", f"ro,_netdev,network-timeout=3,network-cache={cache}:8M") as root:
        assert (root / "small").read_bytes() == b"small\n"
    assert list(cache.iterdir())
    said = dmgfs("mount", server.url, place, "-o", "network-timeout=soon")
    assert (said.code, said.err.count("\n")) == (64, 1)


def test_attach(server: RangeServer, place: Path, words: list[str]) -> None:
    assert dmgfs("attach", server.url, place, *words).code == 0
    try:
        raw = (place / "disk").read_bytes()
        assert BIG[: 1 << 16] in raw
        assert status(place)["url"] == server.url
    finally:
        assert dmgfs("detach", place).code == 0
    assert becomes(lambda: not is_mounted(place))


def test_toram_is_refused_by_name(server: RangeServer, place: Path) -> None:
    said = dmgfs("mount", server.url, place, "--toram")
    assert (said.code, said.err.count("\n")) == (64, 1)
    assert "--toram" in said.err
