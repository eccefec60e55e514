"""Messages to the service manager (sd_notify): a datagram to the socket that NOTIFY_SOCKET names, if there is one.

Rule: the socket is opened at the start and kept; a manager that does not listen loses the message, nobody waits for it.
"""

import os
import socket


class Notifier:
    """watchdog_seconds: how often the manager wants to hear WATCHDOG=1 at least; None if it does not."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.watchdog_seconds: float | None = None
        address = os.environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            opened.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            opened.close()
            return
        self._socket = opened
        self.watchdog_seconds = _watchdog()

    def tell(self, message: str) -> None:
        if self._socket is not None:
            try:
                self._socket.send(message.encode())
            except OSError:
                pass

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog() -> float | None:
    try:
        microseconds = int(os.environ["WATCHDOG_USEC"])
        process = int(os.environ.get("WATCHDOG_PID") or os.getpid())
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 and process in (os.getpid(), os.getppid()) else None
