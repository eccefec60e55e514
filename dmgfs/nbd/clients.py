"""Who may write where: exports, shadows and their writers.

Rules that hold here:
- one shadow has one writer at a time, whatever export it came by: two kernels on one file system destroy it. A second one
  is refused, may look on, or takes over; then the first can write no more;
- a shadow that belongs to one client is open as long as the client is there; the shared one as long as the server is;
- a writer that leaves has its changes synced; one that comes back at once waits until that is done.
"""

import errno
import re
import threading
from collections.abc import Callable, Hashable, Mapping

from dmgfs.blockshadow import BlockShadow, View
from dmgfs.blockshadow.zeros import Stretch, stretches_of
from dmgfs.source import Buffer, ByteSource
from overlay.store import Store

_CLIENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
SHARED = ""
_PATIENCE = 1.0
"""Seconds that a second writer waits for the first to leave: it may have hung up a moment ago."""


class Refused(OSError):
    """The connection cannot be had; the text says what can."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


class Seat:
    """A shadow that somebody has open."""

    def __init__(self, disk: BlockShadow) -> None:
        self.disk = disk
        self.users = 0
        self.writer: Connection | None = None


class Connection:
    """A window of a disk, as one client sees it. Offsets and lengths in bytes of the window; nothing reaches beyond."""

    def __init__(self, base: ByteSource, view: View, seat: Seat | None, key: Hashable, *, writable: bool) -> None:
        self.size = view.size
        self.writable = writable
        self.seat = seat
        self.key = key
        self._start = view.start
        self._disk: ByteSource = base if seat is None else seat.disk

    def read(self, offset: int, length: int) -> Buffer:
        """Raises DmgError, OSError."""
        return self._disk.read(self._start + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """All or nothing. Raises OSError."""
        self._shadow().write(self._start + offset, data)

    def zero(self, offset: int, length: int) -> None:
        """Raises OSError."""
        self._shadow().zero(self._start + offset, length)

    def discard(self, offset: int, length: int) -> None:
        """Raises OSError."""
        self._shadow().discard(self._start + offset, length)

    def sync(self) -> None:
        """Also of one that looks on: what it has read is safe then. Raises OSError."""
        if self.seat is not None:
            self.seat.disk.sync()

    def stretches(self, offset: int, length: int) -> list[Stretch]:
        """What of the range is known to be zeros."""
        if self.seat is not None:
            return self.seat.disk.stretches(self._start + offset, length)
        return list(stretches_of(self._disk, self._start + offset, length))

    def _shadow(self) -> BlockShadow:
        if self.seat is None or not self.writable:
            raise OSError(errno.EPERM, "read-only")
        if self.seat.writer is not self:
            raise OSError(errno.ESHUTDOWN, "another client has taken this shadow over")
        return self.seat.disk


class Clients:
    """base: the disk. exports: by name, the first is for clients that name none. store_of: opens the shadow of a client
    (SHARED: the one of all), None where there is no shadow. named: clients say who they are, as the first part of the
    export's name. private: each connection has a shadow of its own. second: see `Settings`.
    shadow: what the one of all is called."""

    def __init__(
        self,
        base: ByteSource,
        exports: Mapping[str, View],
        store_of: Callable[[str], Store] | None,
        *,
        named: bool = False,
        private: bool = False,
        read_only: bool = False,
        second: str = "refuse",
        shadow: str = "in memory",
    ) -> None:
        self._base = base
        self._exports = exports
        self._store_of = store_of
        self._named = named
        self._private = private
        self._read_only = read_only
        self._second = second
        self._shadow = shadow
        self._seats: dict[Hashable, Seat] = {}
        self._lock = threading.Condition()
        if store_of is not None and not named and not private:
            self._seats[SHARED] = Seat(self._opened(SHARED))
            self._seats[SHARED].users = 1

    @property
    def shared(self) -> bool:
        """Whether all connections see the same bytes, and none changes them."""
        return self._read_only or self._store_of is None

    def names(self) -> list[str]:
        """What can be asked for by anybody; the first is the default."""
        return [] if self._named else list(self._exports)

    def connect(self, export: str) -> Connection:
        """Raises Refused, ShadowError, OSError (the shadow file cannot be opened)."""
        client, view = self._resolve(export)
        if self._store_of is None:
            return Connection(self._base, view, None, None, writable=False)
        key: Hashable = object() if self._private else client
        writable = not self._read_only
        with self._lock:
            if writable and self._second != "take-over":
                self._lock.wait_for(lambda: key not in self._seats or self._seats[key].writer is None, _PATIENCE)
            seat = self._seats.get(key)
            if seat is None:
                seat = self._seats[key] = Seat(self._opened(client))
            if writable and seat.writer is not None:
                if self._second == "refuse":
                    whose = f"of {client}" if client else self._shadow
                    raise Refused(f"the shadow {whose} has a writer already; one client at a time may write")
                writable = self._second == "take-over"
            connection = Connection(self._base, view, seat, key, writable=writable)
            seat.users += 1
            if writable:
                seat.writer = connection
            return connection

    def _opened(self, client: str) -> BlockShadow:
        assert self._store_of is not None
        store = self._store_of(client)
        try:
            return BlockShadow(self._base, store)
        except BaseException:
            store.close()  # damaged: somebody may want to look at it
            raise

    def leave(self, connection: Connection) -> None:
        """Raises OSError where its changes could not be synced."""
        seat = connection.seat
        if seat is None:
            return
        try:
            if connection.writable:
                seat.disk.sync()
        finally:
            with self._lock:
                seat.users -= 1
                try:
                    if not seat.users:
                        del self._seats[connection.key]
                        seat.disk.close()
                finally:
                    if seat.writer is connection:
                        seat.writer = None
                    self._lock.notify_all()

    def close(self) -> None:
        """Everything is synced and closed. Raises what the last one that failed raised."""
        failed: Exception | None = None
        with self._lock:
            for seat in self._seats.values():
                try:
                    seat.disk.close()
                except Exception as error:
                    failed = error
            self._seats.clear()
        if failed is not None:
            raise failed

    def _resolve(self, export: str) -> tuple[str, View]:
        client, name = SHARED, export
        if self._named:
            client, _, name = export.partition("/")
            if not _CLIENT.match(client) or client in self._exports:
                raise Refused(
                    f"{export!r}: every client has a shadow of its own here; ask for NAME or NAME/disk0s1, where NAME "
                    "is the client's: letters, digits, ., _ and -"
                )
        view = self._exports.get(name) if name else next(iter(self._exports.values()))
        if view is None:
            raise Refused(f"there is no export {name!r}; there are: {', '.join(self._exports)}")
        return client, view
