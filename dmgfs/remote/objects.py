"""S3 and what speaks like it, over s3fs: its own `cat_file` drops the answer's ETag and Content-Range, so the request is
made one level lower, where they can be compared before a byte is taken.

Rule: credentials, endpoint and region come from where s3fs finds them: AWS_…, ~/.aws, FSSPEC_S3_…, the machine's role.
"""

import errno
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from dmgfs.errors import NotAnImage
from dmgfs.remote.transport import Changed, Take, Transient, Version

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})\Z")
_PIECE = 64 << 10
_FRESH = timedelta(seconds=60)
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
_REFUSED = frozenset({"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"})
_PASSING = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"})


def settings(timeout: float) -> dict[str, Any]:
    """For s3fs: no retries of its own (the fetcher has them, with bounds), and connections that end by themselves."""
    short = max(1.0, timeout / 3)
    config = {"connect_timeout": short, "read_timeout": short, "retries": {"total_max_attempts": 1}}
    return {"config_kwargs": config, "cache_regions": False}


class Objects:
    """One object. system: s3fs's. See `Transport`."""

    streams = True

    def __init__(self, system: Any, address: str, url: str, key: str) -> None:
        self.url = url
        self._system = system
        self._system.retries = 1
        endpoint = str(system.endpoint_url or "")
        self.key = f"{key} {endpoint}"
        self._bucket, self._key, self._object_version = system.split_path(system._strip_protocol(address))
        if not self._bucket or not self._key:
            raise NotAnImage("write s3://BUCKET/KEY")

    async def begin(self, length: int, take: Take) -> Version:
        try:
            answer = await self._ask(0, length)
        except _Empty:
            return Version(0)
        try:
            start, end, size = self._range(answer)
            if (start, end) != (0, min(length, size)):
                raise Transient("the server sends another range than was asked for")
            when = answer.get("LastModified")
            fresh = not isinstance(when, datetime) or datetime.now(UTC) - when < _FRESH
            version = Version(size, str(answer.get("ETag", "")), _date(when), fresh)
            await self._body(answer, min(length, size), take)
            return version
        finally:
            answer["Body"].close()

    async def fetch(self, version: Version, start: int, end: int, take: Take) -> None:
        try:
            answer = await self._ask(start, end)
        except _Empty:
            raise self._changed(f"{version.size} bytes then, fewer now") from None
        try:
            first, last, size = self._range(answer)
            difference = version.difference(size, str(answer.get("ETag", "")), _date(answer.get("LastModified")))
            if difference:
                raise self._changed(difference)
            if (first, last) != (start, end):
                raise Transient("the server sends another range than was asked for")
            await self._body(answer, end - start, take)
        finally:
            answer["Body"].close()

    async def close(self) -> None:
        client = self._system._s3
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _ask(self, start: int, end: int) -> dict[str, Any]:
        named = {"VersionId": self._object_version} if self._object_version else {}
        try:
            answer: dict[str, Any] = await self._system._call_s3(
                "get_object", Bucket=self._bucket, Key=self._key, Range=f"bytes={start}-{end - 1}", **named
            )
        except Exception as error:
            raise self._plainly(error) from None
        return answer

    async def _body(self, answer: dict[str, Any], length: int, take: Take) -> None:
        if answer.get("ContentLength") != length:
            raise Transient(f"the server sends {answer.get('ContentLength')} bytes where {length} were asked for")
        try:
            while piece := await answer["Body"].read(_PIECE):
                take(piece)
        except Transient:
            raise
        except Exception:
            raise Transient("the answer was cut short") from None

    def _range(self, answer: dict[str, Any]) -> tuple[int, int, int]:
        match = _RANGE.match(str(answer.get("ContentRange", "")))
        if match is None:
            raise OSError(errno.EIO, "the server answers a range request without a range", self.url)
        start, last, size = map(int, match.groups())
        return start, last + 1, size

    def _changed(self, difference: str) -> Changed:
        return Changed(errno.EIO, f"the image on the server has changed ({difference}): mount it anew", self.url)

    def _plainly(self, error: Exception) -> Exception:
        """What a transport raises for what botocore raised, which s3fs may have translated."""
        response = _response(error)
        if response is None:
            name = type(error).__name__
            if name in _REFUSED or isinstance(error, PermissionError):
                return PermissionError(errno.EACCES, f"no credentials that the server takes ({name})", self.url)
            return Transient(f"the connection failed ({name})")
        code = str(response.get("Error", {}).get("Code", ""))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status == 416 or code == "InvalidRange":
            return _Empty()
        if status == 404 or code in _MISSING:
            return FileNotFoundError(errno.ENOENT, "there is no such object on the server", self.url)
        if status in (401, 403):
            return PermissionError(errno.EACCES, f"the server refuses it ({code or status})", self.url)
        if status >= 500 or status in (408, 429) or code in _PASSING:
            return Transient(f"the server answers with status {status} ({code})")
        return OSError(errno.EIO, f"the server answers with status {status} ({code})", self.url)


class _Empty(Exception):
    """There is nothing in the range."""


def _response(error: BaseException | None) -> dict[str, Any] | None:
    for _ in range(4):
        if error is None:
            return None
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response
        error = error.__cause__
    return None


def _date(when: object) -> str:
    return when.astimezone(UTC).isoformat() if isinstance(when, datetime) else ""
