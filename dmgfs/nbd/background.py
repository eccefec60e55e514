"""The start of the server: in the foreground this process becomes it; in the background a child does, and the command
ends when clients are served.

Rules that hold here:
- the child speaks to the terminal until clients are served, so what nbdkit complains about is seen;
- what was made (a socket) is removed when it comes to nothing.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from dmgfs.nbd.program import moved, replace_by
from dmgfs.nbd.settings import Settings, hand_over

OS_ERROR = 71
_READY = b"R"


def start(
    program: str, options: Sequence[str], listening: int, settings: Settings, uri: str, *, foreground: bool
) -> int:
    """The exit code of the command; `uri` goes to standard output once clients can connect. Does not return in the
    foreground. Raises OSError."""
    if foreground:
        print(uri, flush=True)
        replace_by(program, options, limit=settings.limit, socket=listening, settings=hand_over(settings))
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            settings = replace(settings, ready=moved(writing))
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.chdir("/")
            replace_by(program, options, limit=settings.limit, socket=listening, settings=hand_over(settings))
        finally:
            os._exit(OS_ERROR)
    os.close(writing)
    os.close(listening)
    code = _wait(child, reading)
    if code == 0:
        print(uri, flush=True)
    elif settings.socket:
        os.unlink(settings.socket)
    return code


def _wait(child: int, reading: int) -> int:
    try:
        if os.read(reading, 1) == _READY:
            return 0
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        return 130
    why = f" (ended by {signal.Signals(os.WTERMSIG(status)).name})" if os.WIFSIGNALED(status) else ""
    os.write(2, f"dmgfs: serve: nbdkit did not start{why}\n".encode())
    return OS_ERROR
