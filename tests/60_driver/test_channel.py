"""The channel between a kernel and a libfuse that are both played by the test: sockets that keep packets apart stand for
/dev/fuse and for libfuse's descriptor.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dmgfs.errors import CorruptImage
from dmgfs.fuse import wire
from dmgfs.fuse.boundary import Boundary
from dmgfs.fuse.channel import Channel
from dmgfs.fuse.direct import Unwanted
from dmgfs.fuse.driver import Driver
from dmgfs.fuse.pool import Pool
from dmgfs.source import Cold, Load, forbid_blocking
from overlay.vfs import Ask

OFFERED = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT | wire.CACHE_SYMLINKS | wire.ATOMIC_O_TRUNC
GETATTR_IN = bytes(16)


class Answers:
    """Stands for Direct: what a test puts in is what requests get."""

    def __init__(self, frozen: bool) -> None:
        self.may_open_unasked = frozen
        self.unasked = False
        self.forgotten: list[tuple[int, int]] = []
        self.result: object = b"body"
        self.methods = {wire.GETATTR: ("getattr", self.getattr), wire.OPEN: ("open", self.open)}

    def getattr(self, inode: int, body: memoryview):
        if inode == 404:
            return None
        return self.steps()

    def steps(self):
        if isinstance(self.result, BaseException):
            raise self.result
        if callable(self.result):
            return (yield Ask(self.result, ()))
        return self.result

    def open(self, inode: int, body: memoryview):
        raise Unwanted

    def forget(self, inode: int, count: int) -> None:
        self.forgotten.append((inode, count))


class Ends:
    """A channel with its two ends. kernel: what the kernel sends and gets. libfuse: a descriptor."""

    def __init__(self, frozen: bool = True) -> None:
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(5)
        self.device = device
        self.libfuse = device.fileno()
        self.answers = Answers(frozen)
        self.boundary = Boundary()
        self.pool = Pool(1)
        self.channel = Channel(self.answers, Driver(self.pool), self.boundary)  # type: ignore[arg-type]
        self.channel.begin(self.libfuse)
        self.unique = 0

    def ask(self, opcode: int, body: bytes = b"", inode: int = 7) -> bool | None:
        self.unique += 1
        head = wire.IN_HEADER.pack(40 + len(body), opcode, self.unique, inode, 0, 0, 1, 0, 0)
        self.kernel.send(head + body)
        return self.channel.take()

    def answer(self) -> tuple[int, bytes]:
        data = self.kernel.recv(1 << 16)
        size, error, unique = wire.OUT_HEADER.unpack_from(data)
        assert (size, unique) == (len(data), self.unique)
        return error, data[16:]

    def introduce(self, offered: int = OFFERED) -> tuple[int, int]:
        """INIT and its answer: the flags, and the background requests allowed, that the kernel is told in the end."""
        assert self.ask(wire.INIT, wire.INIT_IN.pack(7, 38, 1 << 17, offered))
        request = os.read(self.libfuse, 1 << 16)
        assert request[40:] == wire.INIT_IN.pack(7, 38, 1 << 17, offered)
        body = wire.INIT_OUT.pack(7, 38, 1 << 17, wire.ATOMIC_O_TRUNC, 12, 9) + bytes(40)
        os.write(self.libfuse, wire.OUT_HEADER.pack(16 + len(body), 0, self.unique) + body)
        assert self.channel.take() is None
        error, answer = self.answer()
        assert not error
        assert answer[20:] == bytes(40)
        fields = wire.INIT_OUT.unpack_from(answer)
        return fields[3], fields[4]

    def close(self) -> None:
        self.channel.end()
        self.device.close()
        self.kernel.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    forbid_blocking()
    yield made
    forbid_blocking(False)
    made.close()


def test_nothing_there(ends):
    assert ends.channel.take() is None


def test_before_the_introduction_everything_goes_to_libfuse(ends):
    assert ends.ask(wire.GETATTR, GETATTR_IN) is True
    assert len(os.read(ends.libfuse, 1 << 16)) == 40 + 16


def test_the_introduction_adds_what_libfuse_leaves_out(ends):
    flags, background = ends.introduce()
    assert flags == wire.CACHE_SYMLINKS
    assert background > 12
    assert ends.answers.unasked


def test_an_old_kernel_is_offered_nothing(ends):
    assert ends.introduce(wire.ATOMIC_O_TRUNC)[0] == wire.ATOMIC_O_TRUNC
    assert not ends.answers.unasked


def test_where_things_change_files_are_opened_by_asking():
    ends = Ends(frozen=False)
    assert ends.introduce()[0] == wire.ATOMIC_O_TRUNC | wire.CACHE_SYMLINKS
    assert not ends.answers.unasked
    ends.close()


def test_a_known_request_is_answered_at_once(ends):
    ends.introduce()
    assert ends.ask(wire.GETATTR, GETATTR_IN) is False
    assert ends.answer() == (0, b"body")
    assert ends.boundary.requests == 1


def test_a_request_that_is_left_to_libfuse_reaches_it_whole_and_its_answer_the_kernel(ends):
    ends.introduce()
    for opcode, inode in ((wire.GETATTR, 404), (12, 7)):
        body = bytes(range(200))
        assert ends.ask(opcode, body, inode) is True
        assert os.read(ends.libfuse, 1 << 16)[40:] == body
        os.write(ends.libfuse, wire.OUT_HEADER.pack(16 + 3, 0, ends.unique) + b"yes")
        assert ends.channel.take() is None
        assert ends.answer() == (0, b"yes")


def test_an_answer_in_two_pieces_is_put_together(ends):
    ends.introduce()
    ends.ask(12)
    whole = wire.OUT_HEADER.pack(16 + 100, 0, ends.unique) + bytes(100)
    for part in (whole[:10], whole[10:50], whole[50:]):
        os.write(ends.libfuse, part)
        assert ends.channel.take() is None
    assert ends.answer() == (0, bytes(100))


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), errno.ENOENT),
        (OSError(errno.ENOSYS, "never by accident"), errno.ENOTSUP),
        (CorruptImage("volume", "object 7", "torn"), errno.EIO),
        (KeyError("bug"), errno.EIO),
        (SystemExit(1), errno.EIO),
        (MemoryError(), errno.ENOMEM),
    ],
)
def test_what_is_raised_is_an_errno(ends, fault, number):
    ends.introduce()
    ends.answers.result = fault
    assert ends.ask(wire.GETATTR, GETATTR_IN) is False
    assert ends.answer() == (-number, b"")


def test_an_answer_that_cannot_be_sent_is_an_error(ends):
    ends.introduce()
    ends.answers.result = 5
    assert ends.ask(wire.GETATTR, GETATTR_IN) is False
    assert ends.answer() == (-errno.EIO, b"")


def test_only_what_is_unwanted_is_enosys(ends):
    ends.introduce()
    assert ends.ask(wire.OPEN, bytes(8)) is False
    assert ends.answer() == (-errno.ENOSYS, b"")


async def test_what_is_not_in_memory_is_answered_when_workers_have_brought_it(ends):
    ends.introduce()
    there: list[bytes] = []
    may = threading.Event()

    def load() -> None:
        may.wait(5)
        there.append(b"decoded")

    def cold() -> bytes:
        if not there:
            raise Cold([Load("key", load)])
        return there[0]

    ends.answers.result = cold
    ends.pool.attach(ends.channel.ring)
    ends.pool.start()
    try:
        assert ends.ask(wire.GETATTR, GETATTR_IN) is False
        assert ends.channel.waiting == 1
        ends.kernel.setblocking(False)
        with pytest.raises(BlockingIOError):
            ends.kernel.recv(1)
        threading.Timer(0.05, may.set).start()
        assert ends.channel.sleep(5000)
        ends.channel.settle()
        assert ends.answer() == (0, b"decoded")
        assert ends.channel.waiting == 0
    finally:
        may.set()
        ends.pool.stop()


async def test_a_worker_that_is_done_before_anybody_sleeps_is_not_missed(ends):
    ends.introduce()
    there: list[bytes] = []

    def cold() -> bytes:
        if not there:
            raise Cold([Load("key", lambda: there.append(b"decoded"))])
        return there[0]

    ends.answers.result = cold
    ends.pool.attach(ends.channel.ring)
    ends.pool.start()
    try:
        for _ in range(200):
            there.clear()
            assert ends.ask(wire.GETATTR, GETATTR_IN) is False
            limit = time.monotonic() + 5
            while ends.channel.waiting and time.monotonic() < limit:
                ends.channel.sleep(1000)
                ends.channel.settle()
            assert ends.answer() == (0, b"decoded")
    finally:
        ends.pool.stop()


async def test_what_a_worker_finds_damaged_is_the_requests_error(ends):
    ends.introduce()

    def fail() -> None:
        raise OSError(errno.EIO, "gone")

    def cold() -> bytes:
        if threading.current_thread() is threading.main_thread():
            raise Cold([Load("key", fail)])
        raise OSError(errno.EIO, "gone")

    ends.answers.result = cold
    ends.pool.attach(ends.channel.ring)
    ends.pool.start()
    try:
        assert ends.ask(wire.GETATTR, GETATTR_IN) is False
        limit = time.monotonic() + 5
        while ends.channel.waiting and time.monotonic() < limit:
            ends.channel.sleep(100)
            ends.channel.settle()
        assert ends.answer() == (-errno.EIO, b"")
    finally:
        ends.pool.stop()


def test_a_quick_load_is_run_at_once(ends):
    ends.introduce()
    there: list[bytes] = []

    def read() -> bytes:
        if not there:
            raise Cold([Load("key", lambda: None, lambda: there.append(b"decoded"))])
        return there[0]

    ends.answers.result = read
    assert ends.ask(wire.GETATTR, GETATTR_IN) is False
    assert ends.answer() == (0, b"decoded")


def test_forgetting_needs_no_answer(ends):
    ends.introduce()
    assert ends.ask(wire.FORGET, wire.NUMBER.pack(3), inode=9) is False
    many = wire.COUNT.pack(2, 0) + wire.FORGET_ONE.pack(5, 1) + wire.FORGET_ONE.pack(6, 2)
    assert ends.ask(wire.BATCH_FORGET, many) is False
    assert ends.answers.forgotten == [(9, 3), (5, 1), (6, 2)]


def test_a_large_write_is_one_request(ends):
    ends.introduce()
    taken: list[int] = []

    def write(inode: int, body: memoryview) -> bytes:
        taken.append(len(body))
        return b""

    ends.answers.methods[wire.WRITE] = ("write", write)
    ends.kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
    if ends.kernel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 3 << 16:
        pytest.skip("the system's sockets are too small to play the kernel")
    assert ends.ask(wire.WRITE, bytes(100_000)) is False
    assert taken == [100_000]


def test_notices_go_to_the_kernel(ends):
    ends.channel.invalidate_entry(3, b"name")
    assert ends.kernel.recv(100) == wire.inval_entry(3, b"name")
    ends.channel.invalidate_inode(3)
    assert ends.kernel.recv(100) == wire.inval_inode(3)


def test_in_the_end_libfuse_has_its_own_descriptor_back(ends):
    ends.introduce()
    ends.channel.end()
    ends.kernel.send(b"straight")
    assert os.read(ends.libfuse, 100) == b"straight"
