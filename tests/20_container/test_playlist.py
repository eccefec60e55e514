"""Playlists as files: what is written is read, nothing else is, and hostile ones do no harm."""

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs import playlist
from dmgfs.cache import ChunkCache
from dmgfs.container import open_container
from dmgfs.errors import CorruptImage, DmgError, NotAnImage, Unsupported
from dmgfs.playlist import MOST_BYTES, MOST_LENGTH, MOST_PARTS, Playlist, from_text, merge, read_file, to_text, trim

IMAGE = "0123456789abcdef" * 2
DISK = 1 << 40


def made(*parts: tuple[int, int], image: str = IMAGE, disk: int = DISK, files: tuple[int, ...] = ()) -> Playlist:
    return Playlist(image, disk, parts, files)


SOUND = made((0, 512), (1 << 20, 256 << 10), (20480, 7))

PARTS = st.lists(
    st.tuples(st.integers(0, DISK - MOST_LENGTH), st.integers(1, MOST_LENGTH)),
    max_size=50,
    unique_by=lambda part: part[0],
)


@given(PARTS, st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_what_is_written_is_read(parts: list[tuple[int, int]], files: list[int]) -> None:
    one = made(*parts, files=tuple(files))
    assert from_text(to_text(one)) == one


def test_a_list_reads_as_documented() -> None:
    text = b"dmgfs playlist 1\nimage " + IMAGE.encode() + b"\ndisk 4096\n512 1024\n0 512\n"
    assert from_text(text) == made((512, 1024), (0, 512), disk=4096)
    assert to_text(from_text(text)) == text
    text = text.replace(b"playlist 1", b"playlist 2") + b"file 99\nfile 16\n"
    assert from_text(text) == made((512, 1024), (0, 512), disk=4096, files=(99, 16))
    assert to_text(from_text(text)) == text


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (b"", NotAnImage, "not a playlist"),
        (b"koly", NotAnImage, "not a playlist"),
        (b"dmgfs playlist 3\n", Unsupported, "version '3'"),
        (b"dmgfs playlist 2\nimage " + IMAGE.encode() + b"\ndisk 5\nfile 1\n0 5\n", CorruptImage, "line 5"),
        (b"dmgfs playlist 2\nimage " + IMAGE.encode() + b"\ndisk 5\nfile -1\n", CorruptImage, "line 4"),
        (
            b"dmgfs playlist 2\nimage " + IMAGE.encode() + b"\ndisk 5\n" + b"file 1\n" * 65537,
            CorruptImage,
            "65537 files",
        ),
        (b"dmgfs playlist 1\n", CorruptImage, "line 2"),
        (b"dmgfs playlist 1\nimage ../../etc/passwd\ndisk 5\n", CorruptImage, "line 2"),
        (b"dmgfs playlist 1\nimage " + IMAGE.encode() + b"\ndisk -5\n", CorruptImage, "line 3"),
        (b"dmgfs playlist 1\nimage \xff\n", CorruptImage, "plain text"),
    ],
)
def test_what_is_no_list_is_refused(text: bytes, kind: type[DmgError], says: str) -> None:
    with pytest.raises(kind, match=says):
        from_text(text)


@pytest.mark.parametrize(
    "line",
    [
        "0",
        "0 0",
        "-1 5",
        f"{DISK} 1",
        f"{DISK - 1} 2",
        f"0 {MOST_LENGTH + 1}",
        "0 512 9",
        "1e3 5",
        "٣ 5",
        "9" * 30 + " 1",
    ],
)
def test_a_part_that_cannot_be_is_refused_by_its_line(line: str) -> None:
    with pytest.raises(CorruptImage):
        from_text(to_text(made((5, 5))) + line.encode() + b"\n")


def test_sizes_are_bounded() -> None:
    with pytest.raises(CorruptImage, match="parts"):
        from_text(to_text(made(*((at, 1) for at in range(MOST_PARTS + 1)))))
    with pytest.raises(CorruptImage, match="bytes long"):
        from_text(to_text(SOUND) + b"\n" * MOST_BYTES)


def test_a_part_may_stand_in_a_list_again_and_counts_once() -> None:
    found = from_text(to_text(made((0, 5), (7, 1), (0, 5))))
    assert found.parts == ((0, 5), (7, 1), (0, 5))
    assert found.bytes == 6
    assert trim(found, 5).parts == ((0, 5),)
    assert trim(found, 6) == found
    assert merge([made((7, 1)), found]).parts == ((7, 1), (0, 5), (0, 5))


@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=3))
def test_damage_ends_in_a_refusal_or_a_sound_list(at: int, damage: bytes) -> None:
    text = bytearray(to_text(SOUND))
    at %= len(text)
    text[at : at + len(damage)] = damage
    try:
        found = from_text(bytes(text))
    except DmgError:
        return
    assert all(offset >= 0 and length > 0 and offset + length <= found.disk for offset, length in found.parts)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotAnImage, match="regular"):
        read_file(str(tmp_path / "fifo"))
    with pytest.raises(IsADirectoryError):
        read_file(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "none"))


def test_files_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    playlist.write_file(SOUND, str(path))
    assert read_file(str(path)) == SOUND
    (tmp_path / f"list.{os.getpid()}.new").write_text("left over")
    playlist.write_file(made((1, 1)), str(path))
    assert read_file(str(path)) == made((1, 1))

    def full(_: Playlist) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(playlist, "to_text", full)
    with pytest.raises(OSError, match="No space"):
        playlist.write_file(SOUND, str(path))
    assert os.listdir(tmp_path) == ["list"]
    assert path.read_text().endswith("\n1 1\n")


def test_a_link_in_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / f"list.{os.getpid()}.new").symlink_to(target)
    playlist.write_file(SOUND, str(tmp_path / "list"))
    assert target.read_text() == "mine"
    assert not (tmp_path / "list").is_symlink()


# -- merge and trim -----------------------------------------------------------------------------------------------------


@given(PARTS, PARTS)
def test_merging_keeps_the_first_and_appends_what_is_new(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    both = merge([made(*one), made(*two)]).parts
    assert both[: len(one)] == tuple(one)
    assert {at for at, _ in both} == {at for at, _ in one} | {at for at, _ in two}
    assert len({at for at, _ in both}) == len(both)


def test_lists_of_two_images_are_not_merged() -> None:
    with pytest.raises(CorruptImage, match="another image"):
        merge([SOUND, made(image="f" * 32)])
    with pytest.raises(CorruptImage, match="another image"):
        merge([SOUND, made(disk=7)])


@given(PARTS, st.integers(0, 50 * MOST_LENGTH))
def test_trimming_keeps_a_beginning(parts: list[tuple[int, int]], most: int) -> None:
    kept = trim(made(*parts), most)
    assert kept.bytes <= most
    assert kept.parts == tuple(parts[: len(kept.parts)])
    if len(kept.parts) < len(parts):
        assert kept.bytes + parts[len(kept.parts)][1] > most


# -- identity -----------------------------------------------------------------------------------------------------------


def identity(path: Path) -> str:
    container = open_container(path, cache=ChunkCache(1 << 20))
    try:
        return playlist.identity_of(container)
    finally:
        container.close()


def test_raw_images_are_told_apart_by_size_and_beginning(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in "123")
    one.write_bytes(bytes(100 << 10))
    two.write_bytes(b"\1" + bytes((100 << 10) - 1))
    three.write_bytes(bytes(101 << 10))
    assert len({identity(one), identity(two), identity(three)}) == 3
    (tmp_path / "copy").write_bytes(one.read_bytes())
    assert identity(tmp_path / "copy") == identity(one)


def test_real_images_all_differ(corpus: Path, corpus_index, corpus_image) -> None:
    """Except those that hold the same disk in the same way."""
    names = [entry["name"] for entry in corpus_index][:12]
    seen: dict[str, int] = {}
    for name in names:
        path = corpus_image(name)
        try:
            known = identity(path)
        except (DmgError, OSError):
            continue
        content = zlib.crc32(path.read_bytes()) if path.is_file() else 0
        assert seen.setdefault(known, content) == content, name
    assert len(seen) > 3
