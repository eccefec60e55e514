"""Directories that are or become mount points: what the kernel says is mounted, what is refused, and how a mount is taken
away. Standard library only: `dmgfs unmount` must not pay for trio.

Rule: nothing here touches a path below a dmgfs mount (its daemon may be the caller, or dead); what is mounted is read
from /proc.
"""

import ctypes
import errno
import fcntl
import os
import re
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

FSTYPE = "fuse.dmgfs"
OVERLAY = "overlay"
RAM_DISK = "dmgfs-ramdisk"
"""Source of a RAM disk, whoever serves it."""
_SCAFFOLD = "dmgfs-overlay"
_BELOW = re.compile(rf"lowerdir=(?:[^,]*/)?{_SCAFFOLD}\.(\d+)\.(\d+)\.[^/,]*/lower(?:,|\Z)")

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8


class Mount(NamedTuple):
    """One line of mountinfo. device: "major:minor". options: of the file system, as they stand there."""

    device: str
    path: str
    fstype: str
    source: str
    options: str


def mounts() -> list[Mount]:
    """What is mounted in our namespace, in order: of several on one path the last is the visible one."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ")
            tail = fields.index("-")
            source, options = _plain(fields[tail + 2]), _plain(fields[-1].rstrip("\n"))
            found.append(Mount(fields[2], _plain(fields[4]), fields[tail + 1], source, options))
    return found


def _plain(field: str) -> str:
    """Undoes the kernel's \\040 for a space, byte by byte."""
    if "\\" not in field:
        return field
    raw = os.fsencode(field)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))


def mounted_at(path: str) -> Mount | None:
    """The visible mount on exactly this (absolute, resolved) path."""
    here = [mount for mount in mounts() if mount.path == path]
    return here[-1] if here else None


def device_of(path: str) -> str:
    """ "major:minor" of the visible mount on `path`, "" if there is none."""
    there = mounted_at(path)
    return there.device if there is not None else ""


def scaffold_name(process: int) -> str:
    """How the folder begins in which `process` builds a kernel's overlay over dmgfs: it says who serves below, and stays
    readable in the overlay's options when the folder is long gone."""
    return f"{_SCAFFOLD}.{process}.{_start_time(process)}."


def is_ours(there: Mount) -> bool:
    """Whether dmgfs made this mount: itself, the kernel's overlay over it, or a RAM disk."""
    return there.fstype == FSTYPE or is_over_ours(there) or there.source == RAM_DISK


def is_over_ours(there: Mount) -> bool:
    return there.fstype == OVERLAY and _BELOW.search(there.options) is not None


def daemon_below(there: Mount) -> int | None:
    """A descriptor of the process that serves below this overlay of ours (`os.pidfd_open`); None if it has ended."""
    match = _BELOW.search(there.options)
    if match is None:
        return None
    try:
        descriptor = os.pidfd_open(int(match[1]))
    except OSError:
        return None
    if _start_time(int(match[1])) != int(match[2]):
        os.close(descriptor)  # a later process of the same number
        return None
    return descriptor


def _start_time(process: int) -> int:
    """When a process began, in ticks since the machine did; -1 if there is none of this number."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as status:
            return int(status.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def leads_here() -> bool:
    """Whether a mount, wherever it is seen, leads to this process. Where /proc is missing: yes."""
    try:
        own = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return True
    poll = select.poll()
    for descriptor in own:
        try:
            if os.readlink(f"/proc/self/fd/{descriptor}") == "/dev/fuse":
                poll.register(descriptor, 0)
        except OSError:
            continue  # it was the directory's
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def resolve(mountpoint: str) -> str:
    """The absolute path without links, found without looking at the mount point itself, which may be a dead mount."""
    absolute = os.path.abspath(mountpoint)
    parent, name = os.path.split(absolute)
    path = os.path.join(os.path.realpath(parent), name) if name else absolute
    if mounted_at(path) is None and os.path.islink(path):
        path = os.path.realpath(path)
    return path


def check(mountpoint: str, *kept_visible: str) -> str:
    """The resolved mount point, if something can be mounted there. kept_visible: files that must not vanish below it.

    Raises OSError: ENOENT, ENOTDIR, EBUSY (a dmgfs is mounted there already, or a file of `kept_visible` lies inside).
    A directory that is not empty is allowed, as mount(8) allows it: that is how roots are made.
    """
    path = resolve(mountpoint)
    _refuse_taken(path, mountpoint)
    if not os.path.isdir(path):
        os.stat(path)
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), mountpoint)
    for file in kept_visible:
        if os.path.realpath(file).startswith(path.rstrip("/") + "/"):
            raise OSError(errno.EBUSY, f"{file} lies in it and would be hidden; choose another directory", mountpoint)
    return path


def mount(source: str, place: str, kind: str | None, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if text is None else os.fsencode(text) for text in (source, place, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options) or None) != 0:
        number = ctypes.get_errno()
        what = f"mounting {kind}: {os.strerror(number)}" if kind else os.strerror(number)
        raise OSError(number, what, place)


@contextmanager
def claim(path: str, mountpoint: str) -> Iterator[Callable[[], None]]:
    """Nobody else of us mounts on `path` meanwhile: until the block ends here and in every process forked within, or what
    is yielded is called. Raises OSError(EBUSY) if somebody does, or has just done."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        descriptor = -1  # a directory that may not be read can be mounted on, and not be locked

    def release() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except OSError:
                pass
            os.close(descriptor)
            descriptor = -1

    try:
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = "another dmgfs is mounting there at this moment"
                raise OSError(errno.EBUSY, text, mountpoint) from None
            except OSError:
                pass  # a file system without locks
            _refuse_taken(path, mountpoint)
        yield release
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _refuse_taken(path: str, mountpoint: str) -> None:
    there = mounted_at(path)
    if there is not None and is_ours(there):
        raise OSError(
            errno.EBUSY, f"{there.source} is mounted there already; `dmgfs unmount {mountpoint}` first", path
        )


def unmount(path: str, *, lazy: bool = False) -> None:
    """Takes away the visible mount on `path`. lazy: at once out of sight, gone when nobody uses it.

    Raises OSError: EBUSY, EINVAL (nothing is mounted there), EPERM.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    if libc.umount2(os.fsencode(path), flags) == 0:
        return
    number = ctypes.get_errno()
    if number != errno.EPERM or (helper := shutil.which("fusermount3")) is None:
        raise OSError(number, os.strerror(number), path)
    words = [helper, "-u", *(["-z"] if lazy else []), "--", path]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        why = os.fsdecode(done.stderr).strip().splitlines()[-1:] or ["fusermount3 failed"]
        busy = "busy" in why[0].lower()
        raise OSError(errno.EBUSY if busy else errno.EPERM, why[0], path)


class Holder(NamedTuple):
    """Who keeps a mount busy: a process and what it has there, or (pid 0) another mount."""

    pid: int
    name: str
    what: str


def holders(path: str) -> Iterator[Holder]:
    """Who uses the mount on `path`, as far as we may see. Nothing is looked at below the mount."""
    inside = path.rstrip("/") + "/"
    for mount in mounts():
        if mount.path.startswith(inside):
            yield Holder(0, "mount", f"{mount.fstype} on {mount.path}")
    for device, file in _loop_devices():
        if file.startswith(inside):
            yield Holder(0, "loop device", f"{device} of {file}")
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        for what in _used_by(pid, path, inside):
            yield Holder(pid, _command(pid), what)
            break


def _loop_devices() -> Iterator[tuple[str, str]]:
    """(device, file behind it)."""
    for name in sorted(os.listdir("/sys/block")) if os.path.isdir("/sys/block") else ():
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                yield f"/dev/{name}", file.read().rstrip("\n")
        except OSError:
            continue  # no loop device, or one without a file


def _used_by(pid: int, path: str, inside: str) -> Iterator[str]:
    base = f"/proc/{pid}"
    links = [("working directory", "cwd"), ("root directory", "root"), ("program", "exe")]
    try:
        links += [("open", f"fd/{fd}") for fd in os.listdir(f"{base}/fd")]
    except OSError:
        pass  # another user's, or gone
    for label, link in links:
        try:
            target = os.readlink(f"{base}/{link}")
        except OSError:
            continue
        if target == path or target.startswith(inside):
            yield f"{label} {target}"
    try:
        with open(f"{base}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                if inside in line:
                    yield f"mapped {line[line.index(inside) :].rstrip()}"
    except OSError:
        pass


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "?"
