"""Asking the daemon of a live mount: the client's side of `dmgfs.fuse.control`. Standard library only.

Rule: a mount that is dead or hangs costs a few seconds and ends in one plain line, never in a command that hangs with it.
"""

import errno
import json
import os
import socket
import struct
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dmgfs.fuse import mountpoint

T = TypeVar("T")

ATTRIBUTE = "user.dmgfs.control"
VERSION = 1
SECONDS = 3.0
"""For a mount to tell its socket, and for the daemon to answer a short question."""

_ANSWER_MAX = 128 << 10


class Refused(OSError):
    """The daemon, or the mount, says no; the message is the whole reason."""


def find(path: str) -> mountpoint.Mount | None:
    """The dmgfs mount that `path` is, None if something else or nothing is mounted there."""
    there = mountpoint.mounted_at(mountpoint.resolve(path))
    return there if there is not None and there.fstype == mountpoint.FSTYPE else None


def require(path: str) -> mountpoint.Mount:
    """The same; OSError(ENOENT) that says what is there instead."""
    there = mountpoint.mounted_at(mountpoint.resolve(path))
    if there is None:
        raise OSError(errno.ENOENT, "nothing is mounted there", path)
    if mountpoint.is_over_ours(there):
        raise OSError(
            errno.ENOENT, "mounted with --engine overlayfs: the kernel keeps the changes, nobody can ask", path
        )
    if there.fstype != mountpoint.FSTYPE:
        raise OSError(errno.ENOENT, f"a {there.fstype} is mounted there, no image", path)
    return there


def ask(
    mounted: str, do: str, files: Sequence[int] = (), /, *, seconds: float | None = SECONDS, **arguments: Any
) -> Any:
    """The answer of the daemon that serves the mount on `mounted` (a resolved path). files: passed open. seconds:
    how long the answer may take, None: as long as it lasts. Raises OSError."""
    name = _patiently(lambda: os.getxattr(mounted, ATTRIBUTE), mounted)
    return ask_daemon(name, mounted, do, files, seconds=seconds, **arguments)


def ask_daemon(
    name: bytes, mounted: str, do: str, files: Sequence[int] = (), /, *, seconds: float | None, **arguments: Any
) -> Any:
    """The same by the name of the daemon's socket, which outlives the mount as long as the daemon serves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(SECONDS), 0))
        try:
            connection.connect(b"\0" + name)  # waits its turn, which a socket with Python's timeout does not
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))] if files else []
            connection.sendmsg([json.dumps({"dmgfs": VERSION, "do": do, **arguments}).encode()], rights)
            connection.settimeout(seconds)
            answer = connection.recv(_ANSWER_MAX)
        except (TimeoutError, BlockingIOError):
            raise Refused(errno.ETIMEDOUT, "the daemon does not answer", mounted) from None
        except ConnectionRefusedError:
            text = "the daemon is not reachable from here; is it in another network namespace? nsenter(1) helps"
            raise Refused(errno.ECONNREFUSED, text, mounted) from None
    if not answer:
        raise Refused(errno.ECONNRESET, "the daemon ended before it answered", mounted)
    body = json.loads(answer)
    if "error" in body:
        raise Refused(body["errno"], body["error"], mounted)
    return body["answer"]


def _patiently(call: Callable[[], T], path: str) -> T:
    """`call` in a thread, because a mount whose daemon hangs cannot be asked without hanging, too."""
    answers: list[T] = []
    failures: list[OSError] = []

    def run() -> None:
        try:
            answers.append(call())
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if answers:
        return answers[0]
    if not failures:
        raise Refused(errno.ETIMEDOUT, "the mount does not answer", path)
    number = failures[0].errno or errno.EIO
    texts = {
        errno.ENOTCONN: f"its daemon is dead; `dmgfs unmount {path}` clears the mount away",
        errno.ENODATA: "its daemon is too old to be asked",
        errno.EPERM: "only root and the user of its daemon may ask",
        errno.EACCES: "only root and the user of its daemon may ask",
    }
    raise Refused(number, texts.get(number, os.strerror(number)), path)
