"""The daemon's log: standard error in the foreground, syslog or a file in the background, the kernel's log in an initrd.

Rules that hold here:
- everything is opened before the mount is ready and never opened again: a path could lead into our own mount;
- a log that cannot be written loses lines, it neither waits nor fails.
"""

import errno
import logging
import os
import socket
import sys
from typing import Literal

from dmgfs.fuse.hardening import in_initrd
from dmgfs.fuse.mountpoint import FSTYPE

Target = str | Literal["stderr", "syslog", "kmsg", "none"]

SYSLOG = "/dev/log"
KMSG = "/dev/kmsg"
LINE_MAX = 900
"""Bytes that the kernel takes at a time."""

_DAEMON = 3 << 3
_NOBODY_WAITS = f"fuse_reply_* failed with {os.strerror(errno.ENOENT)}"
_SEVERITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


class Syslog(logging.Handler):
    """Datagrams to the local syslog. Raises OSError when made, if there is none."""

    def __init__(self) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(SYSLOG)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        severity = next(code for level, code in _SEVERITY if record.levelno >= level)
        for line in self.format(record).splitlines():
            try:
                self._socket.send(f"<{_DAEMON | severity}>dmgfs[{record.process}]: {line}".encode("utf-8", "replace"))
            except OSError:
                return


class Kmsg(logging.Handler):
    """Lines in the kernel's log, which is there before any other and outlives /dev. Raises OSError when made."""

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.open(KMSG, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        severity = next(code for level, code in _SEVERITY if record.levelno >= level)
        for line in self.format(record).splitlines():
            try:
                packet = f"<{_DAEMON | severity}>dmgfs[{record.process}]: {line}".encode("utf-8", "replace")
                os.write(self._descriptor, packet[: LINE_MAX - 1] + b"\n")
            except OSError:
                return

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


def open_log(target: Target | None, *, foreground: bool) -> None:
    """Sends all logging to `target` ("stderr", "syslog", "kmsg", "none" or a path); None: what fits. Raises OSError."""
    handler: logging.Handler
    if target is None:
        target = "stderr" if foreground else "kmsg" if in_initrd() else "syslog"
        try:
            handler = _handler(target)
        except OSError:
            handler = logging.NullHandler()  # no syslog here, and nobody asked for one
    else:
        handler = _handler(target)
    handler.addFilter(_is_news)
    stamp = "" if isinstance(handler, (Syslog, Kmsg)) else "%(asctime)s "
    handler.setFormatter(logging.Formatter(f"{stamp}%(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False
    logging.getLogger(FSTYPE).debug("log opened")  # the first record imports what formatting needs


def _is_news(record: logging.LogRecord) -> bool:
    """pyfuse3 calls it an error when nobody waits for an answer any more: of those who read while the mount was taken away
    under them. Nothing is wrong then."""
    return not (record.name.startswith("pyfuse3") and record.getMessage().endswith(_NOBODY_WAITS))


def _handler(target: Target) -> logging.Handler:
    if target == "stderr":
        return logging.StreamHandler(sys.stderr)
    if target == "syslog":
        return Syslog()
    if target == "kmsg":
        return Kmsg()
    if target == "none":
        return logging.NullHandler()
    return logging.FileHandler(target, encoding="utf-8", errors="backslashreplace")
