"""A temporary file without a name, for what is made before it is read: it is gone when nobody holds it any more, however
the program ends.

Rule: what was never written is zeros, and takes no room.
"""

import os
import tempfile
from collections.abc import Sequence

from dmgfs.source import Buffer, Load, check_range


class Scratch:
    """A ByteSource that can be written. size: bytes."""

    def __init__(self) -> None:
        self._fd, path = tempfile.mkstemp(prefix="dmgfs-")
        os.unlink(path)
        self.size = 0

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            offset += done
            view = view[done:]
        self.size = max(self.size, offset)

    def append(self, data: Buffer) -> int:
        """Returns the offset of the data."""
        at = self.size
        self.write(at, data)
        return at

    def extend(self, size: int) -> None:
        """Makes the file `size` bytes long, by a hole."""
        os.ftruncate(self._fd, size)
        self.size = size

    def read(self, offset: int, length: int) -> Buffer:
        check_range(self, offset, length, "temporary file")
        data = os.pread(self._fd, length, offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(5, "a temporary file became shorter")
            data += more
        return data

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return ()

    def __del__(self) -> None:
        os.close(self._fd)
