"""ResidentFile: a file that moves into memory while it is read, and is let go of once all of it is there (`--toram`).

Rules that hold here:
- what is stored is taken, not what it decodes to: a compressed image takes as much memory as it takes on its disk;
- the beginning, up to `copied`, is read from memory, the rest from the file; no read waits for the copy;
- the file is closed when its last byte is in memory and the last reader has left it, so its number cannot be taken by
  another file under a reader's hands. After that its file system can be unmounted;
- the copy leaves nothing in the page cache, or the image would be in memory twice.
"""

import errno
import mmap
import os
import threading
from collections.abc import Sequence

from dmgfs.source import Buffer, FileSource, Load, check_range

STEP = 1 << 20
"""Bytes copied at a time."""

MANNERS = 0.05
"""Seconds that a step waits at most while somebody reads the file."""


class ResidentFile(FileSource):
    """As FileSource until `reserve`; then each `step` takes more of it into memory. copied: bytes from the start."""

    def __init__(self, path: str | os.PathLike[str], *, dir_fd: int | None = None, follow: bool = True) -> None:
        super().__init__(path, dir_fd=dir_fd, follow=follow)
        self.copied = 0
        self._memory = memoryview(b"")
        self._view = self._memory
        self._readers = 0
        self._quiet = threading.Condition()

    @property
    def complete(self) -> bool:
        """All in memory, and the file closed."""
        return self.copied == self.size and self._fd < 0

    def reserve(self) -> None:
        """Sets aside the address space; the memory is taken as it is filled. Raises MemoryError."""
        try:
            memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError):
            raise MemoryError(f"{self.path}: no room for {self.size} bytes in memory") from None
        self._memory = memoryview(memory)
        self._view = self._memory.toreadonly()

    def step(self) -> bool:
        """Copies the next piece. False when there is nothing left to do: the file is closed. For one thread at a time,
        after `reserve`. Raises OSError where the disk fails; what was copied remains, the rest is read from the file."""
        if self.copied < self.size:
            with self._quiet:
                self._quiet.wait_for(lambda: not self._readers, MANNERS)
            end = min(self.copied + STEP, self.size)
            self._fill(self.copied, end)
            self.copied = end
            return True
        with self._quiet:
            self._quiet.wait_for(lambda: not self._readers)
            self.close()
        return False

    def _fill(self, at: int, end: int) -> None:
        start = at
        while at < end:
            done = os.preadv(self._fd, [self._memory[at:end]], at)
            if not done:
                raise OSError(errno.EIO, f"{self.path}: the file became shorter while it was in use")
            at += done
        try:
            os.posix_fadvise(self._fd, start, end - start, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # only advice

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "file")
        if offset + length <= self.copied:
            return self._view[offset : offset + length]
        with self._quiet:
            if offset + length <= self.copied:  # now it counts: the file is closed under this lock
                return self._view[offset : offset + length]
            self._readers += 1
        try:
            return super().read(offset, length)
        finally:
            with self._quiet:
                self._readers -= 1
                if not self._readers:
                    self._quiet.notify_all()

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0 or offset + length <= self.copied or not self._nowait:
            return ()
        return (Load(("file", id(self), offset, length), lambda: self.read(offset, length)),)
