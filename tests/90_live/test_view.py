"""What of a Macintosh volume can be seen on a real mount, and how: names, dates, attributes, links, owners, a journal. The
volumes are built here; each of their oddities must cost nothing but itself."""

import errno
import hashlib
import os
import stat
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders.decmpfs import BLOCK, FORK_TYPES, pack
from builders.hfsplus import CREATED, EPOCH, ROOT, HfsPlusBuilder
from builders.journal import Journal
from exercise.daemon import clear_away
from exercise.mounted import mounted

pytestmark = pytest.mark.kernel

LONG = "\u9f8d" * 255
"""765 bytes of UTF-8."""
COMPRESSED = bytes(range(256)) * 700  # three blocks

INVISIBLE = bytes(8) + b"\x40" + bytes(23)


def attempt(act: Callable[[], object]) -> int:
    """The errno of an act that must fail."""
    with pytest.raises(OSError, match=r".") as caught:
        act()
    assert caught.value.errno is not None
    return caught.value.errno


def names(builder: HfsPlusBuilder) -> None:
    builder.file(ROOT, LONG, b"long")
    builder.folder(ROOT, "\u9f8d" * 254 + "/", cnid=100)
    builder.file(100, "inside", b"deep")
    builder.file(ROOT, "\u00e9t\u00e9", b"stored decomposed")
    builder.file(ROOT, "\u00fc", b"composed", stored=True)
    builder.file(ROOT, "u\u0308", b"decomposed", stored=True)
    builder.file(ROOT, "dot", b"plain")
    builder.file(ROOT, "a/b", b"slash")
    builder.file(ROOT, "nul\0", b"nul")
    builder.file(ROOT, "..", b"dots")
    builder.file(ROOT, "co:lon", b"colon", stored=True)
    builder.file(ROOT, "\ud800lone", b"surrogate", stored=True)
    builder.file(ROOT, "ig\u200cnored", b"ignorable", stored=True)


def attributes(builder: HfsPlusBuilder) -> None:
    values = {"com.apple.quarantine": b"0081", "user.linux": b"mine", "security.other": b"\0", "trusted.x": b"t"}
    builder.file(ROOT, "tagged", b"x", attributes=values | {"both": b"1", "user.both": b"2"})
    builder.file(ROOT, "dressed", b"x", finder=b"TEXTttxt" + bytes(24), resource=b"fork" * 100)
    builder.file(ROOT, "invisible", b"x", finder=INVISIBLE, flags=0x2 | 0x20000)
    builder.file(ROOT, "ancient", b"x", dates=(1, 2, 3, 4, 5))
    builder.file(ROOT, "late", b"x", dates=(0xFFFFFFFF,) * 5)
    big = builder.file(ROOT, "big attribute", b"x")
    builder.attribute(big, "huge", b"h" * 70_000, as_fork=True)
    builder.attribute(big, "fork", b"f" * 5000, as_fork=True, extent_blocks=1)
    builder.symlink(ROOT, "link", b"tagged")


def compressed(builder: HfsPlusBuilder) -> None:
    for kind in FORK_TYPES:
        attribute, fork = pack(kind, COMPRESSED)
        builder.file(
            ROOT,
            f"packed {kind}",
            flags=0x20,
            resource=fork,
            attributes={"com.apple.decmpfs": attribute, "kept": b"k"},
        )
    attribute, fork = pack(10, COMPRESSED)
    damaged = bytearray(fork)
    at = int.from_bytes(fork[4:8], "little")  # where block 1 begins
    damaged[at] ^= 0xFF  # its marker
    builder.file(ROOT, "damaged", flags=0x20, resource=bytes(damaged), attributes={"com.apple.decmpfs": attribute})


def links(builder: HfsPlusBuilder) -> None:
    inode = builder.inode(77, b"shared", 2)
    builder.file_link(ROOT, "link one", 77)
    builder.file_link(ROOT, "link two", 77)
    builder.file_link(ROOT, "broken link", 78)
    builder.folder_link(ROOT, "broken folder link", 500)
    shared = builder.linked_folder(600)
    builder.file(shared, "inside", b"of the shared folder")
    deeper = builder.folder(shared, "deeper")
    builder.folder_link(deeper, "loop", 600)
    for name in ("folder one", "folder two"):
        builder.folder_link(builder.folder(ROOT, name), "shared", 600)
    crossing = builder.linked_folder(700)
    builder.folder_link(crossing, "to 701", 701)
    builder.folder_link(builder.linked_folder(701), "to 700", 700)
    builder.folder_link(ROOT, "crossing", 700)
    links.inode, links.folder = inode, shared  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    builder = HfsPlusBuilder(block_size=4096)
    for part in (names, attributes, compressed, links):
        part(builder)
    path = tmp_path_factory.mktemp("view") / "view.img"
    path.write_bytes(bytes(builder.build(spare_blocks=64).data))
    before = hashlib.sha256(path.read_bytes()).digest()
    yield path
    assert hashlib.sha256(path.read_bytes()).digest() == before, "the image was changed"


@pytest.fixture(scope="module")
def root(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The volume on a read-only mount with nothing chosen."""
    place = tmp_path_factory.mktemp("mnt") / "root"
    with mounted(image, place):
        yield place
    clear_away(place)


# -- names ---------------------------------------------------------------------------------------------------------------


def test_names_longer_than_255_bytes_are_listed_and_found(root):
    assert len(LONG.encode()) == 765
    assert LONG in os.listdir(root)
    assert (root / LONG).read_bytes() == b"long"
    assert (root / ("\u9f8d" * 254 + ":") / "inside").read_bytes() == b"deep"
    found = subprocess.run(["find", root, "-name", LONG], capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == [str(root / LONG)]
    copied = subprocess.run(["tar", "-cf", "-", "-C", root, LONG], capture_output=True, check=True)
    assert b"long" in copied.stdout


def test_f_namemax_is_what_can_be_made(image, place):
    with mounted(image, place, "--shadow", "ram:8M"):
        longest = os.statvfs(place).f_namemax
        assert longest == os.pathconf(place, "PC_NAME_MAX") == 255
        (place / ("n" * longest)).write_bytes(b"fits")
        assert attempt(lambda: (place / ("n" * (longest + 1))).write_bytes(b"")) == errno.ENAMETOOLONG
        (place / LONG).write_bytes(b"changed under its own name")
        assert (place / LONG).read_bytes() == b"changed under its own name"
        os.rename(place / LONG, place / "short")
        assert (place / "short").read_bytes() == b"changed under its own name"


def test_names_in_either_form(image, root, place):
    stored = unicodedata.normalize("NFD", "été")
    assert "été" in os.listdir(root)
    assert stored not in os.listdir(root)
    assert (root / "été").read_bytes() == (root / stored).read_bytes() == b"stored decomposed"
    with mounted(image, place, "--names", "nfd"):
        assert stored in os.listdir(place)
        assert (place / "été").read_bytes() == b"stored decomposed"


def test_names_that_clash_stay_apart(root):
    listed = [name for name in os.listdir(root) if unicodedata.normalize("NFC", name) == "ü"]
    assert sorted(listed) == sorted(["ü", "u\u0308"])
    assert {(root / name).read_bytes() for name in listed} == {b"composed", b"decomposed"}


def test_ignorable_characters_are_kept_and_found_without(root):
    assert "ig\u200cnored" in os.listdir(root)
    for name in ("ig\u200cnored", "ignored", "IGNORED", "i\u200dgnored"):
        assert (root / name).read_bytes() == b"ignorable"


def test_names_that_linux_cannot_have_hide_nothing(root):
    contents = {}
    for entry in os.scandir(os.fsencode(root)):
        if entry.is_file(follow_symlinks=False):
            try:
                contents[entry.name] = Path(os.fsdecode(entry.path)).read_bytes()
            except OSError:
                assert entry.name in (b"damaged", b"broken link", b"broken folder link")
    assert contents[b"a:b"] == b"slash"
    assert contents["nul\u2400".encode()] == b"nul"
    assert contents[b"\xed\xa0\x80lone"] == b"surrogate"
    assert {b"dots", b"colon"} <= set(contents.values())
    assert contents[b"dot"] == b"plain"


# -- attributes --------------------------------------------------------------------------------------------------------


def test_attributes_with_a_namespace_of_linux_stay(root):
    assert sorted(os.listxattr(root / "tagged")) == [
        *("security.other", "trusted.x", "user.both", "user.com.apple.quarantine", "user.linux")
    ]
    assert os.getxattr(root / "tagged", "user.linux") == b"mine"
    assert os.getxattr(root / "tagged", "security.other") == b"\0"
    assert os.getxattr(root / "tagged", "trusted.x") == b"t"
    assert os.getxattr(root / "tagged", "user.com.apple.quarantine") == b"0081"
    assert os.getxattr(root / "tagged", "user.both") == b"2", "what is called exactly so comes first"
    assert attempt(lambda: os.getxattr(root / "tagged", "user.user.linux")) == errno.ENODATA


@pytest.mark.parametrize("way", ["raw", "none"])
def test_attributes_as_they_are_or_not_at_all(image, place, way):
    with mounted(image, place, "-o", f"xattrs={way}"):
        if way == "none":
            assert os.listxattr(place / "tagged") == []
            assert attempt(lambda: os.getxattr(place / "tagged", "user.linux")) == errno.ENODATA
        else:
            assert "com.apple.quarantine" in os.listxattr(place / "tagged")
            assert os.getxattr(place / "tagged", "com.apple.quarantine") == b"0081"
            assert os.getxattr(place / "tagged", "both") == b"1"
            assert os.getxattr(place / "tagged", "user.both") == b"2"
            assert len(os.getxattr(place / "dressed", "com.apple.FinderInfo")) == 32
            assert "com.apple.decmpfs" not in os.listxattr(place / "packed 8")


def test_finder_information_and_small_resource_forks(root):
    assert sorted(os.listxattr(root / "dressed")) == ["user.com.apple.FinderInfo", "user.com.apple.ResourceFork"]
    assert os.getxattr(root / "dressed", "user.com.apple.FinderInfo") == b"TEXTttxt" + bytes(24)
    assert os.getxattr(root / "dressed", "user.com.apple.ResourceFork") == b"fork" * 100
    assert os.getxattr(root / "invisible", "user.com.apple.FinderInfo") == INVISIBLE


def test_attributes_in_forks_and_those_beyond_linux(root):
    assert os.listxattr(root / "big attribute") == ["user.fork"]
    assert os.getxattr(root / "big attribute", "user.fork") == b"f" * 5000
    assert attempt(lambda: os.getxattr(root / "big attribute", "user.huge")) == errno.E2BIG


def test_flags_and_creation_are_unlisted_attributes(root, image, place):
    flags = {name: os.getxattr(root / name, "user.dmgfs.flags") for name in ("invisible", "dressed", "packed 8")}
    assert flags == {"invisible": b"uchg,hidden,schg", "dressed": b"-", "packed 8": b"compressed"}
    assert int(os.getxattr(root / "dressed", "user.dmgfs.created")) == CREATED - EPOCH
    assert int(os.getxattr(root / "ancient", "user.dmgfs.created")) == 1 - EPOCH
    assert os.getxattr(root, "user.dmgfs.flags") == b"-"
    assert not [name for name in os.listxattr(root / "invisible") if "dmgfs" in name]
    with mounted(image, place, "--shadow", "ram:8M"):
        (place / "invisible").write_bytes(b"changed")
        os.setxattr(place / "invisible", "user.x", b"1")
        assert os.getxattr(place / "invisible", "user.dmgfs.flags") == b"uchg,hidden,schg"


def test_dates_before_1970_and_after_2038(root):
    assert os.stat(root / "ancient").st_mtime_ns == (2 - EPOCH) * 10**9
    assert os.stat(root / "ancient").st_atime_ns == (4 - EPOCH) * 10**9
    assert os.stat(root / "late").st_mtime_ns == (0xFFFFFFFF - EPOCH) * 10**9
    shown = subprocess.run(["stat", "-c", "%y", root / "late"], env={"TZ": "UTC"}, capture_output=True, check=True)
    assert shown.stdout.startswith(b"2040-02-06 06:28:15")
    shown = subprocess.run(["stat", "-c", "%y", root / "ancient"], env={"TZ": "UTC"}, capture_output=True, check=True)
    assert shown.stdout.startswith(b"1904-01-01 00:00:02")


# -- compressed files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORK_TYPES)
def test_compressed_files_look_like_others(root, kind):
    path = root / f"packed {kind}"
    assert path.stat().st_size == len(COMPRESSED)
    assert path.stat().st_blocks == -(-len(COMPRESSED) // 512)
    assert path.read_bytes() == COMPRESSED
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, BLOCK - 500) == COMPRESSED[BLOCK - 500 : BLOCK + 500]
    assert os.listxattr(path) == ["user.kept"]
    for name in ("user.com.apple.decmpfs", "user.com.apple.ResourceFork"):
        assert attempt(lambda name=name: os.getxattr(path, name)) == errno.ENODATA


def test_a_damaged_block_is_an_error_of_that_block(image, place):
    with mounted(image, place), open(place / "damaged", "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == len(COMPRESSED)
        assert attempt(lambda: os.pread(file.fileno(), 4096, BLOCK + 8192)) == errno.EIO
        assert os.pread(file.fileno(), 4096, 2 * BLOCK) == COMPRESSED[2 * BLOCK : 2 * BLOCK + 4096]
        assert os.pread(file.fileno(), 4096, 0) == COMPRESSED[:4096]


# -- hard links ----------------------------------------------------------------------------------------------------------


def test_hard_links_of_files(root):
    one, two = os.stat(root / "link one"), os.stat(root / "link two")
    assert one == two
    assert (one.st_ino, one.st_nlink) == (links.inode, 2)  # type: ignore[attr-defined]
    assert (root / "link two").read_bytes() == b"shared"


@pytest.mark.parametrize("name", ["broken link", "broken folder link"])
def test_broken_links_are_an_error_of_that_name(root, name):
    assert name in os.listdir(root)
    assert attempt(lambda: os.stat(root / name)) == errno.EIO
    listed = subprocess.run(["ls", "-l", root], capture_output=True, text=True, check=False, errors="replace")
    assert listed.stderr.count("Input/output error") == 2, "the two broken ones"
    assert "link one" in listed.stdout
    assert "tagged" in listed.stdout


def test_hard_links_of_folders_are_folders(root):
    for folder in ("folder one", "folder two"):
        shared = root / folder / "shared"
        assert stat.S_ISDIR(shared.stat().st_mode)
        assert shared.stat().st_ino == links.folder  # type: ignore[attr-defined]
        assert sorted(os.listdir(shared)) == ["deeper", "inside"]
        assert (shared / "inside").read_bytes() == b"of the shared folder"


def test_folders_that_contain_themselves_have_an_end(root):
    assert attempt(lambda: os.stat(root / "folder one/shared/deeper/loop")) == errno.EIO
    assert os.listdir(root / "folder two/shared/deeper") == ["loop"]
    for command in (["find"], ["du"], ["ls", "-R"]):
        walked = subprocess.run([*command, root], capture_output=True, check=False, timeout=30)
        assert len(walked.stdout.splitlines()) < 200
    assert os.listdir(root / "crossing") == ["to 701"]


# -- owners --------------------------------------------------------------------------------------------------------------

OWNERS = [
    ([], (501, 20), (0, 0), 0o755),
    (["--owners", "on"], (501, 20), (0, 0), 0o755),
    (["--owners", "off"], (0, 0), (0, 0), 0o755),
    (["--owners", "12:34"], (12, 34), (12, 34), 0o755),
    (["-o", "owners=off,uid=5,gid=6"], (5, 6), (5, 6), 0o755),
    (["-o", "uid=5,gid=6,umask=027"], (501, 20), (5, 6), 0o750),
]


@pytest.mark.parametrize(("options", "owned", "without", "mode"), OWNERS, ids=[" ".join(row[0]) for row in OWNERS])
def test_owners(place, tmp_path, options, owned, without, mode):
    builder = HfsPlusBuilder()
    builder.file(ROOT, "owned", uid=501, gid=20)
    builder.file(ROOT, "unknown", uid=99, gid=99)
    builder.folder(ROOT, "no permissions", mode=0)
    image = tmp_path / "owners.img"
    image.write_bytes(builder.build().data)
    with mounted(image, place, *options):
        status = {name: os.stat(place / name) for name in ("owned", "unknown", "no permissions")}
    assert (status["owned"].st_uid, status["owned"].st_gid) == owned
    assert (status["unknown"].st_uid, status["unknown"].st_gid) == without
    assert (status["no permissions"].st_uid, status["no permissions"].st_gid) == without
    assert stat.S_IMODE(status["no permissions"].st_mode) == mode


# -- journal -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dirty(tmp_path: Path) -> Iterator[Path]:
    """A volume whose catalog has waiting changes: a file that is called "before" will be "behind"."""
    old, new = (HfsPlusBuilder(attributes=0x2000, block_size=512) for _ in range(2))
    old.file(ROOT, "before", b"data")
    new.file(ROOT, "behind", b"data")
    image, wanted = old.build(spare_blocks=80), new.build(spare_blocks=80)
    first = len(image.data) // 512 - 82
    start = image.catalog.node(0)
    writes = [
        (at, bytes(wanted.data[at : at + 512]))
        for at in range(start, start + 512 * sum(count for _, count in image.catalog.extents), 512)
        if image.data[at : at + 512] != wanted.data[at : at + 512]
    ]
    Journal((first + 1) * 512, 79 * 512, [writes]).write(image.data, first * 512)
    for header in (1024, len(image.data) - 1024):
        image.patch(header + 12, ">I", first)
    path = tmp_path / "dirty.img"
    path.write_bytes(image.data)
    before = hashlib.sha256(path.read_bytes()).digest()
    yield path
    assert hashlib.sha256(path.read_bytes()).digest() == before, "the image was changed"


def test_a_journal_is_replayed_in_memory_and_said(dirty, place, tmp_path):
    dirty.chmod(0o444)
    log = tmp_path / "log"
    with mounted(dirty, place, "--log", log):
        assert os.listdir(place) == ["behind"]
        assert (place / "behind").read_bytes() == b"data"
    assert "INFO" in (said := log.read_text())
    assert "the journal is replayed: 1 transaction applied in memory" in said
    assert [line for line in said.splitlines() if "WARNING" in line and "live root" not in line] == []


def test_a_journal_is_left_alone_on_request_and_said(dirty, place, tmp_path):
    log = tmp_path / "log"
    with mounted(dirty, place, "--no-replay", "--log", log):
        assert os.listdir(place) == ["before"]
    assert "transactions wait in the journal and are not applied" in log.read_text()
