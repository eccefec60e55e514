"""The way from `dmgfs status`, `dmgfs shadow …` to a running daemon: one request, one answer, over a Unix socket.

The socket has an abstract name that nobody can guess: an unlisted extended attribute of the mount tells it, to root and to
the daemon's own user only. So it works wherever the mount is seen, after chroot and switch_root too, without a directory
that both sides share. Protocol version 1, one packet (SOCK_SEQPACKET) each way, both JSON objects:

    request   {"dmgfs": 1, "do": "status", …}     with up to 4 open files (SCM_RIGHTS)
    answer    {"dmgfs": 1, "answer": …}  or  {"dmgfs": 1, "error": "what is wrong", "errno": 28}

Rules that hold here:
- who is neither root nor the daemon's user is not answered, whatever he knows (SO_PEERCRED);
- files are opened by the client and passed open: paths mean nothing across mount namespaces, and the daemon must not wait
  for a path that may lie in its own mount;
- a client gets a few seconds to ask and to take the answer, and there are few at a time; large results go into a file that
  it passed, written by a worker thread. So a client that hangs holds nothing but its own place.
"""

import errno
import json
import logging
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from dmgfs.errors import DmgError
from dmgfs.fuse import mountpoint
from dmgfs.fuse.boundary import trace
from overlay.errors import ShadowError

log = logging.getLogger(__name__)

VERSION = 1
REQUEST_MAX = 16 << 10
ANSWER_MAX = 128 << 10
MOST_FILES = 4
MOST_CLIENTS = 8
SECONDS = 5.0
"""For a client to send its request, and again to take its answer."""

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_FILE = struct.Struct("i")

Handler = Callable[[Mapping[str, Any], Sequence[int]], Awaitable[Any]]
"""Gets the request and the open files (closed when it returns), returns what JSON can hold."""


async def _mounted(request: Mapping[str, Any], files: Sequence[int]) -> bool:
    """Whether the kernel still sends us requests: a daemon may answer here for as long as its last sync takes."""
    return mountpoint.leads_here()


class Control:
    """A companion of the session: listens from now on, answers from `start` to `stop`. handlers: by the request's "do"."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = {"mounted": _mounted, **handlers}
        self.name = f"dmgfs-{os.getpid()}-{secrets.token_hex(16)}".encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.bind(b"\0" + self.name)
        self._socket.listen(MOST_CLIENTS)

    def told(self, uid: int) -> bytes:
        """The socket's name for user `uid`; OSError(EPERM) for strangers."""
        if not _may(uid):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return self.name

    def start(self) -> None:
        trio.lowlevel.spawn_system_task(self._serve)

    def stop(self) -> None:
        self._socket.close()

    async def _serve(self) -> None:
        """Until the loop ends. Raises nothing but Cancelled."""
        listener = trio.socket.from_stdlib_socket(self._socket)
        places = trio.Semaphore(MOST_CLIENTS)
        async with trio.open_nursery() as nursery:
            while True:
                await places.acquire()
                try:
                    connection, _ = await listener.accept()
                except OSError as error:
                    log.warning("control: %s", error)  # out of descriptors, most likely
                    places.release()
                    await trio.sleep(1)
                    continue
                nursery.start_soon(self._attend, connection, places)

    async def _attend(self, connection: trio.socket.SocketType, places: trio.Semaphore) -> None:
        files: list[int] = []
        try:
            answer = await self._answer(connection, files)
            if answer is not None:
                with trio.move_on_after(SECONDS):
                    await connection.send(answer)
        except (OSError, ValueError):
            pass  # gone, or it speaks something else
        finally:
            for file in files:
                os.close(file)
            connection.close()
            places.release()

    async def _answer(self, connection: trio.socket.SocketType, files: list[int]) -> bytes | None:
        """The packet for this client, None if it asked nothing. What it passes is added to `files`."""
        data, flags = b"", 0
        with trio.move_on_after(SECONDS):
            room = socket.CMSG_SPACE(MOST_FILES * _FILE.size)
            data, passed, flags, _ = await connection.recvmsg(REQUEST_MAX + 1, room, socket.MSG_CMSG_CLOEXEC)
            for level, kind, body in passed:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    files += (number for (number,) in _FILE.iter_unpack(body[: len(body) // _FILE.size * _FILE.size]))
        if not data:
            return None
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if not _may(_CREDENTIALS.unpack(packed)[1]):
            return _failure(errno.EPERM, "only root and the user of the daemon may ask")
        if len(data) > REQUEST_MAX or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            return _failure(errno.EMSGSIZE, "the request is too long")
        return await self._handled(data, files)

    async def _handled(self, data: bytes, files: Sequence[int]) -> bytes:
        try:
            request = json.loads(data)
        except (ValueError, RecursionError):
            return _failure(errno.EPROTO, "the request is no JSON")
        if not isinstance(request, dict) or request.get("dmgfs") != VERSION:
            return _failure(
                errno.EPROTO, f"the daemon speaks version {VERSION} of the control protocol; use its dmgfs"
            )
        handler = self._handlers.get(str(request.get("do")))
        if handler is None:
            return _failure(errno.EOPNOTSUPP, "the daemon is of another version and cannot do that")
        try:
            answer = _packet({"answer": await handler(request, files)})
        except OSError as error:
            return _failure(error.errno or errno.EIO, error.strerror or str(error))
        except (DmgError, ShadowError) as error:
            return _failure(errno.EIO, str(error))
        except MemoryError:
            return _failure(errno.ENOMEM, os.strerror(errno.ENOMEM))
        except Exception as error:
            log.error("control: %r failed: %r\n%s", request.get("do"), error, trace(error))
            return _failure(errno.EIO, f"internal error: {type(error).__name__}; the daemon's log says more")
        return answer if len(answer) <= ANSWER_MAX else _failure(errno.EMSGSIZE, "the answer is too long")


def _may(uid: int) -> bool:
    return uid in (0, os.geteuid())


def _packet(body: Mapping[str, Any]) -> bytes:
    return json.dumps({"dmgfs": VERSION, **body}).encode()


def _failure(number: int, text: str) -> bytes:
    return _packet({"error": text[:4096], "errno": number})
