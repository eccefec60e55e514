"""An HTTP server on loopback that serves one object in ranges, as good or as bad as a test wants it, and keeps a diary.

`behave` is asked about every GET and may return a Fault; None: answer as a good server does."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One deviation. status: instead of 206. cut: bytes of the body until the connection breaks. length: what
    Content-Length claims. shift: by how much the range that is sent is another one. total: what Content-Range claims the
    size to be. drop: the connection breaks before any answer. pause: seconds before the answer; trickle: between pieces
    of 16 KiB. headers: more of them, or others."""

    status: int = 0
    cut: int | None = None
    length: int | None = None
    shift: int = 0
    total: int | None = None
    pause: float = 0.0
    trickle: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


Behave = Callable[[int, int], Fault | None]


class RangeServer:
    """data, etag, modified may be changed at any time. requests: (start, end) of every GET; sent: bytes of bodies."""

    def __init__(self, data: bytes, etag: str = '"one"', modified: str = "Mon, 06 Jan 2020 10:00:00 GMT") -> None:
        self.data = data
        self.etag = etag
        self.modified = modified
        self.behave: Behave = lambda number, start: None
        self.requests: list[tuple[int, int]] = []
        self.seen: list[dict[str, str]] = []
        self.sent = 0
        self.redirect = ""
        self.tls: ssl.SSLContext | None = None
        self.lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._alive: list[socket.socket] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'' if self.tls is None else 's'}://127.0.0.1:{self.port}/image.dmg"

    def start(self) -> None:
        """On the same port as before, if it ran before."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def get_request(self) -> Any:
                connection, address = super().get_request()
                outer._alive.append(connection)
                return connection, address

            def handle_error(self, *arguments: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Dead: open connections are broken, new ones refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in self._alive:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._alive.clear()
            self._server = None

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        start, _, last = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        data = self.data
        first, end = int(start), min(int(last or len(data)) + 1, len(data))
        with self.lock:
            number = len(self.requests)
            self.requests.append((first, end))
            self.seen.append(dict(handler.headers))
        fault = self.behave(number, first) or Fault()
        time.sleep(fault.pause)
        if fault.drop:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        if self.redirect and not handler.path.startswith("/moved"):
            self._head(handler, 302, b"", {"Location": self.redirect})
            return
        status = fault.status or (206 if first < len(data) else 416)
        headers = {"ETag": self.etag, "Last-Modified": self.modified, "Accept-Ranges": "bytes"}
        total = len(data) if fault.total is None else fault.total
        if status == 206:
            first, end = first + fault.shift, end + fault.shift
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{total}"
            body = data[first:end]
        elif status == 200:
            body = data
        else:
            body = b"no\n"
            headers = {"Content-Range": f"bytes */{total}"} if status == 416 else {}
        self._head(handler, status, body, headers | fault.headers, fault.length)
        self._body(handler, body, fault)

    def _head(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str],
        length: int | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if value:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()

    def _body(self, handler: BaseHTTPRequestHandler, body: bytes, fault: Fault) -> None:
        if fault.cut is not None:
            body = body[: fault.cut]
        try:
            for at in range(0, len(body), 16 << 10):
                handler.wfile.write(body[at : at + (16 << 10)])
                if fault.trickle:
                    time.sleep(fault.trickle)
        except OSError:
            return
        with self.lock:
            self.sent += len(body)
        if fault.cut is not None or fault.length is not None:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True


@contextmanager
def serving(data: bytes, *, tls: ssl.SSLContext | None = None, **words: str) -> Iterator[RangeServer]:
    server = RangeServer(data, **words)
    server.tls = tls
    server.start()
    try:
        yield server
    finally:
        server.stop()
