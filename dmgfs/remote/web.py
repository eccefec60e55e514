"""HTTP and HTTPS, over fsspec's session: fsspec's own `cat_file` gives the body alone, and a range that was answered with
the whole file, another version or another range could not be told from the right one.

Rules that hold here:
- every request is a GET with a range, the first one too: a signed URL often is for GET alone. Status, Content-Range, ETag
  and Content-Encoding are looked at before the body is;
- a redirect is followed anew each time (where it leads may be signed and run out), and never from https to http.
"""

import errno
import os
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from dmgfs.errors import NotAnImage, Unsupported
from dmgfs.remote.transport import Changed, Take, Transient, Version

_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19})\Z")
_PIECE = 64 << 10
_FRESH = timedelta(seconds=60)
_MOST_AFTER = 30.0
_PASSING = frozenset({408, 425, 429})
_UNBOUNDED = aiohttp.ClientTimeout(total=None)  # the fetcher watches the time


class Web:
    """One object. system: fsspec's, with the session. See `Transport`."""

    streams = True

    def __init__(self, system: Any, address: str, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self._system = system
        self._address = address.partition("#")[0]

    async def begin(self, length: int, take: Take) -> Version:
        async with _plainly(), await self._ask(0, length) as answer:
            self._refuse(answer)
            headers = answer.headers
            if answer.status == 416 and _range(headers) == (None, None, 0):
                return Version(0)
            if answer.status != 206:
                raise Unsupported(
                    f"a server that answers a range request with status {answer.status}",
                    "fetch the image, or serve it with one that knows ranges",
                )
            start, end, size = _range(headers)
            if size is None:
                raise Unsupported("a server that does not say how large the image is", "fetch the image")
            if (start, end) != (0, min(length, size)):
                raise Transient("the server sends another range than was asked for")
            modified = headers.get("Last-Modified", "")
            version = Version(size, headers.get("ETag", ""), modified, _is_fresh(modified, headers.get("Date", "")))
            await _body(answer, min(length, size), take)
            return version

    async def fetch(self, version: Version, start: int, end: int, take: Take) -> None:
        async with _plainly(), await self._ask(start, end) as answer:
            if answer.status in (412, 416):
                raise Changed(
                    errno.EIO, f"the image on the server has changed ({version} then): mount it anew", self.url
                )
            self._refuse(answer)
            headers = answer.headers
            first, last, size = _range(headers) if answer.status == 206 else (None, None, None)
            difference = version.difference(size, headers.get("ETag", ""), headers.get("Last-Modified", ""))
            if difference:
                raise Changed(
                    errno.EIO, f"the image on the server has changed ({difference}): mount it anew", self.url
                )
            if answer.status != 206:
                raise Transient(f"the server answers a range request with status {answer.status}")
            if size is None or (first, last) != (start, end):
                raise Transient("the server sends another range than was asked for")
            await _body(answer, end - start, take)

    async def close(self) -> None:
        session = self._system._session
        if session is not None:
            await session.close()

    async def _ask(self, start: int, end: int) -> aiohttp.ClientResponse:
        session = await self._system.set_session()
        options = {key: value for key, value in self._system.kwargs.items() if key not in ("headers", "timeout")}
        headers = {
            **self._system.kwargs.get("headers", {}),
            "Range": f"bytes={start}-{end - 1}",
            "Accept-Encoding": "identity",
        }
        answer: aiohttp.ClientResponse = await session.get(
            self._system.encode_url(self._address), headers=headers, timeout=_UNBOUNDED, **options
        )
        return answer

    def _refuse(self, answer: aiohttp.ClientResponse) -> None:
        """Raises for what is no answer with bytes of the object."""
        status = answer.status
        if answer.url.scheme == "http" and self._address.lower().startswith("https:"):
            raise OSError(errno.EIO, "the server leads from https to http, which is not followed", self.url)
        if status in (404, 410):
            raise FileNotFoundError(errno.ENOENT, "there is no such object on the server", self.url)
        if status in (401, 403, 407):
            raise PermissionError(errno.EACCES, f"the server refuses it (status {status})", self.url)
        if status in _PASSING or status >= 500:
            raise Transient(f"the server answers with status {status}", _after(answer.headers.get("Retry-After", "")))
        if status not in (200, 206, 416):
            raise OSError(errno.EIO, f"the server answers with status {status}", self.url)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if status != 416 and encoding.lower() not in ("", "identity"):
            raise Unsupported(f"a server that sends the image encoded ({encoding})", "fetch the image")


class _plainly:
    """Turns what aiohttp raises into what a transport raises. Its texts may hold URLs with secrets: they are not used."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aiohttp.InvalidURL):
            raise NotAnImage("not a URL that can be read") from None
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
            raise OSError(errno.EIO, "the server's certificate or encryption cannot be accepted") from None
        if isinstance(error, aiohttp.TooManyRedirects):
            raise OSError(errno.EIO, "the server leads in circles (redirects)") from None
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            raise Transient("the server's name cannot be looked up") from None
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            raise Transient(os.strerror(number) if number else "it cannot be connected to") from None
        if isinstance(error, aiohttp.ClientPayloadError):
            raise Transient("the answer was cut short") from None
        if isinstance(error, aiohttp.ServerDisconnectedError):
            raise Transient("the server closed the connection") from None
        if isinstance(error, (aiohttp.ClientError, ConnectionError)):
            raise Transient(f"the connection failed ({type(error).__name__})") from None
        if isinstance(error, ValueError):
            raise OSError(errno.EIO, "the server's answer makes no sense") from None


async def _body(answer: aiohttp.ClientResponse, length: int, take: Take) -> None:
    """The body, which must have this length. A connection that is left before its end is closed by aiohttp."""
    if answer.content_length not in (None, length):
        raise Transient(f"the server sends {answer.content_length} bytes where {length} were asked for")
    async for piece in answer.content.iter_chunked(_PIECE):
        take(piece)


def _range(headers: Any) -> tuple[int | None, int | None, int | None]:
    """Content-Range as (start, end, size of the whole); None for what it does not say."""
    match = _RANGE.match(headers.get("Content-Range", ""))
    if match is None:
        return None, None, None
    start, last, size = match.groups()
    return (None, None, int(size)) if start is None else (int(start), int(last) + 1, int(size))


def _is_fresh(modified: str, now: str) -> bool:
    """Whether the object changed so lately, by the server's own clock, that it may change again within the same second."""
    try:
        return parsedate_to_datetime(now) - parsedate_to_datetime(modified) < _FRESH
    except (ValueError, TypeError):
        return True


def _after(text: str) -> float | None:
    return min(float(text), _MOST_AFTER) if text.isascii() and text.isdecimal() and len(text) < 10 else None
