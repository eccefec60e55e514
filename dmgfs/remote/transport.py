"""What the ways to a server have in common: one request for one range, checked against the version that was opened.

Rules that hold here:
- a transport asks once and never waits for better times: that is the fetcher's business. It says whether asking again could
  help: `Transient` for what may be over in a moment, any other exception for what is not;
- it checks before it gives a byte away that the answer is of the right version and of the right range.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Take = Callable[[bytes], None]
"""Takes the next bytes of the range, in order."""


class Transient(Exception):
    """Asking again may help. why: in plain words, without the URL. after: seconds that the server wants us to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.after = after


class Changed(OSError):
    """The object is not the one any more that was opened."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of the object from another. size: bytes. etag: as the server says it, modified: its words for
    the time of the last change; "" where it has none. fresh: that was so lately that `modified` cannot be relied on."""

    size: int
    etag: str = ""
    modified: str = ""
    fresh: bool = False

    @property
    def sure(self) -> bool:
        """Whether blocks may be kept beyond this process."""
        return self.strong or bool(self.modified and not self.fresh)

    @property
    def strong(self) -> bool:
        """Whether the ETag alone vouches for every byte. A weak one (W/) does for the meaning."""
        return bool(self.etag) and not self.etag.startswith("W/")

    @property
    def key(self) -> str:
        """Tells this version from every other one of the object."""
        return f"{self.size} {self.etag} {'' if self.strong else self.modified}"

    def difference(self, size: int | None, etag: str, modified: str) -> str:
        """How an answer's version differs, in words; "" if it is the same."""
        if size is not None and size != self.size:
            return f"{self.size} bytes then, {size} now"
        if self.etag and _plain(etag) != _plain(self.etag):
            return f"ETag {self.etag} then, {etag or 'none'} now"
        if not self.strong and modified != self.modified:
            return f"of {self.modified or 'no date'} then, of {modified or 'no date'} now"
        return ""

    def __str__(self) -> str:
        return f"ETag {self.etag}" if self.etag else f"of {self.modified}" if self.modified else "no version"


def _plain(etag: str) -> str:
    return etag.removeprefix("W/")


class Transport(Protocol):
    """url: as it may be shown. key: what the cache knows the object by. streams: bytes arrive one after the other, so that
    a slow transfer can be told from none."""

    url: str
    key: str
    streams: bool

    async def begin(self, length: int, take: Take) -> Version:
        """Asks for the first `length` bytes of an object that is not known yet. May take none of them. Raises Transient,
        Unsupported, NotAnImage, FileNotFoundError, PermissionError, OSError."""
        ...

    async def fetch(self, version: Version, start: int, end: int, take: Take) -> None:
        """[start, end) of that version. Raises Transient, Changed, OSError."""
        ...

    async def close(self) -> None: ...
