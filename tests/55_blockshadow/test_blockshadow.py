"""A disk with a block-level shadow against a plain bytearray: any writes, any crash; and the three faults of XNU's vn
shadow, which are not ours."""

import errno
import hashlib
import random
import threading

import pytest
from builders.fault_disk import FaultDisk, killed, unplugged
from builders.processes import errno_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dmgfs.blockshadow import BlockShadow, DiskLower, DiskTree, View, views_of
from dmgfs.blockshadow.disklower import DISK
from dmgfs.blockshadow.zeros import Stretch
from dmgfs.errors import OutOfRange
from dmgfs.partitions import Partition
from dmgfs.source import Buffer, MemorySource, Run, RunSource
from overlay.errors import ShadowBase
from overlay.file import FileStore
from overlay.pages import PAGE
from overlay.ram import RamStore
from overlay.vfs import run

BASE = {"disk size": 1, "image ends": "abc"}
SIZE = 5 * 4096 + 700
ORIGINAL = random.Random(1).randbytes(SIZE)
BAND = 128 << 10

writes = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, 9000), st.sampled_from([0, 1, 0xAA])), max_size=12
)


def patched(offset: int, length: int, byte: int, size: int = SIZE) -> bytes:
    return (bytes(length) if byte == 0 else bytes([byte]) * length)[: size - offset]


@given(writes, st.sampled_from(["ram", "file"]), st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=30, deadline=None)
def test_any_writes_are_those_of_a_bytearray(operations, kind, syncs):
    disk = FaultDisk()
    shadow = BlockShadow(MemorySource(ORIGINAL), RamStore(1 << 20) if kind == "ram" else FileStore(disk, BASE))
    model = bytearray(ORIGINAL)
    for (offset, length, byte), sync in zip(operations, syncs, strict=False):
        data = patched(offset, length, byte)
        shadow.write(offset, data)
        model[offset : offset + len(data)] = data
        if sync:
            shadow.sync()
        assert shadow.read(0, SIZE) == model
        assert shadow.read(offset, len(data)) == data
    shadow.close()
    if kind == "file":
        again = BlockShadow(MemorySource(ORIGINAL), FileStore(FaultDisk(bytes(disk.data)), BASE))
        assert again.read(0, SIZE) == model


@pytest.mark.parametrize("how", ["killed", "unplugged"])
def test_after_any_crash_the_disk_is_what_it_was_after_some_write_none_synced_is_missing(how):
    source = random.Random(1)
    disk = FaultDisk()
    shadow = BlockShadow(MemorySource(ORIGINAL), FileStore(disk, BASE))
    begun = len(disk.events)
    states, ends, safe = [ORIGINAL], [begun], [(begun, 0)]
    model = bytearray(ORIGINAL)
    for _ in range(40):
        offset = source.randrange(SIZE)
        data = source.randbytes(source.choice([1, 511, 512, 513, 4096, 9000]))[: SIZE - offset]
        shadow.write(offset, data)
        model[offset : offset + len(data)] = data
        states.append(bytes(model))
        ends.append(len(disk.events))
        if source.random() < 0.2:
            shadow.sync()
            safe.append((len(disk.events), len(states) - 1))
    for count in range(begun, len(disk.events)):
        kept = killed(disk.events, count, (count % 5) / 5) if how == "killed" else None
        found = BlockShadow(
            MemorySource(ORIGINAL),
            FileStore(FaultDisk(kept if kept is not None else unplugged(disk.events, count, source)), BASE),
        )
        ended = max(index for index, end in enumerate(ends) if end <= count)
        first = ended if how == "killed" else max(state for end, state in safe if end <= count)
        assert bytes(found.read(0, SIZE)) in states[first : ended + 2], count


def test_another_base_is_refused(tmp_path):
    shadow = BlockShadow(MemorySource(ORIGINAL), FileStore.open_file(tmp_path / "shadow", BASE))
    shadow.write(5, b"x")
    shadow.close()
    with pytest.raises(ShadowBase):
        FileStore.open_file(tmp_path / "shadow", {**BASE, "image ends": "abd"})


changes = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "discard"]), st.integers(0, SIZE - 1), st.integers(0, 9000), st.booleans()
    ),
    max_size=12,
)


@given(changes, st.sampled_from(["ram", "file"]))
@settings(max_examples=40, deadline=None)
def test_zeros_and_what_nobody_needs(operations, kind):
    """A discard takes whole pages that were written; all others stay. What is said to be zeros is."""
    disk = FaultDisk()
    shadow = BlockShadow(MemorySource(ORIGINAL), RamStore(1 << 20) if kind == "ram" else FileStore(disk, BASE))
    model, written = bytearray(ORIGINAL), set()
    for what, offset, length, sync in operations:
        end = min(SIZE, offset + length)
        if what == "discard":
            shadow.discard(offset, end - offset)
            for page in written:
                start, stop = page * 4096, min(SIZE, (page + 1) * 4096)
                if offset <= start and stop <= end:
                    model[start:stop] = bytes(stop - start)
        else:
            data = bytes(end - offset) if what == "zero" else b"\xaa" * (end - offset)
            if what == "zero":
                shadow.zero(offset, end - offset)
            else:
                shadow.write(offset, data)
            model[offset:end] = data
            written |= set(range(offset // 4096, (end + 4095) // 4096)) if end > offset else set()
        if sync:
            shadow.sync()
        assert shadow.read(0, SIZE) == model
        found = shadow.stretches(offset, end - offset)
        assert sum(one.length for one in found) == end - offset
        for one in found:
            assert not one.zeros or not any(model[one.offset : one.offset + one.length])
    shadow.close()
    if kind == "file":
        again = BlockShadow(MemorySource(ORIGINAL), FileStore(FaultDisk(bytes(disk.data)), BASE))
        assert again.read(0, SIZE) == model


def test_zeros_take_no_room_and_what_is_discarded_gives_it_back():
    store = RamStore(256 << 10)
    shadow = BlockShadow(Pattern(1 << 30), store)
    for _ in range(10):
        shadow.write(0, b"\xaa" * (160 << 10))
        shadow.discard(0, 160 << 10)
        assert shadow.stretches(0, 4 << 20) == [
            Stretch(0, 160 << 10, True),
            Stretch(160 << 10, (4 << 20) - (160 << 10), False),
        ]
    shadow.zero(4096 * 1000 + 1, 20 << 20)
    assert shadow.read(4096 * 1001, 20 << 20) == bytes(4096 * 5119) + shadow.read(4096 * 6120, 4096)
    shadow.discard(0, 1 << 30)
    assert store.used < 64 << 10


class Slow:
    """A disk whose first page is waited for until somebody says so."""

    size = SIZE

    def __init__(self) -> None:
        self.asked, self.may = threading.Event(), threading.Event()

    def read(self, offset: int, length: int) -> Buffer:
        if offset < 4096:
            self.asked.set()
            assert self.may.wait(30)
        return ORIGINAL[offset : offset + length]

    def cold(self, offset: int, length: int):
        return ()


@pytest.mark.parametrize("how", ["read", "write"])
def test_nobody_waits_for_the_disk_that_another_waits_for(how):
    base = Slow()
    shadow = BlockShadow(base, RamStore(1 << 20))
    shadow.write(4096 * 3, b"x" * 4096)
    found = []

    def wait() -> None:
        if how == "write":
            shadow.write(10, b"part of the page")
        found.append(shadow.read(0, SIZE))

    thread = threading.Thread(target=wait)
    thread.start()
    assert base.asked.wait(30)
    shadow.write(4096 * 2 + 5, b"meanwhile")
    assert shadow.read(4096 * 2 + 5, 9) == b"meanwhile"
    shadow.write(4096, b"y" * 4096)
    base.may.set()
    thread.join()
    want = bytearray(ORIGINAL)
    want[4096 : 4096 * 2] = b"y" * 4096
    want[4096 * 2 + 5 : 4096 * 2 + 14] = b"meanwhile"
    want[4096 * 3 : 4096 * 4] = b"x" * 4096
    if how == "write":
        want[10:26] = b"part of the page"
    assert found == [want]
    assert shadow.read(0, SIZE) == want


# -- what XNU's vn shadow gets wrong (bsd/dev/vn) ----------------------------------------------


def test_vn_a_write_that_fails_leaves_what_was_there():
    """vn marks the block as written before the data are: a failed write shows what the shadow file held there."""
    disk = FaultDisk()
    shadow = BlockShadow(MemorySource(ORIGINAL), FileStore(disk, BASE))
    shadow.write(0, b"first")
    for later in range(4):
        disk.fail_after = later
        try:
            shadow.write(4096 * 2, b"y" * 4096)
        except OSError:
            assert shadow.read(4096 * 2, 4096) == ORIGINAL[4096 * 2 : 4096 * 3]
        else:
            break
    else:
        pytest.fail("no write ever went through")
    assert later > 0
    full = BlockShadow(MemorySource(ORIGINAL), RamStore(8192))
    assert errno_of(lambda: full.write(0, bytes([1]) * 16384)) == errno.ENOSPC
    assert full.read(0, SIZE) == ORIGINAL


@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize("start", [0, 1])
def test_vn_a_short_write_at_the_start_of_a_block_keeps_the_rest_of_it(block, start):
    """vn fills the rest of the block from the base only if the write begins inside of it."""
    shadow = BlockShadow(MemorySource(ORIGINAL), RamStore(1 << 20))
    shadow.write(block * 2 + start, b"short")
    want = bytearray(ORIGINAL)
    want[block * 2 + start : block * 2 + start + 5] = b"short"
    assert shadow.read(0, SIZE) == want


class Pattern:
    """A disk of any size without its bytes: each 4096 bytes begin with their number."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, length: int) -> Buffer:
        first = offset // 4096
        pages = b"".join(
            number.to_bytes(8, "big") * 512 for number in range(first, (offset + length - 1) // 4096 + 1)
        )
        return pages[offset - first * 4096 :][:length]

    def cold(self, offset: int, length: int):
        return ()


def test_vn_a_disk_may_be_larger_than_8_gib():
    """vn numbers its bands of 128 KiB with 16 bits: what is written beyond 8 GiB lands in another band."""
    size = 40 << 30
    shadow = BlockShadow(Pattern(size), RamStore(8 << 20))
    places = [(number << 33) + 5 for number in range(5)] + [65535 * BAND - 7, 65536 * BAND, size - 3]
    for number, place in enumerate(places):
        shadow.write(place, bytes([number + 1]) * 3)
    for number, place in enumerate(places):
        before = Pattern(size).read(place - 2 if place > 2 else 0, 2)
        assert shadow.read(place, 3) == bytes([number + 1]) * 3
        assert shadow.read(place - 2, 2) == before
    assert shadow.read(65536 * BAND * 2 + 4096, 4096) == Pattern(size).read(65536 * BAND * 2 + 4096, 4096)


def test_the_requests_of_xnus_own_test():
    """In blocks of 512 and bands of 128 KiB: W(2B,1) R(B/2,2B-2) W(B,5B+3) R(0,10B) W((65535-1)B,2B)."""
    size, blocks = 9 << 30, BAND // 512
    shadow = BlockShadow(Pattern(size), RamStore(64 << 20))
    model: dict[int, bytes] = {}

    def write(block: int, count: int) -> None:
        data = hashlib.shake_128(str((block, count)).encode()).digest(512) * count
        shadow.write(block * 512, data)
        model.update((block + index, data[:512]) for index in range(count))

    def check(block: int, count: int) -> None:
        got = shadow.read(block * 512, count * 512)
        base = Pattern(size).read(block * 512, count * 512)
        for index in range(count):
            part = slice(index * 512, index * 512 + 512)
            assert got[part] == model.get(block + index, base[part])

    write(2 * blocks, 1)
    check(blocks // 2, 2 * blocks - 2)
    write(blocks, 5 * blocks + 3)
    check(0, 10 * blocks)
    write((65535 - 1) * blocks, 2 * blocks)
    check((65535 - 2) * blocks, 4 * blocks)


# -- partitions are windows of the disk ----------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9000), st.integers(1, 6000), st.integers(0, 255)), max_size=8
    )
)
@settings(max_examples=25, deadline=None)
def test_the_disk_and_its_partitions_show_the_same(operations):
    views = [View("disk0s1", 512, 5000), View("disk0s2", 5512, 8192)]
    tree = DiskTree(DiskLower(MemorySource(ORIGINAL), views, uid=1, gid=2, made_ns=3), RamStore(1 << 20))
    windows = {DISK: (0, SIZE), DISK + 1: (512, 5000), DISK + 2: (5512, 8192)}
    for ino in windows:
        run(tree.open(ino))
    model = bytearray(ORIGINAL)
    for which, offset, length, byte in operations:
        start, size = windows[DISK + which]
        data = bytes([byte]) * length
        if offset >= size:
            assert errno_of(lambda: run(tree.write(DISK + which, offset, data))) == errno.ENOSPC  # noqa: B023
            continue
        count = min(length, size - offset)
        assert run(tree.write(DISK + which, offset, data)) == count
        model[start + offset : start + offset + count] = data[:count]
        for ino, (first, window) in windows.items():
            assert run(tree.read(ino, 0, 1 << 20)) == model[first : first + window]
    for ino in windows:
        tree.release(ino)


def test_files_of_a_disk_behave_as_devices():
    tree = DiskTree(
        DiskLower(MemorySource(ORIGINAL), [View("disk0s1", 512, 512)], uid=1, gid=2, made_ns=3), RamStore(1 << 20)
    )
    run(tree.open(DISK + 1, 0o1001))  # O_WRONLY | O_TRUNC
    assert run(tree.read(DISK + 1, 0, 1000)) == ORIGINAL[512:1024]
    assert run(tree.getattr(DISK + 1)).size == 512
    assert errno_of(lambda: run(tree.setattr(DISK + 1, size=0))) == errno.EPERM
    assert errno_of(lambda: run(tree.unlink(2, b"disk"))) == errno.EPERM
    assert errno_of(lambda: run(tree.mkdir(2, b"x", 0o755, None))) == errno.EPERM
    assert [entry.name for entry in run(tree.readdir(run(tree.opendir(2)), 2))] == [b"disk", b"disk0s1"]


def test_partitions_that_reach_beyond_the_disk_are_left_out():
    def partition(index: int, start: int, length: int) -> Partition:
        return Partition(index, "GPT", "", "", start, length)

    given = [partition(1, 0, 0), partition(2, 512, 100), partition(3, 900, 200), partition(0, 0, 1000)]
    assert views_of(given, 1000) == [View("disk0s2", 512, 100)]


def test_it_is_a_source_like_any_other():
    shadow = BlockShadow(RunSource([Run(None, 0, 10_000)]), RamStore(1 << 20))
    with pytest.raises(OutOfRange):
        shadow.read(9_999, 2)
    with pytest.raises(OutOfRange):
        shadow.write(9_999, b"ab")
    assert shadow.read(9_999, 1) == b"\0"


def test_a_page_that_is_not_what_was_written_is_an_error_and_no_other_bytes(tmp_path):
    path = tmp_path / "shadow"
    written = random.Random(2).randbytes(SIZE)
    shadow = BlockShadow(MemorySource(ORIGINAL), FileStore.open_file(path, BASE))
    shadow.write(0, written)
    shadow.close()
    at = path.read_bytes().index(written[2 * PAGE : 3 * PAGE])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(PAGE))
    shadow = BlockShadow(MemorySource(ORIGINAL), FileStore.open_file(path, BASE))
    for offset, length in ((2 * PAGE, 1), (0, SIZE), (3 * PAGE - 1, 2)):
        with pytest.raises(OSError, match=rf"page at {at:#x} does not match its checksum.*shadow check") as caught:
            shadow.read(offset, length)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert shadow.read(0, 2 * PAGE) == written[: 2 * PAGE]
    assert shadow.read(3 * PAGE, SIZE - 3 * PAGE) == written[3 * PAGE :]
    assert errno_of(shadow.write, 2 * PAGE + 100, b"a part of it") == errno.EIO
    shadow.write(2 * PAGE, b"all of it".ljust(PAGE))
    assert shadow.read(0, SIZE) == written[: 2 * PAGE] + b"all of it".ljust(PAGE) + written[3 * PAGE :]
    shadow.close()
