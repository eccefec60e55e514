"""Flags of a mount changed while it stands. Needs root; libfuse's helper cannot.

Made writable, the kernel drops all cached names that nobody uses on the way, which is why a late shadow relies on it
(`verbs.settle`).
"""

import ctypes
import os
from collections.abc import Iterable

MS_REMOUNT = 32
_FLAGS = {
    "ro": 1,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 16,
    "nosymfollow": 256,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
}
_WITHOUT = {
    "rw": ("ro",),
    "suid": ("nosuid",),
    "dev": ("nodev",),
    "exec": ("noexec",),
    "async": ("sync",),
    "atime": ("noatime",),
    "diratime": ("nodiratime",),
    "noatime": ("relatime", "strictatime"),
    "relatime": ("noatime", "strictatime"),
    "strictatime": ("noatime", "relatime"),
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


def change(path: str, words: Iterable[str]) -> None:
    """Sets what the -o words say about the mount `path` (absolute, resolved); everything else about it stays, and words
    that have no meaning here are none. Raises OSError."""
    options = set(_options(path)) & _FLAGS.keys()
    for word in words:
        options.difference_update(_WITHOUT.get(word, ()))
        options.update({word} & _FLAGS.keys())
    flags = MS_REMOUNT
    for option in options:
        flags |= _FLAGS[option]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def make_writable(path: str) -> None:
    """Raises OSError."""
    change(path, ["rw"])
