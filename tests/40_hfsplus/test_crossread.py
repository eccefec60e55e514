"""Features that no real image of the corpus has: fsck.hfsplus finds the volumes sound, and readers that we did not write
find in them what we find, as far as they know the feature.

| feature                            | fsck | libfshfs | The Sleuth Kit | 7-Zip |
| overflow extents of files          | yes  | yes      | yes            | yes   |
| overflow extents of the catalog    | yes  | yes      | yes            | yes   |
| attributes with a fork of their own| yes  | yes      | no             | no    |
| … in more than eight extents       | yes  | no       | no             | no    |
| decmpfs 3, 4, 7, 8                 | -    | yes      | yes            | yes   |
| decmpfs 9                          | -    | yes      | no             | yes   |
| decmpfs 10, 11, 12                 | -    | yes      | no             | no    |
| file hard links                    | yes  | inode    | yes            | no    |
| folder hard links                  | yes  | inode    | yes            | no    |
| a journal that waits               | told | no       | no             | no    |

The Linux driver has its own comparison, of volumes that it wrote itself (scripts/fixtures/judge.py: overflow extents of
files, inline attributes, file hard links). It is not asked here.

fsck does not look into compressed files. decmpfs 1 none of these readers knows. The Sleuth Kit gives up on the contents of
a file whose attributes have a fork. libfshfs mixes up the forks where both overflow. "inode": libfshfs lists a hard link as
an empty file and reads what it leads to in the private folder. "told": fsck.hfsplus on Linux checks info block and header
of the journal, says how much waits in it, and does not replay it; nor does any reader here, nor does the Linux driver
write journals. So what a replay must give is made by hand (`applied`), and the readers judge that volume. A journal that
macOS itself left in this state is in the corpus (ahknight test.img).
"""

import io
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from builders.decmpfs import pack
from builders.hfsplus import ROOT, Image
from builders.journal import Journal, Write, applied
from builders.manifest import is_private
from builders.sound import BLOCK, SoundBuilder
from builders.walk import opened, walk, whole

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures"))
FSCK = FIXTURES / "hfsprogs/sbin/fsck.hfsplus"

NOISE = random.Random(3).randbytes(45 * BLOCK)
TEXT = b"The quick brown fox jumps over the lazy dog. "


@dataclass
class Thing:
    """A file or (data is None) a folder."""

    data: bytes | None
    resource: bytes = b""
    attributes: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Found:
    """What a reader finds: the number that each path leads to, and the thing of each number."""

    numbers: dict[str, int] = field(default_factory=dict)
    things: dict[int, Thing] = field(default_factory=dict)


# -- the volumes -------------------------------------------------------------------------------------------------------


def overflow() -> SoundBuilder:
    """Forks of up to 40 extents."""
    volume = SoundBuilder()
    volume.file(ROOT, "nine", NOISE[: 9 * BLOCK], extent_blocks=1)
    volume.file(ROOT, "forty", NOISE[: 40 * BLOCK], extent_blocks=1)
    volume.file(ROOT, "resource", NOISE[:3], resource=NOISE[9 : 20 * BLOCK], extent_blocks=1)
    volume.file(ROOT, "both", NOISE[: 11 * BLOCK - 7], resource=NOISE[5 : 30 * BLOCK - 99], extent_blocks=1)
    return volume


def scattered_catalog() -> SoundBuilder:
    """A catalog of three levels, each of its nodes an extent of its own."""
    volume = SoundBuilder(catalog_extent_blocks=1, records_per_node=6)
    folder = volume.folder(ROOT, "Documents")
    for number in range(45):
        volume.file((ROOT, folder)[number % 2], f"file {number}", b"%d" % number)
    return volume


def attributes() -> SoundBuilder:
    """Attributes inline and with a fork of their own."""
    volume = SoundBuilder(records_per_node=3)
    for name in ("one", "two"):
        cnid = volume.file(ROOT, name, name.encode())
        volume.attribute(cnid, "com.example.fork", NOISE[: 3 * BLOCK - 1], as_fork=True)
        volume.attribute(cnid, "com.example.inline", NOISE[:3000])
        volume.attribute(cnid, "com.example.large", NOISE[: 40 * BLOCK], as_fork=True)
    return volume


def scattered_attributes() -> SoundBuilder:
    """An attribute of 20 extents."""
    volume = SoundBuilder()
    cnid = volume.file(ROOT, "file", b"content")
    volume.attribute(cnid, "com.example.scattered", NOISE[: 20 * BLOCK - 5], as_fork=True, extent_blocks=1)
    return volume


def compressed() -> SoundBuilder:
    """Text that shrinks and noise that does not, of every type that the readers know; several blocks in the fork."""
    volume = SoundBuilder()
    for kind in (3, 4, 7, 8, 9, 10, 11, 12):
        in_fork = kind in (4, 8, 10, 12)
        for name, data in (
            ("text", TEXT * (4500 if in_fork else 60)),
            ("noise", NOISE[: 150_000 if in_fork else 3000]),
        ):
            packed = pack(kind, data)
            volume.file(
                ROOT, f"{name}{kind}", resource=packed.fork, flags=0x20,
                attributes={"com.apple.decmpfs": packed.attribute},
            )  # fmt: skip
    return volume


def links() -> SoundBuilder:
    """Two names of a file and three of a folder."""
    volume = SoundBuilder()
    folder = volume.folder(ROOT, "Documents")
    reference = volume.linked_file(b"linked", 2)
    volume.file_link(ROOT, "first", reference)
    volume.file_link(folder, "second", reference)
    shared = volume.linked_folder_of((ROOT, "one"), (folder, "two"), (folder, "three"))
    volume.file(shared, "inside", b"content of the folder")
    return volume


VOLUMES: dict[str, Callable[[], SoundBuilder]] = {
    made.__name__: made for made in (overflow, scattered_catalog, attributes, scattered_attributes, compressed, links)
}


@cache
def built(name: str) -> Image:
    return VOLUMES[name]().build()


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[Image], Path]:
    def store(image: Image) -> Path:
        path = tmp_path / "volume.img"
        path.write_bytes(image.data)
        return path

    return store


# -- the readers -------------------------------------------------------------------------------------------------------


def ours(data: bytes | bytearray, **options: bool) -> Found:
    found = Found()
    volume = opened(data, **options)
    for path, node in walk(volume):
        found.numbers[path] = node.cnid
        assert node.broken is None
        values = {name: whole(value) for name, value in volume.attributes(node).items()}
        if stat.S_ISDIR(node.mode):
            found.things[node.cnid] = Thing(None, b"", values)
        else:
            found.things[node.cnid] = Thing(whole(volume.data(node)), whole(volume.resource(node)), values)
    return found


def libfshfs(data: bytes | bytearray) -> Found:
    pyfshfs = pytest.importorskip("pyfshfs")
    found = Found()
    volume = pyfshfs.volume()
    volume.open_file_object(io.BytesIO(data))

    def visit(folder, above: str) -> None:
        for index in range(folder.number_of_sub_file_entries):
            entry = folder.get_sub_file_entry(index)
            path = above + entry.name
            found.numbers[path] = entry.identifier
            thing = Thing(None)
            for number in range(entry.number_of_extended_attributes):
                attribute = entry.get_extended_attribute(number)
                thing.attributes[attribute.name] = attribute.read_buffer(attribute.size)
            if stat.S_ISDIR(entry.file_mode):
                visit(entry, path + "/")
            else:
                thing.data = entry.read_buffer(entry.size) if entry.size else b""
                fork = entry.get_resource_fork() if entry.has_resource_fork() else None
                thing.resource = fork.read_buffer(fork.size) if fork else b""
            found.things[entry.identifier] = thing

    visit(volume.get_root_directory(), "")
    volume.close()
    return found


def run(*command: str | Path) -> bytes:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run([*map(str, command)], capture_output=True, timeout=60)
    assert ended.returncode == 0, (command, ended.stdout[-500:], ended.stderr[-500:])
    return ended.stdout


def sleuth_kit(path: Path) -> Found:
    """Paths, and contents as far as it has them: `icat` fails on what it cannot decompress."""
    found = Found()
    for line in run("fls", "-f", "hfs", "-r", "-p", path).decode().splitlines():
        kind, _, number, name = re.fullmatch(r"(.)/(.) (\d+):\t(.*)", line).groups()  # type: ignore[union-attr]
        if int(number) >= 16:
            found.numbers[name] = int(number)
            found.things[int(number)] = Thing(None if kind == "d" else b"")
    for number, thing in found.things.items():
        if thing.data is not None:
            ended = subprocess.run(["icat", "-f", "hfs", str(path), str(number)], capture_output=True, timeout=60)
            thing.data = ended.stdout if ended.returncode == 0 else None
    return found


def seven_zip(path: Path, folder: Path, *names: str) -> dict[str, bytes]:
    """Contents by path, of `names` or of everything. Its exit code counts."""
    run("7z", "x", "-y", f"-o{folder}", path, *[f"Test/{name}" for name in names])
    root = folder / "Test"
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def fsck(path: Path) -> None:
    if not FSCK.exists():
        pytest.skip(f"no fsck.hfsplus at {FSCK} (scripts/fixtures/setup fetches it)")
    assert b"appears to be OK" in run(FSCK, "-fn", path)


def visible(found: Found) -> set[str]:
    # The Sleuth Kit shows control characters as "^".
    private = ("^^^^HFS+ Private", ".HFS+ Private Directory Data^")
    return {path for path in found.numbers if not is_private(path) and not path.startswith(private)}


# -- the comparison ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VOLUMES)
def test_fsck_finds_no_fault(name: str, stored) -> None:
    fsck(stored(built(name)))


@pytest.mark.parametrize("name", sorted(VOLUMES.keys() - {"scattered_attributes"}))
def test_libfshfs_finds_the_same(name: str) -> None:
    image = built(name)
    found, theirs = ours(image.data), libfshfs(image.data)
    assert found.things
    paths = {path for path in found.numbers if not path.endswith("/inside")}
    assert visible(theirs) == paths
    for path, number in found.numbers.items():
        thing, seen = found.things[number], theirs.things[number]
        assert seen.data == thing.data, path
        if name == "compressed":
            assert seen.attributes.keys() == {"com.apple.decmpfs"}
            continue
        if path != "both":  # it takes the data fork's overflow extents for the resource fork's; 7-Zip does not
            assert seen.resource == thing.resource, path
        assert seen.attributes == thing.attributes, path


@pytest.mark.parametrize("name", ["overflow", "scattered_catalog", "links"])
def test_the_sleuth_kit_finds_the_same(name: str, stored) -> None:
    image = built(name)
    found, theirs = ours(image.data), sleuth_kit(stored(image))
    assert {path: theirs.numbers[path] for path in visible(theirs)} == found.numbers
    for number, thing in found.things.items():
        assert theirs.things[number].data == thing.data, number


def test_the_sleuth_kit_decompresses_the_same(stored) -> None:
    image = built("compressed")
    found, theirs = ours(image.data), sleuth_kit(stored(image))
    assert theirs.numbers == found.numbers
    for name in ("text3", "noise3", "text4", "noise4", "text7", "noise7", "text8", "noise8"):
        number = found.numbers[name]
        assert theirs.things[number].data == found.things[number].data, name


@pytest.mark.parametrize("name", ["overflow", "scattered_catalog", "attributes"])
def test_seven_zip_finds_the_same(name: str, stored, tmp_path: Path) -> None:
    image = built(name)
    found = ours(image.data)
    seen = seven_zip(stored(image), tmp_path / "out")
    files = {path: found.things[number].data for path, number in found.numbers.items()}
    # Attributes and resource forks come out as files "NAME:STREAM".
    assert {path: data for path, data in seen.items() if ":" not in path} == {
        path: data for path, data in files.items() if data is not None
    }
    forks = {path.removesuffix(":rsrc"): data for path, data in seen.items() if path.endswith(":rsrc")}
    assert forks == {
        path: found.things[number].resource for path, number in found.numbers.items() if found.things[number].resource
    }


def test_seven_zip_decompresses_the_same(stored, tmp_path: Path) -> None:
    image = built("compressed")
    found = ours(image.data)
    names = [f"{name}{kind}" for kind in (3, 4, 7, 8, 9) for name in ("text", "noise")]
    seen = seven_zip(stored(image), tmp_path / "out", *names)
    assert seen == {name: found.things[found.numbers[name]].data for name in names}


def test_what_was_put_in_is_what_all_agree_on() -> None:
    """Agreement could be agreement on nothing."""
    found = ours(built("compressed").data)
    assert found.things[found.numbers["noise12"]].data == NOISE[:150_000]
    assert found.things[found.numbers["text10"]].data == TEXT * 4500
    found = ours(built("scattered_attributes").data)
    assert found.things[16].attributes == {"com.example.scattered": NOISE[: 20 * BLOCK - 5]}
    found = ours(built("links").data)
    assert found.numbers["one"] == found.numbers["Documents/two"] == found.numbers["Documents/three"]
    assert found.things[found.numbers["first"]].data == b"linked"
    assert found.things[found.numbers["Documents/three/inside"]].data == b"content of the folder"


# -- the power cut -----------------------------------------------------------------------------------------------------

JOURNAL_BLOCKS = 64


def journaled(*names: str) -> Image:
    """With the journal's two files, as mkfs and macOS make them. Its info block is block 1, the journal follows."""
    volume = SoundBuilder(attributes=0x2000)
    volume.file(ROOT, ".journal_info_block", bytes(BLOCK))
    volume.file(ROOT, ".journal", bytes(JOURNAL_BLOCKS * BLOCK))
    for name in names:
        volume.file(ROOT, name, name.encode())
    image = volume.build()
    for header in (image.header, len(image.data) - 1024):
        image.patch(header + 8, ">4sI", b"HFSJ", 1)
    return image


def power_cut() -> tuple[Image, bytes]:
    """(volume where a change waits in the journal, the volume after it)."""
    old, new = journaled("before", "stays"), journaled("behind", "stays")
    places = [at for at in range(0, len(old.data), BLOCK) if old.data[at : at + BLOCK] != new.data[at : at + BLOCK]]
    change: list[Write] = [(at, bytes(new.data[at : at + BLOCK])) for at in places]
    after = applied(old.data, [change])
    Journal(2 * BLOCK, JOURNAL_BLOCKS * BLOCK, [change[:1], change[1:]], blhdr_size=BLOCK).write(old.data, BLOCK)
    return old, after


def test_what_waits_in_a_journal_gives_the_volume_that_others_read() -> None:
    cut, after = power_cut()
    found, theirs = ours(cut.data), libfshfs(after)
    assert set(found.numbers) == {"behind", "stays"} == visible(theirs)
    assert {path: found.things[number].data for path, number in found.numbers.items()} == {
        path: theirs.things[theirs.numbers[path]].data for path in visible(theirs)
    }
    as_it_stands = libfshfs(cut.data)
    assert set(ours(cut.data, replay=False).numbers) == {"before", "stays"} == visible(as_it_stands)


def test_fsck_sees_that_the_journal_waits(stored) -> None:
    cut, after = power_cut()
    path = stored(cut)
    if not FSCK.exists():
        pytest.skip(f"no fsck.hfsplus at {FSCK} (scripts/fixtures/setup fetches it)")
    said = subprocess.run([FSCK, "-fnd", path], capture_output=True, text=True, timeout=60).stdout
    end = re.search(r"Non-empty journal:  start = 512, end = (\d+)", said)
    assert end, said
    assert "Journal need to be replayed" in said
    assert int(end[1]) == int.from_bytes(cut.data[2 * BLOCK + 16 : 2 * BLOCK + 24], "little")
    path.write_bytes(after)
    # The empty journal that `after` has is no journal at all: then only the volume itself is judged.
    image = Image(bytearray(after), BLOCK, cut.catalog, cut.extents, cut.attributes)
    for header in (image.header, len(after) - 1024):
        image.patch(header + 4, ">I", 0x100)
    path.write_bytes(image.data)
    fsck(path)
