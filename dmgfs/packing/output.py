"""Output: a file that appears under its name when it is complete, or not at all.

Rules that hold here:
- the bytes go to a hidden file beside it, which is synced before it gets the name, and removed when anything goes wrong;
- what stands under the name already is replaced only on demand, and then in one step;
- every OSError names the file that the user asked for, not the hidden one.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from dmgfs.source import Buffer

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Output:
    """A file being written. Use as a context manager; `commit` gives it its name, leaving without that takes it away.

    replace: whether a regular file of that name may go. Raises FileExistsError if not, or if it is something else, and
    OSError. size: where `append` goes on.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        self.path = os.fspath(path)
        self.size = 0
        self._replace = replace
        self._refuse_existing()
        folder = os.path.dirname(self.path)
        self._hidden = os.path.join(folder, f".dmgfs-{secrets.token_hex(8)}.part")
        with self._named():
            self._fd = os.open(self._hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def _refuse_existing(self) -> None:
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode) or not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
            raise FileExistsError(errno.EEXIST, f"{os.strerror(errno.EEXIST)} and is no regular file", self.path)
        if not self._replace:
            raise FileExistsError(errno.EEXIST, f"{os.strerror(errno.EEXIST)}; --force replaces it", self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._hidden)
            except FileNotFoundError:
                pass  # stopped just after it got its name

    def append(self, data: Buffer) -> int:
        """Writes at the end. Returns the offset of the data."""
        at = self.size
        self.write(at, data)
        return at

    def write(self, offset: int, data: Buffer) -> None:
        """Writes anywhere; what was never written is a hole."""
        view = memoryview(data)
        with self._named():
            while view:
                done = os.pwrite(self._fd, view, offset)
                offset += done
                view = view[done:]
        self.size = max(self.size, offset)

    def extend(self, size: int) -> None:
        """Makes the file `size` bytes long, by a hole."""
        with self._named():
            os.ftruncate(self._fd, size)
        self.size = size

    def commit(self) -> None:
        """The file is complete: it gets its name, and both are on the disk when this returns."""
        with self._named():
            os.fsync(self._fd)
            if self._replace:
                os.rename(self._hidden, self.path)
            else:
                self._link()
            os.close(self._fd)
            self._fd = -1
            _sync_folder(os.path.dirname(self.path) or ".")

    def _link(self) -> None:
        """Unlike a rename, this replaces nothing that came meanwhile; not every file system can do it."""
        try:
            os.link(self._hidden, self.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._refuse_existing()
            os.rename(self._hidden, self.path)
        else:
            os.unlink(self._hidden)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = error.strerror or os.strerror(error.errno or errno.EIO)
            raise OSError(error.errno, text, self.path) from error


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders needs it not
            raise
    finally:
        os.close(fd)
