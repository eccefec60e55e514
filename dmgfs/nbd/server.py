"""The calls of nbdkit's Python plug-in (nbdkit-python-plugin(3), API 2): one short function for each.

Rules that hold here:
- no exception leaves a function but as an errno that NBD knows and one line in the log; nbdkit hands it to the client and
  goes on. A damaged chunk is EIO of that read;
- requests run in parallel: decoders let go of the interpreter, shadows of their lock while they wait;
- `get_ready` opens everything, `after_fork` says that clients are served, `cleanup` leaves nothing unsynced and no file.
"""

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import nbdkit

from dmgfs.blockshadow import View
from dmgfs.errors import DmgError, PassphraseNeeded, Unsupported
from dmgfs.image import open_image
from dmgfs.nbd import log
from dmgfs.nbd.clients import Clients, Connection
from dmgfs.nbd.settings import Settings, taken_over
from dmgfs.nbd.stopping import hang_up_when_told, hold_signals
from overlay.errors import ShadowError
from overlay.store import Store

if TYPE_CHECKING:
    from dmgfs.remote.settings import Settings as Network

P = ParamSpec("P")
T = TypeVar("T")

API_VERSION = 2

_KNOWN = (errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EOPNOTSUPP, errno.ESHUTDOWN)
"""What an NBD server may answer. nbdkit makes EINVAL of others, which is no word for a disk that fails."""

_PR_SET_PDEATHSIG = 1
_LARGEST = 32 << 20
_PREFERRED = 4096

_settings: Settings
_clients: Clients
_opened = ExitStack()
_ended = threading.Event()


class Failed(Exception):
    """What nbdkit shows in its log."""


def _errno(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno in _KNOWN:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    return errno.EOPNOTSUPP if isinstance(error, Unsupported) else errno.EIO


def _told(call: Callable[P, T]) -> Callable[P, T]:
    """The boundary: whatever a call raises becomes an errno and a line."""

    @functools.wraps(call)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except (DmgError, OSError, ShadowError, MemoryError, Failed) as error:
            why = str(error) or type(error).__name__
            nbdkit.set_error(_errno(error))
        except Exception as error:
            why = f"internal error: {type(error).__name__}: {error}"
            nbdkit.set_error(errno.EIO)
        raise Failed(why) from None

    return telling


# -- the server ----------------------------------------------------------------------------------------------------------


def thread_model() -> int:
    return int(nbdkit.THREAD_MODEL_PARALLEL)


@_told
def get_ready() -> None:
    global _settings, _clients
    hold_signals()
    _settings = settings = taken_over()
    if settings.slow_key:
        from dmgfs.container import encrypted

        encrypted.MOST_ITERATIONS = encrypted.MOST_SLOW_ITERATIONS
    known = settings.passphrase

    def passphrase() -> bytes:
        if known is None:
            raise PassphraseNeeded("the image is encrypted")
        return known

    image = _opened.enter_context(
        open_image(
            settings.image,
            passphrase=passphrase,
            cache_bytes=settings.cache_bytes,
            replay=settings.replay,
            network=_network(settings),
        )
    )
    from dmgfs.identity import disk_identity

    base = disk_identity(image)
    _clients = Clients(
        image.disk,
        {name: View(name, start, size) for name, start, size in settings.exports},
        None if settings.shadow == "none" else lambda client: _store(settings, base, client),
        named=settings.shadow == "folder",
        private=settings.per_client,
        read_only=settings.read_only,
        second=settings.second,
        shadow=settings.where or "in memory",
    )


def _network(settings: Settings) -> "Network | None":
    if settings.network is None:
        return None
    from dmgfs.remote.settings import Settings as Network

    return Network(*settings.network)


def _store(settings: Settings, base: dict[str, str | int | None], client: str) -> Store:
    from overlay.file import FileStore
    from overlay.ram import RamStore

    if settings.shadow == "ram":
        assert settings.budget is not None
        return RamStore(settings.budget)
    path = os.path.join(settings.where, f"{client}.shadow") if settings.shadow == "folder" else settings.where
    if settings.known_only and not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "no shadow file, and new clients are not taken (--known-clients)", path)
    return FileStore.open_file(
        path,
        base,
        budget=settings.budget,
        read_only=settings.read_only,
        force_base=settings.force_base,
        recycle=settings.recycle,
    )


@_told
def after_fork() -> None:
    # nbdkit asks for SIGTERM when its parent ends. Ours does end: it is the command, or a boot script.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
    if _settings.pid_file:
        temporary = f"{_settings.pid_file}.{os.getpid()}"
        Path(temporary).write_text(f"{os.getpid()}\n", encoding="ascii")
        os.rename(temporary, _settings.pid_file)
    log.redirect(_settings.log)
    hang_up_when_told(nbdkit.shutdown, _ended)
    if _settings.ready >= 0:
        with suppress(BrokenPipeError):  # the command was killed meanwhile; the server is there all the same
            os.write(_settings.ready, b"R")
        os.close(_settings.ready)


@_told
def cleanup() -> None:
    _ended.set()
    try:
        _clients.close()
    finally:
        _opened.close()
        for path in (_settings.socket, _settings.pid_file):
            with suppress(OSError):
                os.unlink(path)


# -- exports -------------------------------------------------------------------------------------------------------------


def list_exports(readonly: bool, is_tls: bool) -> list[str]:
    return _clients.names()


def default_export(readonly: bool, is_tls: bool) -> str:
    return next(iter(_clients.names()), "")


# -- connections -----------------------------------------------------------------------------------------------------------


@_told
def open(readonly: bool) -> Connection:
    export = str(nbdkit.export_name())
    try:
        return _clients.connect(export)
    except ShadowError as error:
        raise Failed(f"{export!r}: its shadow: {error}") from None


@_told
def close(connection: Connection) -> None:
    _clients.leave(connection)


def get_size(connection: Connection) -> int:
    return connection.size


def block_size(connection: Connection) -> tuple[int, int, int]:
    return 1, _PREFERRED, _LARGEST


def is_rotational(connection: Connection) -> bool:
    return False


def can_write(connection: Connection) -> bool:
    return connection.writable


def can_flush(connection: Connection) -> bool:
    return connection.seat is not None


def can_trim(connection: Connection) -> bool:
    return connection.writable


def can_zero(connection: Connection) -> bool:
    return connection.writable


def can_fast_zero(connection: Connection) -> bool:
    return connection.writable


def can_extents(connection: Connection) -> bool:
    return True


def can_fua(connection: Connection) -> int:
    return int(nbdkit.FUA_EMULATE if connection.writable else nbdkit.FUA_NONE)


def can_multi_conn(connection: Connection) -> bool:
    """One client may have several connections where nothing is written; a shadow has one writer."""
    return _clients.shared


def can_cache(connection: Connection) -> int:
    return int(nbdkit.CACHE_EMULATE)


@_told
def pread(connection: Connection, buffer: bytearray, offset: int, flags: int) -> None:
    buffer[:] = connection.read(offset, len(buffer))


@_told
def pwrite(connection: Connection, buffer: bytearray, offset: int, flags: int) -> None:
    connection.write(offset, bytes(buffer))


@_told
def flush(connection: Connection, flags: int) -> None:
    connection.sync()


@_told
def trim(connection: Connection, count: int, offset: int, flags: int) -> None:
    connection.discard(offset, count)


@_told
def zero(connection: Connection, count: int, offset: int, flags: int) -> None:
    connection.zero(offset, count)


@_told
def extents(connection: Connection, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    zeros = int(nbdkit.EXTENT_ZERO | nbdkit.EXTENT_HOLE)
    found: list[tuple[int, int, int]] = []
    for one in connection.stretches(offset, count):
        found.append((offset, one.length, zeros if one.zeros else 0))
        offset += one.length
    return found
