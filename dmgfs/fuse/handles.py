"""Open files and directories as the kernel names them.

Rules that hold here:
- a kernel that was told so opens files and directories without asking (handle 0); then the inode number stands for all who
  have it open, and what is known about it is kept for the most recent ones only;
- numbers are never given twice.
"""

from collections import OrderedDict
from collections.abc import Callable

from dmgfs.fuse.prefetch import Stream
from overlay.vfs import Content

MOST_UNASKED = 256


class OpenFile:
    """What a file handle stands for. content: the lower's bytes, once they were needed."""

    __slots__ = ("content", "ino", "streams")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.streams: list[Stream] = []
        self.content: Content | None = None


class Handles:
    """closed: called for every file that is not remembered any more. leave: called with the overlay's handle of every
    directory that is not."""

    def __init__(self, closed: Callable[[OpenFile], None], leave: Callable[[int], None]) -> None:
        self._closed = closed
        self._leave = leave
        self._files: dict[int, OpenFile] = {}
        self._unasked: OrderedDict[int, OpenFile] = OrderedDict()
        self._listed: OrderedDict[int, int] = OrderedDict()
        self._next = 1

    def __len__(self) -> int:
        return len(self._files)

    def number(self) -> int:
        """A number for a handle."""
        self._next += 1
        return self._next

    def open(self, ino: int) -> int:
        handle = self.number()
        self._files[handle] = OpenFile(ino)
        return handle

    def close(self, handle: int) -> OpenFile:
        file = self._files.pop(handle)
        self._closed(file)
        return file

    def known(self, handle: int, ino: int) -> OpenFile | None:
        """As `file`, if it is remembered."""
        if handle:
            return self._files[handle]
        file = self._unasked.get(ino)
        if file is not None:
            self._unasked.move_to_end(ino)
        return file

    def file(self, handle: int, ino: int) -> OpenFile:
        """The file behind a handle; behind 0, the one of that inode."""
        file = self.known(handle, ino)
        if file is None:
            file = self._unasked[ino] = OpenFile(ino)
            if len(self._unasked) > MOST_UNASKED:
                self._closed(self._unasked.popitem(last=False)[1])
        return file

    def listing(self, ino: int) -> int | None:
        """The overlay's handle for directory `ino`, if one is remembered."""
        handle = self._listed.get(ino)
        if handle is not None:
            self._listed.move_to_end(ino)
        return handle

    def keep_listing(self, ino: int, handle: int) -> None:
        if ino in self._listed:
            self._leave(self._listed.pop(ino))
        self._listed[ino] = handle
        if len(self._listed) > MOST_UNASKED:
            self._leave(self._listed.popitem(last=False)[1])
