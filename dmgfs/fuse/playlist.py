"""Playing and recording of playlists: a mount notes which parts of the disk are asked for, and the next one has them
decoded before they are (see `dmgfs.playlist`).

Rules that hold here:
- the disk is watched, not the files: what lies above (trees, folders, files, compressed files) comes by itself;
- a part is what one decode yields, 128 KiB where nothing is decoded. Replaying goes to the disk below the watch, so it
  records nothing;
- replaying is background work, a few parts at a time, and what it fetched and nobody has asked for yet is bounded: beyond
  that it waits. If asked for something that it has not fetched while it waits, it takes the older half for not wanted any
  more and goes on;
- a recording is bounded in parts and in time and saved while it grows, because a live root is never unmounted. Its folder
  is opened before the mount is ready; a list that cannot be saved or used is a warning, never a failed mount.
"""

import errno
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import trio

from dmgfs.errors import DmgError
from dmgfs.fuse.boundary import trace
from dmgfs.fuse.pool import Flight, Pool
from dmgfs.image import Image
from dmgfs.playlist import MOST_LENGTH, Part, Playlist, identity_of, merge, read_file, trim, write_file
from dmgfs.source import Buffer, ByteSource, Cold, Load

log = logging.getLogger(__name__)

MOST_RECORDED = 1 << 14
"""Parts of a recording: 4 GiB of 256 KiB chunks."""

MOST_AUTOMATIC = 256 << 20
"""Bytes of disk in a list that nobody asked for by name."""

SAVE_SECONDS = 10.0
RECORD_SECONDS = 600.0
AUTOMATIC_SECONDS = 120.0

MOST_KEPT = 64
"""Lists in the folder of automatic ones; the longest unused go first."""

SUFFIX = ".playlist"
_AUTOMATIC = re.compile(r"[0-9a-f]{32}\.playlist\Z")

PLAIN_PART = 128 << 10
IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What --playlist asks for. path: of the list, "" for auto."""

    kind: Literal["record", "use", "auto"]
    path: str = ""


class _InParts(Protocol):
    def parts(self, offset: int, length: int) -> Iterable[Part]: ...


class WatchedDisk:
    """`disk`, and what was read of it: `touched`, offset → length of each part in the order of first touch. Any thread
    may read. `listener` hears of each part's first touch, in that thread."""

    def __init__(self, disk: ByteSource) -> None:
        self.size = disk.size
        self.below = disk
        self.touched: dict[int, int] = {}
        self.listener: Listener | None = None
        self._parts = cast(_InParts, disk).parts if hasattr(disk, "parts") else self._plain_parts
        self._last = (0, 0)

    def read(self, offset: int, length: int) -> Buffer:
        start, end = self._last
        if not (start <= offset and offset + length <= end):
            self._note(offset, length)
        return self.below.read(offset, length)

    def cold(self, offset: int, length: int) -> Sequence[Load]:
        return self.below.cold(offset, length)

    def _plain_parts(self, offset: int, length: int) -> Iterator[Part]:
        for start in range(offset - offset % PLAIN_PART, offset + length, PLAIN_PART):
            yield start, min(PLAIN_PART, self.size - start)

    def _note(self, offset: int, length: int) -> None:
        if offset < 0 or length <= 0 or offset + length > self.size:
            return  # the read itself says what is wrong
        for start, size in self._parts(offset, length):
            if start not in self.touched and len(self.touched) < MOST_RECORDED and size <= MOST_LENGTH:
                self.touched[start] = size
                if self.listener is not None:
                    self.listener.touch(start)
            self._last = start, start + size


class Listener(Protocol):
    def touch(self, start: int) -> None: ...


class Replay:
    """Fetches the parts of a list ahead of whoever will want them, at most `budget` bytes ahead."""

    def __init__(self, parts: Sequence[Part], disk: ByteSource, pool: Pool, budget: int) -> None:
        self._parts = parts
        self._disk = disk
        self._pool = pool
        self._budget = budget
        self._unread: dict[int, int] = {}
        self._ahead = 0
        self._late: set[int] = set()  # touched before they were fetched
        self._listed = {start for start, _ in parts}
        self._lock = threading.Lock()
        self._room: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self.fetched = 0
        self.wanted = 0

    @property
    def late(self) -> int:
        return len(self._late)

    def touch(self, start: int) -> None:
        """A reader's first touch of a part, in any thread."""
        if start not in self._listed:
            return
        with self._lock:
            length = self._unread.pop(start, None)
            if length is not None:
                self._ahead -= length
                self.wanted += 1
            else:
                self._late.add(start)
                if self._room is not None:
                    self._give_up_half()
            room = self._room if self._ahead < self._budget else None
            if room is not None:
                self._room = None
        if room is not None and self._token is not None:
            self._token.run_sync_soon(room.set)

    def _give_up_half(self) -> None:
        for start in list(self._unread)[: (len(self._unread) + 1) // 2]:
            self._ahead -= self._unread.pop(start)

    async def run(self) -> None:
        """On the trio thread, once the pool is attached."""
        self._token = trio.lowlevel.current_trio_token()
        flying: deque[Flight] = deque()
        for start, length in self._parts:
            while (room := self._claim(start, length)) is not None:
                await room.wait()
            for load in self._loads(start, length):
                flight = self._pool.read_ahead(load)
                if flight is not None:
                    flying.append(flight)
                while len(flying) >= IN_FLIGHT:
                    await flying.popleft().landed.wait()

    def _claim(self, start: int, length: int) -> trio.Event | None:
        """Counts the part as fetched, unless nobody needs that; what to wait for if there is no room."""
        with self._lock:
            if start in self._late or length > self._budget:
                return None
            if self._ahead + length > self._budget:
                self._room = trio.Event()
                return self._room
            self._unread[start] = length
            self._ahead += length
            self.fetched += 1
        return None

    def _loads(self, start: int, length: int) -> Sequence[Load]:
        if start not in self._unread:
            return ()
        try:
            return self._disk.cold(start, length)
        except Cold as cold:
            return cold.loads  # where it is stored is not in memory either
        except DmgError:
            return ()


class Playing:
    """What --playlist asked for on one mount. Made before a volume is opened: it puts the watch over `image.disk`."""

    def __init__(self, wish: Wish, image: Image, pool: Pool) -> None:
        self._wish = wish
        self._pool = pool
        self._budget = image.cache.budget // 2
        self._image = identity_of(image.container)
        self._list: Playlist | None = None
        self._folder = -1
        self._name = ""
        self._replay: Replay | None = None
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self._saved = -1
        self._disk = WatchedDisk(image.disk)
        image.disk = self._disk
        if wish.kind == "auto":
            self._open_automatic()
        elif wish.kind == "record":
            folder, self._name = os.path.split(os.path.abspath(wish.path))
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            self._load(wish.path)

    def _open_automatic(self) -> None:
        path = automatic_folder()
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            owner = os.fstat(self._folder).st_uid
            if owner != os.geteuid():
                raise OSError(errno.EPERM, f"it belongs to user {owner}", path)
        except OSError as error:
            log.warning("playlist: %s: %s; none is kept", ascii(path)[1:-1], error.strerror)
            self._close()
            return
        self._name = f"{self._image}{SUFFIX}"
        try:
            os.utime(self._name, dir_fd=self._folder)
        except OSError:
            return  # the first start of this image
        self._load(self._name)

    def _load(self, name: str) -> None:
        try:
            found = read_file(name, self._folder if self._folder >= 0 else None)
        except (OSError, DmgError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("playlist %s is ignored: %s", ascii(name)[1:-1], ascii(why)[1:-1])
            return
        if (found.image, found.disk) != (self._image, self._disk.size):
            log.warning("playlist %s is ignored: it was recorded with another image", ascii(name)[1:-1])
            return
        self._list = found

    def start(self) -> None:
        """On the trio thread, when the pool is attached."""
        if self._list is not None:
            parts = [part for part in self._list.parts if part[0] not in self._disk.touched]
            self._replay = Replay(parts, self._disk.below, self._pool, self._budget)
            self._disk.listener = self._replay
            trio.lowlevel.spawn_system_task(self._play, name="playlist")
        if self._folder >= 0:
            self._keeper = threading.Thread(target=self._keep, name="dmgfs-playlist", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        self._stop.set()
        if self._keeper is not None:
            self._keeper.join(SAVE_SECONDS)

    def describe(self) -> str:
        """For the statistics."""
        words = []
        if self._replay is not None and self._list is not None:
            one = self._replay
            words.append(
                f"{one.fetched} of {len(self._list.parts)} parts fetched ahead, {one.wanted} of them wanted, "
                f"{one.late} wanted too early"
            )
        if self._name:
            words.append(f"{max(self._saved, 0)} parts kept")
        return f"playlist {', '.join(words) or 'without use'}"

    async def _play(self) -> None:
        assert self._replay is not None
        try:
            await self._replay.run()
        except Exception as error:  # in a system task it would end the mount
            log.error("playlist: replaying failed: %r\n%s", error, trace(error))

    def _keep(self) -> None:
        """The recording thread: saves what is new now and then, and for good at the end."""
        automatic = self._wish.kind == "auto"
        end = time.monotonic() + (AUTOMATIC_SECONDS if automatic else RECORD_SECONDS)
        try:
            while time.monotonic() < end and not self._stop.wait(SAVE_SECONDS):
                self._save()
            self._save()
            if automatic:
                self._prune()
        except OSError as error:
            log.warning("playlist %s cannot be saved: %s", ascii(self._name)[1:-1], error.strerror)
        finally:
            self._close()

    def _save(self) -> None:
        now = Playlist(self._image, self._disk.size, tuple(self._disk.touched.items())[:MOST_RECORDED])
        if self._wish.kind == "auto":
            now = trim(now if self._list is None else merge([self._list, now]), MOST_AUTOMATIC)
        if len(now.parts) != self._saved:
            write_file(now, self._name, self._folder)
            self._saved = len(now.parts)

    def _prune(self) -> None:
        """The longest unused lists go."""
        names = [name for name in os.listdir(self._folder) if _AUTOMATIC.match(name)]
        if len(names) > MOST_KEPT:
            names.sort(key=lambda name: os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mtime)
            for name in names[: len(names) - MOST_KEPT]:
                os.unlink(name, dir_fd=self._folder)

    def _close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def automatic_folder() -> str:
    """Where lists are kept that nobody named."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "dmgfs")
    return "/var/cache/dmgfs" if os.geteuid() == 0 else os.path.expanduser("~/.cache/dmgfs")
