"""Unix sockets in a directory that is about to be covered. Whoever connects by path finds the socket of the file system
that the path leads to, so a socket under a RAM disk cannot be reached any more, and neither can one that shows through a
union: the kernel takes it for another object. Hence launchctl's "Socket is not connected" when /var/run is covered.

Rules that hold here:
- only sockets that somebody has bound count (the kernel's list of them); a file that nobody listens on is no loss;
- a socket is kept reachable by a bind mount of itself over its name in the RAM disk; it is opened before that is mounted.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dmgfs.fuse import mountpoint

MOST_LOOKED_AT = 20_000
MS_BIND = 4096


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket. path: below the directory. descriptor: of its inode (O_PATH)."""

    path: str
    descriptor: int


def bound_below(directory: str) -> list[Bound]:
    """The sockets below the (resolved) directory that are in use, opened. Raises OSError(EOVERFLOW) for a directory too
    large to be looked through."""
    names = {os.path.basename(name) for name in _in_use()}
    if not names:
        return []
    found = []
    for path in _sockets(directory):
        if os.path.basename(path) in names:
            try:
                descriptor = os.open(os.path.join(directory, path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue  # gone meanwhile
            found.append(Bound(path, descriptor))
    return found


def _in_use() -> Iterator[str]:
    """Paths of bound sockets as whoever bound them wrote them: absolute or not, in any namespace."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as lines:
        next(lines)
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8 and not fields[7].startswith("@"):
                yield fields[7]


def _sockets(directory: str) -> Iterator[str]:
    """Socket files, on the directory's own file system."""
    device = os.stat(directory).st_dev
    waiting = [""]
    seen = 0
    while waiting:
        here = waiting.pop()
        try:
            entries = list(os.scandir(os.path.join(directory, here)))
        except OSError:
            continue
        for entry in entries:
            seen += 1
            if seen > MOST_LOOKED_AT:
                text = f"more than {MOST_LOOKED_AT} objects to look through for sockets; --force covers it unseen"
                raise OSError(errno.EOVERFLOW, text, directory)
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            path = os.path.join(here, entry.name)
            if stat.S_ISSOCK(status.st_mode):
                yield path
            elif stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                waiting.append(path)


def keep(directory: str, sockets: Sequence[Bound]) -> None:
    """Binds them over their names in what covers the directory now, which are made if they are not there. Raises OSError
    with none bound."""
    done: list[str] = []
    try:
        for socket in sockets:
            place = os.path.join(directory, socket.path)
            if not os.path.lexists(place):
                _make(directory, socket)
            mountpoint.mount(f"/proc/self/fd/{socket.descriptor}", place, None, MS_BIND, "")
            done.append(place)
    except BaseException:
        for place in done:
            mountpoint.unmount(place)
        raise


def _make(directory: str, socket: Bound) -> None:
    """An empty file to be covered by the socket, and the directories to it, readable as a socket's must be."""
    here = directory
    *above, name = socket.path.split("/")
    for part in above:
        here = os.path.join(here, part)
        if not os.path.isdir(here):
            os.mkdir(here, 0o755)
    os.close(os.open(os.path.join(here, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def release(directory: str) -> None:
    """Takes the bound sockets below a RAM disk away, so that it can be unmounted."""
    inside = directory.rstrip("/") + "/"
    for mount in reversed(mountpoint.mounts()):
        if mount.path.startswith(inside) and stat.S_ISSOCK(os.lstat(mount.path).st_mode):
            mountpoint.unmount(mount.path)


def close(sockets: Sequence[Bound]) -> None:
    for socket in sockets:
        os.close(socket.descriptor)
