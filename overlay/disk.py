"""The file under a store on disk: exact positional reads and writes, nothing of formats. Tests put a disk in its place that
loses power.

Rules that hold here:
- a write is whole or raises; what was written in part counts as not written by everybody above;
- no data is trusted to be on the medium before `sync` has returned;
- the file is locked for as long as it is open (flock: shared by readers, exclusive for a writer) and never followed
  through a symbolic link.
"""

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Protocol

from overlay.errors import NotAShadow, ShadowInUse
from overlay.vfs import Buffer

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_FALLOCATE = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
"""Linux's; Python has posix_fallocate only."""
if _FALLOCATE is not None:
    _FALLOCATE.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Disk(Protocol):
    """Offsets and sizes in bytes. path: what it is called."""

    path: str

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; OSError(EIO) where there are fewer."""
        ...

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """The same without waiting for the medium; None if that would be needed."""
        ...

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        """All parts one after the other. On an error anything may have been written."""
        ...

    def grow(self, size: int) -> None:
        """Reserves room on the medium up to `size`. OSError(ENOSPC) if there is none."""
        ...

    def shrink(self, size: int) -> None:
        """Gives everything behind `size` back."""
        ...

    def room(self) -> int:
        """How much the file could grow."""
        ...

    def allocated(self) -> int:
        """How much of the medium the file takes."""
        ...

    def punch(self, offset: int, length: int) -> None:
        """Gives the room of these bytes, which nobody wants, back to the medium, where that can be done."""
        ...

    def secure(self, offset: int, length: int) -> None:
        """There is room on the medium for these bytes of the file, from now on. OSError(ENOSPC) if not."""
        ...

    def sync(self) -> None:
        """Everything written so far survives a power cut. May be called in another thread."""
        ...

    def close(self) -> None: ...


class FileDisk:
    """A regular file, made with mode 0600 if `create` and there is none."""

    _NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

    @classmethod
    def of(cls, descriptor: int, path: str) -> "FileDisk":
        """A file that is open for reading and writing already. It is ours from now on, and closed if this raises."""
        disk = cls.__new__(cls)
        disk.path = path
        disk._fd = descriptor
        disk._take(fcntl.LOCK_EX)
        return disk

    def __init__(self, path: str | os.PathLike[str], *, create: bool, read_only: bool) -> None:
        self.path = os.fspath(path)
        flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._fd = os.open(self.path, flags)
        except FileNotFoundError:
            if not create or read_only:
                raise
            self._fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            self._sync_directory()
        self._take(fcntl.LOCK_SH if read_only else fcntl.LOCK_EX)

    def _take(self, lock: int) -> None:
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotAShadow("not a regular file")
            try:
                fcntl.flock(self._fd, lock | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShadowInUse("another process is using it") from None
        except BaseException:
            os.close(self._fd)
            raise
        self._size = os.fstat(self._fd).st_size
        self._nowait = bool(self._NOWAIT)

    def _sync_directory(self) -> None:
        directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, f"the shadow file ends at {offset + len(data)}, inside of data")
            data += more
        return data

    def read_now(self, offset: int, length: int) -> Buffer | None:
        if self._nowait:
            buffer = bytearray(length)
            try:
                if os.preadv(self._fd, [buffer], offset, self._NOWAIT) == length:
                    return buffer
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                self._nowait = False  # a file system that cannot tell: read as if everything were in memory
                return self.read(offset, length)
            return None
        return self.read(offset, length)

    def write(self, offset: int, parts: Sequence[Buffer]) -> None:
        total = sum(map(len, parts))
        done = os.pwritev(self._fd, parts, offset)
        if done < total:
            rest = memoryview(b"".join(parts))[done:]
            while rest:
                count = os.pwrite(self._fd, rest, offset + total - len(rest))
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                rest = rest[count:]
        self._size = max(self._size, offset + total)

    def grow(self, size: int) -> None:
        if size > self._size:
            os.posix_fallocate(self._fd, self._size, size - self._size)
            self._size = size

    def shrink(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = size

    def room(self) -> int:
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def allocated(self) -> int:
        return os.fstat(self._fd).st_blocks * 512

    def punch(self, offset: int, length: int) -> None:
        if _FALLOCATE is not None and _FALLOCATE(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
            number = ctypes.get_errno()
            if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(number, os.strerror(number))

    def secure(self, offset: int, length: int) -> None:
        os.posix_fallocate(self._fd, offset, length)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
