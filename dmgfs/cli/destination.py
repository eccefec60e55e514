"""The destination of a verb: the file that it writes. It is none of those that the verb reads, nor one that a live mount
needs.

Rules that hold here:
- files are told apart by device and inode, so a link is the file that it leads to; what lies in a folder that is read (a
  bundle, a tree) is read, too;
- --force does not help: it is for an older destination;
- no daemon is asked, for it may hang: a shadow in use is locked, and the kernel's list of mounts names the images.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmgfs.image import Image


def require_apart(destination: str, inputs: Iterable[str | Path]) -> None:
    """FileExistsError about `destination` if it is one of the `inputs`, lies in one, or is in use. Inputs that are not
    there are the verb's business."""
    for path in inputs:
        if _is_in(destination, path):
            raise _refused(destination, f"it is an input, or lies in one ({path})")
    if os.path.isfile(destination):
        _require_unused(destination)


def files_of(image: "Image") -> Iterator[Path]:
    """All that the image, and the images around it, consist of."""
    here: Image | None = image
    while here is not None:
        yield from here.container.files
        here = here.outer


def _refused(destination: str, why: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, f"{why}; name another file", destination)


def _is_in(destination: str, path: str | Path) -> bool:
    try:
        there = os.stat(path)
        if stat.S_ISDIR(there.st_mode):
            return any(os.path.samestat(there, folder) for folder in _folders_of(destination))
        return os.path.samestat(there, os.stat(destination))
    except OSError:
        return False


def _folders_of(destination: str) -> Iterator[os.stat_result]:
    """Those that the name lies in, and those that the file does if the name is a link."""
    for path in (os.path.abspath(destination), os.path.realpath(destination)):
        folder = os.path.realpath(os.path.dirname(path))
        while True:
            yield os.stat(folder)
            if folder == os.path.dirname(folder):
                break
            folder = os.path.dirname(folder)


def _require_unused(destination: str) -> None:
    from dmgfs.fuse.mountpoint import FSTYPE, mounts

    if _is_locked(destination):
        raise _refused(destination, "somebody has it open, as a shadow or a layer of one")
    ours = [mount for mount in mounts() if mount.fstype == FSTYPE]
    for mount in ours:
        image = mount.source if os.path.exists(mount.source) else mount.source.partition("//")[0]
        if os.path.isabs(image) and _is_in(destination, image):
            raise _refused(destination, f"it is the image that is mounted on {mount.path}")


def _is_locked(path: str) -> bool:
    """Whether somebody holds the lock of `overlay.disk`. What cannot be opened or locked is taken for free."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # this file system has no such locks
    finally:
        os.close(file)
    return False
