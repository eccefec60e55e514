"""Playing and recording of playlists: a mount notes which parts of the disk are asked for, and the next one has them
decoded before they are (see `dmgfs.playlist`).

Rules that hold here:
- the disk is watched, not the files: what lies above (trees, folders, files, compressed files) comes by itself;
- a part is what one decode yields, 128 KiB where nothing is decoded. Replaying goes to the disk below the watch, so it
  records nothing;
- replaying is one thread of its own, which begins before the volume is opened and never holds up a reader: who wants what
  it is decoding waits for that decode, and nothing queues behind it. What it fetched and nobody has asked for yet is
  bounded: then it waits. If readers meanwhile ask for listed parts that it has not fetched, it takes the older half of
  those for not wanted any more and goes on;
- a recording is bounded in parts and in time and saved while it grows, because a live root is never unmounted. Its folder
  is opened before the mount is ready; a list that cannot be saved or used is a warning, never a failed mount.
"""

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from dmgfs.errors import DmgError
from dmgfs.fuse.boundary import trace
from dmgfs.fuse.firstuses import FirstUses
from dmgfs.image import Image
from dmgfs.lower import VolumeLower
from dmgfs.playlist import MOST_LENGTH, Part, Playlist, identity_of, merge, read_file, trim, write_file
from dmgfs.source import Buffer, ByteSource, Load

log = logging.getLogger(__name__)

MOST_RECORDED = 1 << 14
"""Entries of a recording: 4 GiB of 256 KiB chunks."""

MOST_AUTOMATIC = 256 << 20
"""Bytes of disk in a list that nobody asked for by name."""

SAVE_SECONDS = 5.0
RECORD_SECONDS = 600.0
AUTOMATIC_SECONDS = 120.0

MOST_KEPT = 64
"""Lists in the folder of automatic ones; the longest unused go first."""

SUFFIX = ".playlist"
_AUTOMATIC = re.compile(r"[0-9a-f]{32}\.playlist\Z")

PLAIN_PART = 128 << 10

PATIENCE = 5.0
"""Seconds for a read that hangs before `stop` leaves its thread behind."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What --playlist asks for. path: of the list, "" for auto."""

    kind: Literal["record", "use", "auto"]
    path: str = ""


class _InParts(Protocol):
    def parts(self, offset: int, length: int) -> Iterable[Part]: ...


class WatchedDisk:
    """`disk`, and what was read of it, by any thread. `touches`: the parts in the order of first touch; a part stands there
    again if it was touched once more after `memory` bytes of other parts: by then it may be out of the cache."""

    def __init__(self, disk: ByteSource, memory: int) -> None:
        self.size = disk.size
        self.below = disk
        self.touches: list[Part] = []
        self.listener: Replay | None = None
        self._memory = memory
        self._parts = cast(_InParts, disk).parts if hasattr(disk, "parts") else self._plain_parts
        self._latest = (0, 0)
        self._when: dict[int, int] = {}
        self._clock = 0

    def read(self, offset: int, length: int) -> Buffer:
        start, end = self._latest
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
            if size > MOST_LENGTH:
                continue
            when = self._when.get(start)
            if (when is None or self._clock - when > self._memory) and len(self.touches) < MOST_RECORDED:
                self.touches.append((start, size))
                self._clock += size
            self._when[start] = self._clock
            if self.listener is not None:
                self.listener.touch(start)
            self._latest = start, start + size


class Replay:
    """Has the parts of a list decoded before they are asked for, in a thread of its own, at most `budget` bytes ahead."""

    def __init__(self, parts: Sequence[Part], disk: ByteSource, budget: int) -> None:
        self._parts = parts
        self._disk = disk
        self._budget = budget
        self._unread: dict[int, int] = {}
        self._listed = {start for start, _ in parts}
        self._passed: set[int] = set()
        self._early: set[int] = set()  # asked for before they were fetched
        self._ahead = 0
        self._waits = False
        self._ended = False
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="dmgfs-playlist-replay", daemon=True)
        self.fetched = 0
        self.wanted = 0

    @property
    def too_late(self) -> int:
        return len(self._early)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._room:
            self._ended = True
            self._room.notify()
        self._thread.join(PATIENCE)

    def touch(self, start: int) -> None:
        """A reader came to a part; in any thread."""
        if self._ended or start not in self._listed:
            return
        with self._room:
            length = self._unread.pop(start, None)
            if length is not None:
                self._ahead -= length
                self.wanted += 1
            elif start not in self._passed and start not in self._early:
                self._early.add(start)
                self._give_up_half()
            self._room.notify()

    def _give_up_half(self) -> None:
        """If there is no room for the next part, while readers ask for others than those that were fetched."""
        if self._waits:
            for start in list(self._unread)[: (len(self._unread) + 1) // 2]:
                self._ahead -= self._unread.pop(start)

    def _run(self) -> None:
        try:
            for start, length in self._parts:
                if not self._claim(start, length):
                    continue
                if self._ended:
                    return
                self._fetch(start, length)
        except Exception as error:
            log.error("playlist: replaying failed: %r\n%s", error, trace(error))

    def _claim(self, start: int, length: int) -> bool:
        """Waits for room and counts the part as fetched. False if nobody needs that."""
        with self._room:
            again = start in self._passed
            self._passed.add(start)
            if length > self._budget or start in self._unread or (start in self._early and not again):
                return False
            self._waits = self._ahead + length > self._budget
            self._room.wait_for(lambda: self._ended or self._ahead + length <= self._budget)
            self._waits = False
            self._unread[start] = length
            self._ahead += length
            self.fetched += 1
        return True

    def _fetch(self, start: int, length: int) -> None:
        try:
            loads = self._disk.cold(start, length)
            for load in loads:
                load.run()
            if not loads:
                self._disk.read(start, 1)  # it is here; now it stays a while longer
        except (DmgError, OSError):
            pass  # whoever wants it will be told


class Playing:
    """What --playlist asked for on one mount. Made before a volume is opened: it puts the watch over `image.disk`, and
    replaying begins at once."""

    def __init__(self, wish: Wish, image: Image) -> None:
        self._wish = wish
        self._image = identity_of(image.container)
        self._folder = -1
        self._name = ""
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self._saved = (-1, -1)
        self._uses: FirstUses | None = None
        self._disk = WatchedDisk(image.disk, image.cache.budget // 4)
        self._list = self._prepare()
        image.disk = self._disk
        if self._list is not None:
            self._disk.listener = Replay(self._list.parts, self._disk.below, image.cache.budget // 2)
            self._disk.listener.start()

    def watch(self, lower: VolumeLower) -> None:
        """What shows the volume. Before the mount serves."""
        if self._folder >= 0:
            self._uses = FirstUses(lower)

    def _prepare(self) -> Playlist | None:
        """Opens what recording needs; the list to replay."""
        if self._wish.kind == "use":
            return self._load(self._wish.path)
        if self._wish.kind == "record":
            folder, self._name = os.path.split(self._wish.path)
            self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return None
        path = automatic_folder()
        self._name = f"{self._image}{SUFFIX}"
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            owner = os.fstat(self._folder).st_uid
            if owner != os.geteuid():
                raise OSError(errno.EPERM, f"it belongs to user {owner}", path)
        except OSError as error:
            log.warning("playlist: %s: %s; none is kept", ascii(path)[1:-1], error.strerror)
            self._close()
            return None
        try:
            os.utime(self._name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return None  # the first start of this image
        return self._load(self._name)

    def _load(self, name: str) -> Playlist | None:
        try:
            found = read_file(name, self._folder if self._folder >= 0 else None)
        except (OSError, DmgError) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            log.warning("playlist %s is ignored: %s", ascii(name)[1:-1], ascii(why)[1:-1])
            return None
        if (found.image, found.disk) != (self._image, self._disk.size):
            log.warning("playlist %s is ignored: it was recorded with another image", ascii(name)[1:-1])
            return None
        return found

    def start(self) -> None:
        """When the mount stands: from here on a recording is kept."""
        if self._folder >= 0:
            self._keeper = threading.Thread(target=self._keep, name="dmgfs-playlist", daemon=True)
            self._keeper.start()

    def stop(self) -> None:
        """Before the image is closed. May be called twice."""
        self._stop.set()
        if self._disk.listener is not None:
            self._disk.listener.stop()
        if self._keeper is not None:
            self._keeper.join(PATIENCE)

    def describe(self) -> str:
        """For the statistics."""
        words = []
        if self._disk.listener is not None and self._list is not None:
            one = self._disk.listener
            words.append(
                f"{one.fetched} of {len(self._list.parts)} parts fetched ahead, {one.wanted} of them wanted, "
                f"{one.too_late} too late"
            )
        if self._keeper is not None:
            words.append(f"{len(self._disk.touches)} parts recorded, {max(self._saved[0], 0)} kept")
        return f"playlist {', '.join(words) or 'without use'}"

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
            if self._uses is not None:
                self._uses.stop()
            self._close()

    def _save(self) -> None:
        files = () if self._uses is None else self._uses.files()
        now = Playlist(self._image, self._disk.size, tuple(self._disk.touches), files)
        if self._wish.kind == "auto":
            now = trim(now if self._list is None else merge([self._list, now]), MOST_AUTOMATIC)
        if (len(now.parts), len(now.files)) != self._saved:
            write_file(now, self._name, self._folder)
            self._saved = len(now.parts), len(now.files)

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
