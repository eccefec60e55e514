"""A read-only mount made writable for the kernel, once its daemon can take changes. Needs root; libfuse's helper cannot.

The kernel drops all cached names that nobody uses on the way, which is why a late shadow relies on it (`verbs.settle`).
"""

import ctypes
import os

MS_REMOUNT = 32
_FLAGS = {
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "nosymfollow": 256,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}


def _options(path: str) -> list[str]:
    """Those of the visible mount on `path`, of the mount and of its file system."""
    found: list[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split()
            if os.fsencode(fields[4]).decode("unicode_escape").encode("latin-1") == os.fsencode(path):
                found = [*fields[5].split(","), *fields[-1].split(",")]
    return found


def is_read_only(path: str) -> bool:
    """Whether the kernel refuses changes on the mount `path` (absolute, resolved) by itself."""
    return "ro" in _options(path)


def make_writable(path: str) -> None:
    """Everything else about the mount stays. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT
    for option in _options(path):
        flags |= _FLAGS.get(option, 0)
    if libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
