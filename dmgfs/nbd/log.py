"""Lines of a server without a terminal: what nbdkit and we write to standard error goes to syslog or a file.

Rules that hold here:
- a client that reads a damaged place again and again fills no log: a line that was seen within the last minute is dropped;
- a log that cannot be written loses lines; it neither waits nor fails.
"""

import os
import re
import syslog
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_MINUTE = 60.0
_REMEMBERED = 256
_LONGEST = 4096
_CONNECTION = re.compile(r"\.\d+: ")


class Repeats:
    """Which lines are new. The number that nbdkit gives a connection makes no line a new one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()

    def is_news(self, line: str) -> bool:
        now = self._clock()
        key = _CONNECTION.sub(": ", line, count=1)
        last = self._seen.get(key)
        if last is not None and now - last < _MINUTE:
            return False
        self._seen[key] = now
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True


def redirect(target: str) -> None:
    """From now on descriptor 2 leads to `target`: "stderr" (where it leads already), "syslog", "none" or a path, absolute.
    Raises OSError."""
    if target == "stderr":
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if target == "none":
        os.dup2(null, 2)
    else:
        put = _to_syslog() if target == "syslog" else _to_file(target)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        threading.Thread(target=_forward, args=(reading, put), name="log", daemon=True).start()
    os.close(null)


def _to_syslog() -> Callable[[str], object]:
    syslog.openlog("dmgfs", syslog.LOG_PID, syslog.LOG_DAEMON)
    return lambda line: syslog.syslog(syslog.LOG_WARNING, line)


def _to_file(path: str) -> Callable[[str], object]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return lambda line: os.write(
        descriptor, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode("utf-8", "surrogateescape")
    )


def _forward(reading: int, put: Callable[[str], object]) -> None:
    repeats = Repeats()
    rest = b""
    while data := os.read(reading, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], b""
        for line in lines:
            text = line[:_LONGEST].decode("utf-8", "surrogateescape").strip()
            if text and repeats.is_news(text):
                try:
                    put(text)
                except (OSError, ValueError):
                    continue
