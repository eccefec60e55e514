"""The way of the requests: from the kernel's device to `direct`, or on to libfuse and pyfuse3 through a socket that stands
in for the device, and the answers back.

libfuse reads its requests from a descriptor that is a socket of ours once the mount is made. A request that `direct` knows
never gets there; any other is put into the socket as it came, at once read by libfuse, and its answer goes the other way.

Rules that hold here:
- one request at a time is in the socket, so that libfuse reads whole ones; answers are taken apart by their length;
- whatever `direct` raises becomes an errno by the same boundary as everywhere; a request is answered exactly once;
- when the mount is gone libfuse gets its own descriptor back, and finds that out itself;
- the kernel is told at the first request (INIT) what libfuse would not tell: that it may keep where symbolic links
  lead, and, where nothing can change, that it opens without asking. Then truncating at open has to be a request of its own.
"""

import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Any

from dmgfs.fuse import wire
from dmgfs.fuse.direct import Answer, Unwanted
from dmgfs.fuse.driver import Driver, Held, Outcome, Pursuit

if TYPE_CHECKING:
    from dmgfs.fuse.boundary import Boundary
    from dmgfs.fuse.direct import Direct, Method

LARGEST = (1 << 20) + (64 << 10)
"""Bytes of the largest request: a write of 1 MiB with its header, and to spare."""

MOST_BACKGROUND = 64
CONGESTED = 48
"""Requests of the kernel's own accord (reading ahead) under way at once. libfuse asks for 12."""

_ROOM = 1 << 18

_HEADER = wire.IN_HEADER.size


class Channel:
    """For one mount. waiting: requests that wait for workers."""

    def __init__(self, direct: "Direct", driver: Driver, boundary: "Boundary") -> None:
        self._direct = direct
        self._driver = driver
        self._boundary = boundary
        self._kernel = -1
        self._descriptor = -1
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(LARGEST))
        self._vector = [self._buffer]
        self._owed = 0  # answers that libfuse has not given yet
        self._part = b""  # of an answer
        self._init: tuple[int, int] | None = None  # unique and flags of INIT, until it is answered
        self._methods: dict[int, tuple[str, Method]] = {}  # none before INIT
        self.poll = select.epoll()
        self.waiting = 0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self.poll.register(self._bell, select.EPOLLIN)

    # -- beginning and end -------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        return self._socket is not None

    def begin(self, descriptor: int) -> None:
        """Puts the socket in the place of libfuse's descriptor."""
        self._kernel = os.dup(descriptor)
        os.set_blocking(self._kernel, False)
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        os.dup2(theirs.fileno(), descriptor, inheritable=False)
        theirs.close()
        self._descriptor = descriptor
        self.poll.register(self._kernel, select.EPOLLIN)
        self.poll.register(self._socket, select.EPOLLIN)

    def begin_again(self) -> None:
        """libfuse's loop was ended by a fault: what it still owed, it will not give."""
        if self._socket is not None and self._owed:
            self._pass_on()
            self._owed = 0
            self._part = b""

    def end(self) -> None:
        """Gives libfuse its descriptor back."""
        if self._socket is not None:
            os.dup2(self._kernel, self._descriptor, inheritable=False)
            self._socket.close()
            self._socket = None

    # -- requests --------------------------------------------------------------------------------------------------------

    def ring(self) -> bool:
        """In a worker: ends `sleep`. False if nobody sleeps."""
        if self._asleep:
            os.eventfd_write(self._bell, 1)
        return self._asleep

    def sleep(self, milliseconds: float) -> bool:
        """Waits for a request or a worker, so long at most. False if neither came."""
        self._asleep = True  # before the look: who hands something back now either is seen or rings
        try:
            found = self.poll.poll(0 if self._driver.pool.landed else milliseconds / 1000)
        finally:
            self._asleep = False
        if any(descriptor == self._bell for descriptor, _ in found):
            os.eventfd_read(self._bell)
        return bool(found or self._driver.pool.landed)

    def settle(self) -> None:
        """Goes on with what workers have brought. To be called after `sleep` and before anybody waits otherwise: the bell
        rings once."""
        if self._driver.pool.landed:
            self._driver.pool.land()

    def take(self) -> bool | None:
        """Reads a request. False: it is answered, or will be when workers have brought what it needs. True: pyfuse3 is to
        read its descriptor. None: there was none."""
        self.settle()
        if self._owed:
            self._pass_on()
        try:
            size = os.readv(self._kernel, self._vector)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (errno.EINTR, errno.ENOENT):
                return False
            self.end()
            return True
        direct = self._direct
        header = wire.IN_HEADER.unpack_from(self._buffer)
        _, opcode, unique, inode, direct.uid, direct.gid, direct.caller, _, _ = header
        known = self._methods.get(opcode)
        if known is not None:
            request, method = known
            try:
                steps = method(inode, self._buffer[_HEADER:size])
                if steps is not None:
                    self._boundary.requests += 1
                    answer = steps if isinstance(steps, bytes) else self._driver.now(steps)
                    if isinstance(answer, Held):
                        self._pursue(request, unique, answer)
                    else:
                        self._answer(unique, answer)
                    return False
            except BaseException as error:
                self._fail(request, unique, error)
                return False
        elif opcode == wire.FORGET:
            self._direct.forget(inode, wire.NUMBER.unpack_from(self._buffer, _HEADER)[0])
            return False
        elif opcode == wire.BATCH_FORGET:
            self._forget_many()
            return False
        elif opcode == wire.INTERRUPT:
            return False  # nothing here can be interrupted
        elif opcode == wire.INIT:
            self._init = unique, wire.INIT_IN.unpack_from(self._buffer, _HEADER)[3]
        self._hand_over(size)
        return True

    def _hand_over(self, size: int) -> None:
        assert self._socket is not None
        self._socket.sendall(self._buffer[:size])
        self._owed += 1

    def _forget_many(self) -> None:
        count, _ = wire.COUNT.unpack_from(self._buffer, _HEADER)
        first = _HEADER + wire.COUNT.size
        for at in range(first, first + count * wire.FORGET_ONE.size, wire.FORGET_ONE.size):
            self._direct.forget(*wire.FORGET_ONE.unpack_from(self._buffer, at))

    def _pursue(self, request: str, unique: int, held: "Held[Answer]") -> None:
        def deliver(outcome: Outcome[Answer]) -> None:
            self.waiting -= 1
            try:
                self._answer(unique, outcome())
            except BaseException as error:
                self._fail(request, unique, error)

        self.waiting += 1
        Pursuit(self._driver, held, deliver).start()

    # -- answers ---------------------------------------------------------------------------------------------------------

    def _answer(self, unique: int, body: Any) -> None:
        head = wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(body), 0, unique)
        try:
            os.writev(self._kernel, (head, body))
        except OSError:
            pass  # nobody waits any more: the request was given up, or the mount is gone

    def _fail(self, request: str, unique: int, error: BaseException) -> None:
        number = errno.ENOSYS if isinstance(error, Unwanted) else self._boundary.errno_of(request, error)
        try:
            os.write(self._kernel, wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -number, unique))
        except OSError:
            pass

    def _pass_on(self) -> None:
        """The answers of libfuse to the kernel."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_ROOM)
        except BlockingIOError:
            return
        if self._part:
            data = self._part + data
        view = memoryview(data)
        while len(view) >= wire.OUT_HEADER.size:
            size, _, unique = wire.OUT_HEADER.unpack_from(view)
            if size > len(view):
                break
            answer: Any = view[:size]
            if self._init is not None and unique == self._init[0]:
                answer = self._introduce(bytearray(answer))
            try:
                os.write(self._kernel, answer)
            except OSError:
                pass
            view = view[size:]
            self._owed -= 1
        self._part = bytes(view)

    def _introduce(self, answer: bytearray) -> bytearray:
        """The answer to INIT with what libfuse leaves out; from now on `direct` answers."""
        assert self._init is not None
        offered = self._init[1]
        self._init = None
        at = wire.OUT_HEADER.size
        if wire.OUT_HEADER.unpack_from(answer)[1] or len(answer) < at + wire.INIT_OUT.size:
            return answer
        major, minor, ahead, flags, _, _ = wire.INIT_OUT.unpack_from(answer, at)
        flags |= offered & wire.CACHE_SYMLINKS
        silent = wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT
        if offered & silent == silent and self._direct.may_open_unasked:
            self._direct.unasked = True
            flags &= ~wire.ATOMIC_O_TRUNC
        wire.INIT_OUT.pack_into(answer, at, major, minor, ahead, flags, MOST_BACKGROUND, CONGESTED)
        self._methods = self._direct.methods
        return answer

    # -- notices ---------------------------------------------------------------------------------------------------------

    def invalidate_inode(self, inode: int) -> None:
        """The kernel forgets attributes and pages. May wait; OSError if it does not know the object."""
        os.write(self._kernel, wire.inval_inode(inode))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """The kernel forgets where a name leads. May wait; OSError if it does not know it."""
        os.write(self._kernel, wire.inval_entry(parent, name))
