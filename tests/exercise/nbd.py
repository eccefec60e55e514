"""A client of NBD servers, as small as the protocol allows (fixed newstyle, NBD_OPT_GO, simple replies): tests hold several
connections at once with it, and give the same requests to different servers."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exercise.mounted import DMGFS

needs_nbdkit = pytest.mark.skipif(shutil.which("nbdkit") is None, reason="needs nbdkit and its Python plug-in")

PARTITION = 64 * 512
"""Where the first volume begins in the disks that are served."""

_OPTION_ABORT, _OPTION_GO, _REPLY_ACK, _REPLY_INFO = 2, 7, 1, 3
_READ, _WRITE, _DISCONNECT, _FLUSH, _TRIM, _ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1


class Nbd:
    """A connection to the server on a Unix socket. size: in bytes; flags: as transmitted. Raises ConnectionRefusedError
    when the server does not give the export, OSError with the server's errno when it fails a request."""

    def __init__(self, path: Path, export: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._handle = 0
        try:
            self.size, self.flags = self._go(export.encode("utf-8", "surrogateescape"))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Nbd":
        return self

    def __exit__(self, *caught: object) -> None:
        self.close()

    @property
    def writable(self) -> bool:
        return not self.flags & 2

    def _take(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise ConnectionRefusedError("the server hung up")
            data += more
        return data

    def _go(self, export: bytes) -> tuple[int, int]:
        assert self._take(16) == b"NBDMAGICIHAVEOPT"
        self._take(2)
        self._socket.sendall(struct.pack(">I", 3))  # fixed newstyle, no zeroes
        data = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
        self._socket.sendall(b"IHAVEOPT" + struct.pack(">II", _OPTION_GO, len(data)) + data)
        found = None
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._take(20))
            data = self._take(length)
            if kind == _REPLY_INFO and data[:2] == b"\0\0":
                found = struct.unpack(">QH", data[2:])
            elif kind == _REPLY_ACK:
                assert found is not None
                return found
            elif kind != _REPLY_INFO:
                raise ConnectionRefusedError(f"refused: {kind:#x} {data!r}")

    def _ask(self, kind: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> bytes:
        self._handle += 1
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, self._handle, offset, length) + data)
        magic, number, handle = struct.unpack(">IIQ", self._take(16))
        assert (magic, handle) == (0x67446698, self._handle)
        if number:
            raise OSError(number, os.strerror(number))
        return self._take(length) if kind == _READ else b""

    def ask_only(self, count: int, offset: int, length: int) -> None:
        """Asks for the same bytes again and again, and does not listen."""
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, _READ, 0, offset, length) * count)

    def read(self, offset: int, length: int) -> bytes:
        return self._ask(_READ, offset, length)

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        self._ask(_WRITE, offset, len(data), data, FUA if fua else 0)

    def flush(self) -> None:
        self._ask(_FLUSH)

    def trim(self, offset: int, length: int) -> None:
        self._ask(_TRIM, offset, length)

    def zero(self, offset: int, length: int) -> None:
        self._ask(_ZEROES, offset, length)

    def all(self) -> bytes:
        return b"".join(self.read(at, min(1 << 20, self.size - at)) for at in range(0, self.size, 1 << 20))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, _DISCONNECT, 0, 0, 0))
        self._socket.close()

    def cut(self) -> None:
        """Gone without a word."""
        self._socket.close()


class Server:
    """A server that listens on `socket`. log: what it has said so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path, log: Path) -> None:
        self.process = process
        self.socket = path
        self.uri = f"nbd+unix:///?socket={path}"
        self._log = log

    def connect(self, export: str = "") -> Nbd:
        return Nbd(self.socket, export)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code, or the negative number of a signal."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def started(command: list[str | Path], path: Path, log: Path) -> Iterator[Server]:
    """A server process for as long as the block lasts. Raises AssertionError when it does not begin to listen."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        end = time.monotonic() + 30
        while not _answers(path):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.01)
        yield Server(process, path, log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(30)
        if not path.exists() or asking.connect_ex(str(path)):
            return False
        asking.recv(18, socket.MSG_WAITALL)
        asking.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", _OPTION_ABORT, 0))
        asking.recv(20, socket.MSG_WAITALL)
        return True


@contextlib.contextmanager
def serving(image: Path | str, folder: Path, *options: str | Path) -> Iterator[Server]:
    """`dmgfs serve` in the foreground, on folder/socket."""
    path = folder / "socket"
    command = [DMGFS, "serve", image, "--nbd", f"unix:{path}", "-f", *options]
    with started(command, path, folder / "server.log") as server:
        yield server


def said(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def is_refused(server: Server, export: str = "") -> bool:
    try:
        server.connect(export).close()
    except ConnectionRefusedError:
        return True
    return False
