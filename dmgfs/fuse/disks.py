"""Disks by the names that a boot loader gives them: found, waited for, mounted.

Rules that hold here:
- a disk that is late is waited for with a limit; what udev calls it is looked up in /dev/disk, so LABEL= and the like need
  udev, /dev/NAME does not;
- the file system's type is found by trying, those first that the kernel has; mount(2) loads the others as modules.
Standard library only.
"""

import ctypes
import errno
import os
import re
import time
from collections.abc import Iterator

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
POLL_SECONDS = 0.1
USUAL = ("ext4", "vfat", "exfat", "iso9660", "udf", "xfs", "btrfs", "f2fs", "ntfs3", "hfsplus", "squashfs")

_LINKS = {"LABEL": "by-label", "UUID": "by-uuid", "PARTLABEL": "by-partlabel", "PARTUUID": "by-partuuid"}
_ESCAPED = re.compile(r"[^0-9A-Za-z#+\-.:=@_\u0080-\U0010ffff]")
"""What udev does not leave as it is in a name."""


def device_path(disk: str) -> str:
    """/dev/NAME, or where udev puts LABEL=… and the like."""
    key, equals, value = disk.partition("=")
    if not equals or key not in _LINKS:
        return disk
    escaped = _ESCAPED.sub(lambda match: "".join(f"\\x{byte:02x}" for byte in os.fsencode(match[0])), value)
    return f"/dev/disk/{_LINKS[key]}/{escaped}"


def await_path(path: str, seconds: float) -> None:
    """Waits until `path` is there. Raises OSError(ENOENT)."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() >= end:
            late = f"; waited {seconds:g} s" if seconds else ""
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT) + late, path)
        time.sleep(POLL_SECONDS)


def mount_disk(device: str, folder: str, *, writable: bool) -> str:
    """Mounts the file system on `device`; returns its type. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (0 if writable else MS_RDONLY)
    for kind in _types():
        words = (os.fsencode(device), os.fsencode(folder), kind.encode())
        if libc.mount(*words, ctypes.c_ulong(flags), None) == 0:
            return kind
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENODEV, errno.EUCLEAN, errno.EBADMSG):
            raise OSError(number, f"mounting it as {kind}: {os.strerror(number)}", device)
    raise OSError(errno.EINVAL, "no file system on it that this kernel can mount", device)


def _types() -> Iterator[str]:
    known = []
    try:
        with open("/proc/filesystems", encoding="ascii") as lines:
            known = [line.strip() for line in lines if not line.startswith("nodev")]
    except OSError:
        pass
    yield from known
    yield from (kind for kind in USUAL if kind not in known)
