"""Whether a look-up belongs to a rename that only changes how a name is spelled: `mv readme README` on a volume that takes
both for one name.

The kernel looks both names up before it asks for the rename, finds one object behind them, and then does nothing, as POSIX
wants it for two links to one file. It does not say in a look-up what it is for; but whoever renames waits meanwhile inside
the system call, so its number and its arguments stand in /proc. If it is such a rename, the new name is answered to be
absent, and the kernel asks for the rename.

Rules that hold here:
- yes only for rename, renameat and renameat2 (not to exchange) of two spellings in one directory. In doubt no: then nothing
  happens, as before. Nothing depends on a yes being right: `overlay.rename` looks at everything again;
- /proc is opened once, at the start: it may lie in our own mount later;
- no path of the caller is looked up, only compared. Its memory is read in a worker, because it may have to come from us;
- where /proc does not tell (another namespace, another user's process, another processor), the answer is no.
"""

import os
import posixpath
import time
from collections.abc import Callable
from typing import NamedTuple

RENAME_NOREPLACE = 1

PATH_MAX = 4096
AT_FDCWD = -100

# By number: where old directory, old path, new directory, new path and flags stand among the arguments; None: not there.
_RENAME = (None, 0, None, 1, None)
_RENAMEAT = (0, 1, 2, 3, None)
_RENAMEAT2 = (0, 1, 2, 3, 4)

_Places = tuple[int | None, int, int | None, int, int | None]

CALLS: dict[str, dict[int, _Places]] = {
    "x86_64": {82: _RENAME, 264: _RENAMEAT, 316: _RENAMEAT2},
    "aarch64": {38: _RENAMEAT, 276: _RENAMEAT2},
}

PAUSES = [0.00005 * 2**times for times in range(10)]
"""Seconds. The caller has sent its request and is about to fall asleep; before that /proc says "running"."""


class Rename(NamedTuple):
    """The arguments of a system call: descriptors of directories, addresses of paths."""

    old_directory: int
    old: int
    new_directory: int
    new: int


class Respelling:
    """fold: what is equal for two spellings of one name. machine: its kind of processor. proc: a descriptor of /proc."""

    def __init__(
        self, fold: Callable[[bytes], bytes], *, machine: str | None = None, proc: int | None = None
    ) -> None:
        self._fold = fold
        self._calls = CALLS.get(machine or os.uname().machine, {})
        self._proc = _open_proc() if proc is None else proc

    def close(self) -> None:
        if self._proc >= 0:
            os.close(self._proc)
            self._proc = -1

    def may_be(self, thread: int) -> bool:
        """A first look, which costs little: False if the thread surely does something else."""
        return bool(self._calls) and self._proc >= 0 and thread > 0 and self._call(thread) is not False

    def is_target(self, thread: int, name: bytes) -> bool:
        """Whether the thread is renaming another spelling of `name` to `name`. May wait."""
        call = self._call(thread)
        for pause in PAUSES:
            if call is not None:
                break
            time.sleep(pause)
            call = self._call(thread)
        if not isinstance(call, Rename):
            return False
        try:
            old, new = self._text(thread, call.old), self._text(thread, call.new)
            return (
                posixpath.basename(new) == name
                and posixpath.basename(old) != name
                and self._fold(posixpath.basename(old)) == self._fold(name)
                and self._is_last_only(name, old, new)
                and self._folder(thread, call.old_directory, old) == self._folder(thread, call.new_directory, new)
            )
        except (OSError, ValueError, OverflowError):
            return False

    def _is_last_only(self, name: bytes, *paths: bytes) -> bool:
        """On the way through a directory of that name, that one may be looked up."""
        folded = self._fold(name)
        return not any(self._fold(part) == folded for path in paths for part in posixpath.dirname(path).split(b"/"))

    def _call(self, thread: int) -> "Rename | bool | None":
        """The rename that the thread is in; False: something else; None: it runs still."""
        try:
            words = self._read(b"%d/syscall" % thread, 256).split()
            if words[:1] == [b"running"]:
                return None
            places = self._calls.get(int(words[0]))
            if places is None:
                return False
            values = [int(word, 16) for word in words[1:7]]
        except (OSError, ValueError, IndexError):
            return False
        if len(values) < 6:
            return False
        old_directory, old, new_directory, new, flags = places
        if flags is not None and values[flags] & 0xFFFFFFFF & ~RENAME_NOREPLACE:
            return False
        return Rename(
            AT_FDCWD if old_directory is None else _signed(values[old_directory]),
            values[old],
            AT_FDCWD if new_directory is None else _signed(values[new_directory]),
            values[new],
        )

    def _text(self, thread: int, address: int) -> bytes:
        text, end, _ = self._read(b"%d/mem" % thread, PATH_MAX, address).partition(b"\0")
        if not end:
            raise ValueError
        return text.rstrip(b"/")  # allowed after directories

    def _folder(self, thread: int, descriptor: int, path: bytes) -> bytes:
        """The directory in which the last part of the path is, as text."""
        if path.startswith(b"/"):
            start = b"root"
        else:
            start = b"cwd" if descriptor == AT_FDCWD else b"fd/%d" % descriptor
        above = os.readlink(b"%d/%s" % (thread, start), dir_fd=self._proc)
        return posixpath.normpath(above + b"/" + posixpath.dirname(path))

    def _read(self, path: bytes, size: int, offset: int = 0) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)


def _open_proc() -> int:
    try:
        return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _signed(value: int) -> int:
    """An int as it stands in a register."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
