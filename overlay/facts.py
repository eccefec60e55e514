"""What an operation has learnt of the lower so far.

An operation is written as a plain function that changes nothing before it knows everything. Where it needs the lower it
asks `Facts`; an unknown fact ends the attempt with `Need`; `State.steps` yields the Ask, notes the answer and starts the
function again. So every operation is atomic and looks at the tree as it is when it decides, whatever others did while it
waited. Facts stay true because the lower never changes. Hot operations that need one fact at most are generators of
their own.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from overlay.vfs import Attr, Buffer, Content, Entry, Listing, Lower


class Need(Exception):
    """Control flow: the operation cannot go on before `function(*arguments)` was asked."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], slow: bool = False) -> None:
        self.function = function
        self.arguments = arguments
        self.slow = slow


class Facts:
    """Answers of the lower, for the length of one operation."""

    __slots__ = ("_known", "_lower", "scans")

    def __init__(self, lower: Lower) -> None:
        self._lower = lower
        self._known: dict[Hashable, Any] = {}
        self.scans: dict[int, Scan] = {}

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._known[function, arguments]
        except KeyError:
            raise Need(function, arguments) from None

    def warm(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Lets a slow call be made once, elsewhere, for its effect on caches; its answer may be outdated."""
        if (function, arguments) not in self._known:
            raise Need(function, arguments, slow=True)

    def note(self, function: Callable[..., Any], arguments: tuple[Any, ...], answer: Any) -> None:
        self._known[function, arguments] = answer
        if isinstance(answer, Entry) and answer.attr is not None:
            self._known[self._lower.getattr, (answer.ino,)] = answer.attr

    def getattr(self, ino: int) -> Attr:
        attr: Attr = self._ask(self._lower.getattr, ino)
        return attr

    def parent(self, ino: int) -> int:
        parent: int = self._ask(self._lower.parent, ino)
        return parent

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        entry: Entry | None = self._ask(self._lower.lookup, parent, name)
        return entry

    def listing(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        """Not kept: a directory may be too large for that, so the caller notes how far it has come."""
        listing: Listing = self._ask(self._lower.readdir, ino, after, limit)
        del self._known[self._lower.readdir, (ino, after, limit)]
        return listing

    def open(self, ino: int) -> Content:
        content: Content = self._ask(self._lower.open, ino)
        return content

    def read(self, content: Content, offset: int, length: int) -> Buffer:
        data: Buffer = self._ask(content.read, offset, length)
        return data

    def readlink(self, ino: int) -> bytes:
        target: bytes = self._ask(self._lower.readlink, ino)
        return target

    def listxattr(self, ino: int) -> Sequence[bytes]:
        names: Sequence[bytes] = self._ask(self._lower.listxattr, ino)
        return names

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        value: bytes | None = self._ask(self._lower.getxattr, ino, name)
        return value


class Scan:
    """Progress of a search for a visible entry of a lower directory. Kept between attempts: what is hidden stays hidden."""

    __slots__ = ("after", "entries", "started")

    def __init__(self) -> None:
        self.started = False
        self.after: Hashable | None = None
        self.entries: list[Entry] = []  # not yet looked at, last first
