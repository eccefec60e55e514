"""The shadow file as a file: who may have it, whose it is, what happens when the medium is full or fails, what damage
does."""

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from builders.fault_disk import FaultDisk
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller, Pair
from builders.overlay_state import state
from builders.random_operations import Choice, build
from builders.refusal import refused

from overlay.change import (
    Change,
    Name,
    Put,
)
from overlay.check import check
from overlay.errors import NotAShadow, ShadowBase, ShadowError, ShadowInUse
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.vfs import Ask, run

PAGE = 4096
BASE = {"size": 12345, "koly": "abc", "volume": "0123456789ABCDEF"}
CALLER = Caller()


def lower() -> LowerTree:
    tree = LowerTree()
    tree.add_file(2, b"large", random.Random(1).randbytes(100 * PAGE))
    return tree


def make(tree: Overlay, name: bytes, data: bytes) -> int:
    ino = run(tree.mknod(2, name, 0o100644, 0, CALLER)).ino
    run(tree.write(ino, 0, data))
    return ino


# -- whose it is -----------------------------------------------------------------------------------------------------------


def test_a_new_file_is_private_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(lower(), FileStore.open_file(path, BASE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    make(tree, b"new", b"x" * 50_000)
    run(tree.write(3, 5, b"changed"))
    before = state(tree)
    tree.close()
    assert state(Overlay(lower(), FileStore.open_file(path, BASE))) == before
    assert path.read_bytes()[:14] == b"dmgfs shadow 2"


def test_one_user_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(lower(), FileStore.open_file(path, BASE))
    with pytest.raises(ShadowInUse):
        FileStore.open_file(path, BASE)
    with pytest.raises(ShadowInUse):
        FileStore.open_file(path, BASE, read_only=True)
    tree.close()
    readers = [FileStore.open_file(path, BASE, read_only=True) for _ in range(2)]
    with pytest.raises(ShadowInUse):
        FileStore.open_file(path, BASE)
    for reader in readers:
        reader.close()
    FileStore.open_file(path, BASE).close()


def test_it_belongs_to_one_image(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(lower(), FileStore.open_file(path, BASE))
    make(tree, b"new", b"x")
    before = state(tree)
    tree.close()
    other = {**BASE, "koly": "other"}
    with pytest.raises(ShadowBase, match="koly 'abc' instead of 'other'") as caught:
        FileStore.open_file(path, other)
    assert caught.value.differences == {"koly": ("abc", "other")}
    tree = Overlay(lower(), FileStore.open_file(path, other, force_base=True))
    assert state(tree) == before
    tree.close()
    FileStore.open_file(path, other).close()
    with pytest.raises(ShadowBase):
        FileStore.open_file(path, BASE)


@pytest.mark.parametrize("content", [b"my thesis", bytes(100) + b"x" * 9000, b"\0" * 9000 + b"x", b"koly" * 3000])
@pytest.mark.parametrize("recycle", [False, True])
def test_other_files_are_left_alone(tmp_path: Path, content: bytes, recycle: bool) -> None:
    path = tmp_path / "thesis"
    path.write_bytes(content)
    if not any(content[: 2 * PAGE]):
        content = content[:-1]  # a hole in front: the file must not be taken for an unfinished shadow either
        path.write_bytes(b"\0" * 2 * PAGE + b"x")
        content = path.read_bytes()
    with pytest.raises(NotAShadow):
        FileStore.open_file(path, BASE, recycle=recycle)
    assert path.read_bytes() == content


def test_later_formats_links_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "later").write_bytes(b"dmgfs shadow 3\n\0".ljust(3 * PAGE, b"?"))
    with pytest.raises(NotAShadow, match="version 3"):
        FileStore.open_file(tmp_path / "later", BASE)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with refused(errno.ELOOP):
        FileStore.open_file(tmp_path / "link", BASE)
    with refused(errno.EISDIR):
        FileStore.open_file(tmp_path, BASE)
    with pytest.raises(NotAShadow):
        FileStore.open_file("/dev/null", BASE)
    with pytest.raises(FileNotFoundError):
        FileStore.open_file(tmp_path / "none", BASE, read_only=True)
    assert not (tmp_path / "elsewhere").exists()


def test_recycle_begins_afresh(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    empty = state(Overlay(lower(), FileStore(FaultDisk(), BASE)))
    tree = Overlay(lower(), FileStore.open_file(path, BASE))
    make(tree, b"new", b"x" * 100_000)
    tree.close()
    tree = Overlay(lower(), FileStore.open_file(path, {"another": "image"}, recycle=True))
    assert state(tree) == empty
    tree.close()
    assert path.stat().st_size < 2_000_000


def test_preallocated_room_is_there_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    store = FileStore.open_file(path, BASE, preallocate=10 << 20)
    tree = Overlay(lower(), store)
    assert path.stat().st_blocks * 512 >= 10 << 20
    make(tree, b"new", os.urandom(5 << 20))
    assert path.stat().st_size == 10 << 20
    tree.close()
    assert path.stat().st_size == 10 << 20


def test_a_saved_shadow_can_be_read_only(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    tree = Overlay(lower(), FileStore.open_file(path, BASE))
    ino = make(tree, b"new", b"x" * 10_000)
    before = state(tree)
    tree.close()
    content = path.read_bytes()
    tree = Overlay(lower(), FileStore.open_file(path, BASE, read_only=True))
    assert state(tree) == before
    with refused(errno.EROFS):
        run(tree.write(ino, 0, b"y"))
    run(tree.fsync())
    tree.close()
    assert path.read_bytes() == content


# -- room ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["medium", "budget"])
def test_a_full_file_refuses_can_be_emptied_and_opened(kind: str) -> None:
    disk = FaultDisk(limit=3 << 20 if kind == "medium" else 1 << 40)
    store = FileStore(disk, BASE, budget=3 << 20 if kind == "budget" else None)
    pair = Pair(build(True), store)
    ino = pair.call("create", 2, b"filler", 0o644, 0)
    offset = 0
    for size in (1 << 16, PAGE):
        while not isinstance(pair.call("write", ino, offset, os.urandom(size), False), OSError):
            offset += size
    number = 0
    while number < 50_000 and not isinstance(pair.call("create", 2, b"%d" % number, 0o644, 0), OSError):
        number += 1
    assert offset > 1 << 20
    assert pair.refused >= 2
    pair.compare()
    assert len(disk.data) <= 3 << 20
    usage = run(pair.overlay.statfs())
    assert usage.free_blocks * PAGE < 300_000
    before = state(pair.overlay)
    again = Overlay(pair.lower, FileStore(FaultDisk(bytes(disk.data), limit=len(disk.data)), BASE))
    assert state(again) == before
    for name in [b"filler", *(b"%d" % index for index in range(number))]:
        assert not isinstance(pair.call("unlink", 2, name), OSError)
    for held, count in list(pair.model.held.items()):
        pair.forget(held, count)
    run(pair.overlay.fsync())
    ino = pair.call("create", 2, b"again", 0o644, 0)
    assert pair.call("write", ino, 0, os.urandom(1 << 20), False) == 1 << 20
    pair.end()


def test_overwriting_does_not_let_the_file_grow() -> None:
    disk = FaultDisk()
    tree = Overlay(lower(), FileStore(disk, BASE))
    ino = make(tree, b"new", os.urandom(100 * PAGE))
    run(tree.fsync())
    run(tree.write(ino, 0, os.urandom(100 * PAGE)))
    run(tree.fsync())
    size = len(disk.data)
    for number in range(60):
        run(tree.write(ino, 0, os.urandom(100 * PAGE)))
        run(tree.write(ino, number * 10, b"small"))
        if number % 7 == 0:
            run(tree.fsync())
    assert len(disk.data) <= size + 400 * PAGE  # one more copy, in steps of 1 MiB
    run(tree.unlink(2, b"new"))
    tree.forget(ino)
    tree.close()
    assert len(disk.data) < 600_000


def test_the_log_does_not_grow_without_end() -> None:
    disk = FaultDisk()
    tree = Overlay(lower(), FileStore(disk, BASE))
    ino = make(tree, b"new", b"x")
    for number in range(100_000):
        run(tree.setattr(ino, mode=number & 0o777))
        if number % 20_000 == 0:
            run(tree.fsync())
    assert len(disk.data) < 20 << 20
    before = state(tree)
    tree.close()
    assert state(Overlay(lower(), FileStore(FaultDisk(bytes(disk.data)), BASE))) == before


# -- failures --------------------------------------------------------------------------------------------------------------


def test_a_failed_write_changes_nothing() -> None:
    source = random.Random(5)
    disk = FaultDisk()
    tree = Overlay(lower(), FileStore(disk, BASE))
    ino = make(tree, b"new", b"x" * 30_000)
    for _ in range(200):
        before = state(tree)
        disk.fail_after = source.randrange(2)
        write = tree.write(ino, source.randrange(60_000), source.randbytes(source.randrange(1, 20_000)))
        if disk.fail_after == 0:
            with refused(errno.EIO):
                run(write)
            assert state(tree) == before
        else:
            with suppress(OSError):
                run(write)
        disk.fail_after = None
    before = state(tree)
    assert state(Overlay(lower(), FileStore(FaultDisk(bytes(disk.data)), BASE))) == before


def test_after_a_failed_sync_nothing_is_promised_any_more() -> None:
    disk = FaultDisk()
    tree = Overlay(lower(), FileStore(disk, BASE))
    ino = make(tree, b"new", b"x" * 30_000)
    before = state(tree)
    disk.fail_sync = True
    with refused(errno.EIO):
        run(tree.fsync())
    disk.fail_sync = False
    for change in (tree.write(ino, 0, b"y"), tree.fsync(), tree.unlink(2, b"new")):
        with refused(errno.EIO):
            run(change)
    assert state(tree) == before
    tree.close()
    assert disk.closed


def test_reads_that_must_wait_are_asked_for_elsewhere() -> None:
    disk = FaultDisk()
    tree = Overlay(lower(), FileStore(disk, BASE))
    ino = make(tree, b"new", b"x" * 30_000)
    disk.cold = True
    steps = tree.read(ino, 0, 30_000)
    ask = next(steps)
    assert ask.slow
    with pytest.raises(StopIteration) as caught:
        steps.send(ask.function(*ask.arguments))
    assert caught.value.value == b"x" * 30_000
    (ask,) = list(tree.fsync())
    assert isinstance(ask, Ask)
    assert ask.slow


def test_damaged_pages_are_found_by_verify() -> None:
    disk = FaultDisk()
    store = FileStore(disk, BASE)
    tree = Overlay(lower(), store)
    ino = make(tree, b"new", os.urandom(20 * PAGE))
    file = tree._state.tree.file(ino)
    assert file is not None
    assert file.pages is not None
    assert store.verify() == []
    disk.data[file.pages[7] * PAGE + 100] ^= 1
    assert store.verify() == [f"inode {ino}: 1 pages do not match their checksums"]


def test_check_says_clean_or_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    pair = Pair(build(True), FileStore.open_file(path, BASE))
    source = random.Random(3)
    choice = Choice(pair, source.choice, lambda limit: source.randrange(max(1, limit)), source.randbytes)
    for _ in range(600):
        pair.call(*choice.operation())
    pair.overlay.close()
    report = check(path)
    assert report.problems == []
    assert report.base == BASE
    assert report.inodes > 10
    store = FileStore.open_file(path, BASE)
    tree = Overlay(pair.lower, store)
    ino = make(tree, b"broken", os.urandom(3 * PAGE))
    file = tree._state.tree.file(ino)
    assert file is not None
    assert file.pages is not None
    slot = file.pages[1]
    change = Change()
    change.items.append(Put(run(tree.getattr(ino))._replace(nlink=2), 0))
    change.items.append(Name(2, b"nowhere", b"nowhere", 1 << 40))
    tree._state.commit(change)
    tree.close()
    with path.open("r+b") as raw:
        raw.seek(slot * PAGE + 5)
        raw.write(b"!!")
    assert sorted(check(path).problems) == [
        "directory 2: b'nowhere' leads to inode 1099511627776, which does not exist",
        f"inode {ino}: 1 names, link count 2",
        f"inode {ino}: 1 pages do not match their checksums",
    ]


def test_any_damage_ends_in_an_error_or_a_state() -> None:
    """Bytes changed anywhere, the file cut anywhere: ShadowError or OSError(EIO), or it opens and can be looked at."""
    disk = FaultDisk()
    pair = Pair(build(True), FileStore(disk, BASE))
    for number in range(60):
        ino = pair.call("create", 2, b"%d" % number, 0o644, 0)
        pair.call("write", ino, 0, os.urandom(6000), False)
        pair.call("setxattr", ino, b"user.one", b"1" * number, 0)
    run(pair.overlay.fsync())
    whole = bytes(disk.data)
    source = random.Random(9)
    used = [index * PAGE for index in range(len(whole) // PAGE) if any(whole[index * PAGE : (index + 1) * PAGE])]
    refused_count = 0
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(source.choice([1, 1, 8])):
            data[source.choice(used) + source.randrange(PAGE)] = source.randrange(256)
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        try:
            state(Overlay(pair.lower, FileStore(FaultDisk(bytes(data)), BASE)))
        except (ShadowError, OSError):
            refused_count += 1
    assert refused_count > 12


def test_a_base_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        FileStore.open_file(tmp_path / "shadow", {"x": "y" * 5000})


# -- a real process --------------------------------------------------------------------------------------------------------

VICTIM = """
import os, random, sys
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.vfs import run

tree = Overlay(LowerTree(), FileStore.open_file(sys.argv[1], {}))
source = random.Random(int(sys.argv[2]))
number = 0
while True:
    name = b"%d-%d" % (int(sys.argv[2]), number)
    ino = run(tree.mknod(2, name, 0o100644, 0, Caller())).ino
    run(tree.write(ino, 0, name * source.randrange(1, 3000)))
    if number > 20:
        run(tree.unlink(2, b"%d-%d" % (int(sys.argv[2]), number - 20)))
    if number % 10 == 0:
        run(tree.fsync())
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """kill -9 under load, again and again; everything that was reported is there, what was deleted is not."""
    path = tmp_path / "shadow"
    tests = Path(__file__).resolve().parents[1]
    for life in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(path), str(life)],
            stdout=subprocess.PIPE,
            cwd=tests,
            env={"PYTHONPATH": str(tests)},
        ) as victim:
            assert victim.stdout is not None
            first = victim.stdout.readline()
            time.sleep(0.05 + 0.03 * life)
            victim.send_signal(signal.SIGKILL)
            done = [first, *victim.stdout.readlines()]
        last = int(done[-1]) if done[-1].endswith(b"\n") else int(done[-2])
        store = FileStore.open_file(path, {})
        tree = Overlay(LowerTree(), store)
        assert store.verify() == []
        for number in range(max(0, last - 18), last + 1):
            name = b"%d-%d" % (life, number)
            entry = run(tree.lookup(2, name))
            assert entry.attr is not None
            data = bytes(run(tree.read(entry.ino, 0, 1 << 20)))
            assert data
            assert data == name * (len(data) // len(name))
        for number in range(1, last - 20):
            with pytest.raises(FileNotFoundError):
                run(tree.lookup(2, b"%d-%d" % (life, number)))
        tree.close()
