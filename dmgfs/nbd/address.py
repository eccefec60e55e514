"""Where a server listens: HOST:PORT, :PORT for every interface, unix:PATH.

Rules that hold here:
- a socket of a server that was killed is taken over, one that somebody answers on is not, and no file is ever removed;
- a client that is dead or unreachable is found out within half a minute, so that it can come back: the kernel asks after
  it (the sockets that are accepted inherit that).
"""

import errno
import os
import re
import socket
import stat
from typing import NamedTuple

PORT = 10809
"""IANA's for NBD."""

_TCP = re.compile(r"(?:\[(?P<ipv6>[^\]/]+)\]|(?P<host>[^:/\[\]]*))(?::(?P<port>[0-9]{1,6}))?")
_BACKLOG = 128
_ASK_AFTER, _ASK_EVERY, _ASK_TIMES = 10, 5, 3
_DEAD_AFTER = 1000 * (_ASK_AFTER + _ASK_EVERY * _ASK_TIMES)


class Address(NamedTuple):
    """path: of a Unix socket, absolute; else host ("" for all interfaces) and port (0: any free one)."""

    path: str = ""
    host: str = ""
    port: int = PORT


def parse_address(text: str) -> Address:
    """Raises ValueError."""
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        if not rest:
            raise ValueError(f"{text}: write unix:PATH")
        return Address(path=os.path.abspath(rest))
    match = _TCP.fullmatch(text.removeprefix("tcp:"))
    if not text or match is None:
        raise ValueError(f"{text}: write HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH")
    port = int(match["port"] or PORT)
    if port >= 1 << 16:
        raise ValueError(f"{text}: {port} is no port number")
    host = match["ipv6"] or match["host"]
    return Address(host="" if host == "*" else host, port=port)


def listen(address: Address) -> socket.socket:
    """A socket that clients can connect to. Raises OSError with the address as its file name."""
    try:
        return _listen_unix(address.path) if address.path else _listen_tcp(address)
    except OSError as error:
        text = error.strerror or str(error)
        raise OSError(error.errno or errno.EADDRNOTAVAIL, text, _words(address)) from None


def uri(address: Address, listening: socket.socket, *, tls: bool) -> str:
    """What clients call it (the NBD URI specification), with the port that was chosen."""
    scheme = "nbds" if tls else "nbd"
    if address.path:
        return f"{scheme}+unix:///?socket={address.path}"
    host = address.host or "localhost"
    port = listening.getsockname()[1]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port != PORT else ''}/"


def _words(address: Address) -> str:
    return f"unix:{address.path}" if address.path else f"{address.host}:{address.port}"


def _listen_tcp(address: Address) -> socket.socket:
    if address.host or not socket.has_dualstack_ipv6():
        [(family, *_), *_] = socket.getaddrinfo(
            address.host or "0.0.0.0", address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    else:
        try:
            listening = socket.create_server(
                ("", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            listening = socket.create_server(("", address.port), backlog=_BACKLOG)  # this kernel runs without IPv6
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASK_AFTER),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_EVERY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASK_TIMES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER),
    ):
        listening.setsockopt(level, option, value)
    return listening


def _listen_unix(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        try:
            listening.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "it is there and is no socket; name another path") from None
            if not _is_left_over(path):
                raise
            os.unlink(path)
            listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _is_left_over(path: str) -> bool:
    """Whether nobody answers on the socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        return asking.connect_ex(path) == errno.ECONNREFUSED
