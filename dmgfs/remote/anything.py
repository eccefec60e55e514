"""Any other file system of fsspec's. Its calls give bytes and nothing else, so the version is looked up again after every
range: what was read before a look that finds the version of the beginning was of that version.

Rules that hold here:
- that is two requests for a range; HTTP and S3 have transports of their own for that reason;
- many drivers block and may be used by one thread only: each call has a thread that nobody waits for, one at a time. When
  one hangs, it is left behind and the file system made anew; so many of them at most.
"""

import asyncio
import errno
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dmgfs.errors import NotAnImage, Unsupported
from dmgfs.remote.transport import Changed, Take, Transient, Version

MOST_HANGING = 8

_ETAGS = ("ETag", "etag", "generation", "VersionId", "version_id", "md5Hash", "content_md5", "Content-MD5", "sha")
_DATES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "modify", "created")


class Anything:
    """One object. opener: makes the file system and the path in it. See `Transport`."""

    streams = False

    def __init__(self, opener: Callable[[], tuple[Any, str]], url: str, key: str) -> None:
        self.url = url
        self.key = key
        self._opener = opener
        self._system, self._path = opener()
        self._turn = asyncio.Lock()
        self._hanging = 0

    async def begin(self, length: int, take: Take) -> Version:
        return await self._look()

    async def fetch(self, version: Version, start: int, end: int, take: Take) -> None:
        data = await self._call("cat_file", self._path, start=start, end=end)
        now = await self._look()
        difference = version.difference(now.size, now.etag, now.modified)
        if difference:
            raise Changed(errno.EIO, f"the image on the server has changed ({difference}): mount it anew", self.url)
        if len(data) != end - start:
            raise Transient(f"{len(data)} bytes came where {end - start} were asked for")
        take(bytes(data))

    async def close(self) -> None:
        """The connections end with the file system."""

    async def _look(self) -> Version:
        self._system.invalidate_cache()
        info = await self._call("info", self._path)
        if info.get("type") == "directory":
            raise NotAnImage("a folder on a server: bundles and segments are not read over a network")
        if not isinstance(info.get("size"), int):
            raise Unsupported("a server that does not say how large the image is", "fetch the image")
        return Version(info["size"], _first(info, _ETAGS), _first(info, _DATES))

    async def _call(self, method: str, *arguments: Any, **words: Any) -> Any:
        try:
            if self._system.async_impl:
                return await getattr(self._system, f"_{method}")(*arguments, **words)
            async with self._turn:
                return await self._in_a_thread(lambda: getattr(self._system, method)(*arguments, **words))
        except (FileNotFoundError, PermissionError, TimeoutError, Transient):
            raise
        except IsADirectoryError:
            raise NotAnImage("a folder on a server: bundles and segments are not read over a network") from None
        except Exception as error:
            raise Transient(f"{method} failed ({type(error).__name__})") from None

    async def _in_a_thread(self, call: Callable[[], Any]) -> Any:
        if self._hanging >= MOST_HANGING:
            raise Transient("too many calls hang already")
        future = asyncio.get_running_loop().run_in_executor(None, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._hanging += 1
            future.add_done_callback(self._came_back)
            self._system, self._path = self._opener()
            raise

    def _came_back(self, future: "asyncio.Future[Any]") -> None:
        self._hanging -= 1
        if not future.cancelled():
            future.exception()


def _first(info: dict[str, Any], names: tuple[str, ...]) -> str:
    found = next((info[name] for name in names if info.get(name) not in (None, "")), "")
    return found.isoformat() if isinstance(found, datetime) else str(found)
