"""The end of the server. nbdkit, asked to stop, would wait for its clients to go, and a disk that a machine runs from is
never let go of: so they are hung up on.

Rules that hold here:
- what a client asked for before is done and answered; it just cannot ask for more;
- signals wait for a thread of ours. They are blocked before anybody makes a thread, because threads inherit that.
"""

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_LISTENING = 3
"""The descriptor of the first socket that is handed over, by the convention."""

_GRACE = 3.0
"""Seconds for answers to be taken; then the line is cut."""

_INTERVAL = 0.02


def hold_signals() -> None:
    """In the main thread, before there is another: signals that end the server wait from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def hang_up_when_told(stop_listening: Callable[[], object], ended: threading.Event) -> None:
    """After `hold_signals`, when clients are served. A signal ends the server: `stop_listening` is called, then clients are
    hung up on until `ended` is set."""
    listening = socket.socket(fileno=os.dup(_LISTENING))
    name = _name(listening)
    listening.close()

    def wait() -> None:
        signal.sigwait(_SIGNALS)
        stop_listening()
        cut_at = time.monotonic() + _GRACE
        while not ended.wait(_INTERVAL):
            for client in _clients(name):
                with client:
                    try:
                        client.shutdown(socket.SHUT_RD if time.monotonic() < cut_at else socket.SHUT_RDWR)
                    except OSError:
                        continue  # gone meanwhile

    threading.Thread(target=wait, name="end", daemon=True).start()


def _name(one: socket.socket) -> object:
    """What a listening socket and those that it accepted have in common: the path, or the port."""
    name = one.getsockname()
    return name[1] if isinstance(name, tuple) else name


def _clients(name: object) -> Iterator[socket.socket]:
    """Every connection that came by the listening socket of this name, as a copy to be closed."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            number = int(entry)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            one = socket.socket(fileno=os.dup(number))
        except OSError:
            continue  # closed meanwhile
        try:
            one.getpeername()
            is_ours = _name(one) == name
        except OSError:
            is_ours = False
        if is_ours:
            yield one
        else:
            one.close()
