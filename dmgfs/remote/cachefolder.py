"""A folder of blocks on the disk, shared by all mounts and verbs of a user (`--network-cache`).

fsspec's own caches do not fit: `filecache` fetches whole objects, `blockcache` keeps one sparse file per object with a list
of blocks that is only written when a file is closed; neither bounds its bytes, none may be shared by processes, and none
notices a block that a power cut tore. So a block is a file here, and these rules hold:
- a file is named after object, version and block, appears by renaming, and begins with a checksum over its name and its
  bytes: what does not fit is removed and fetched again, never served;
- all writing, and the count of bytes (in the lock's file), is done under one lock between processes, so the bound holds for
  all of them together. Who does not get the lock soon does not store: a cache is no reason to wait. Reading takes no lock;
- who is about to fetch a block can claim it, by a lock on a byte of another file, which goes with the process;
- beyond the bound the files go that were not read for the longest time;
- trouble (no room, no permission) is said once and makes this process rest for a minute; it never fails a read;
- the folder is opened once and everything in it is reached from there: it may come to lie below the mount itself. One that
  others may write to is refused.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

DIGEST = 32
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{1,12}\Z")
_NEW = "new-"
_LOCK = "lock"
_CLAIMS = "claims"
_RANGE = struct.Struct("@hhqqi4x")  # struct flock
_PAGE = 4096
_PATIENCE = 0.2
_REST = 60.0
_TOUCH = 60.0
_LARGEST = 64 << 20


class CacheFolder:
    """The folder, for any number of objects. Use `open`."""

    def __init__(self, path: str, descriptor: int, lock: int, claims: int, budget: int) -> None:
        self.path = path
        self.budget = budget
        self._folder = descriptor
        self._lock_file = lock
        self._claims = claims
        self._turn = threading.Lock()
        self._claiming = threading.Lock()
        self._rests_until = 0.0

    @classmethod
    def open(cls, path: str | None, budget: int) -> "CacheFolder | None":
        """Makes the folder if there is none. None without a path, and where it cannot be had, which is logged. Raises
        PermissionError for a folder that others may write to."""
        if path is None:
            return None
        opened: list[int] = []
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.append(folder)
            status = os.fstat(folder)
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (0, os.geteuid()):
                why = "others may write to this folder: keep no blocks in it (chmod 700, or another --network-cache)"
                raise PermissionError(errno.EPERM, why, path)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(_LOCK, flags, 0o600, dir_fd=folder)
            opened.append(lock)
            claims = os.open(_CLAIMS, flags, 0o600, dir_fd=folder)
        except OSError as error:
            for descriptor in opened:
                os.close(descriptor)
            if error.errno == errno.EPERM:
                raise
            log.warning("%s: %s: nothing is kept on the disk", ascii(path)[1:-1], error.strerror)
            return None
        return cls(path, folder, lock, claims, budget)

    def close(self) -> None:
        """May be called twice; afterwards nothing is found and nothing stored."""
        with self._turn, self._claiming:
            if self._folder >= 0:
                os.close(self._folder)
                os.close(self._lock_file)
                os.close(self._claims)
            self._folder = self._lock_file = self._claims = -1

    def of(self, key: str) -> "ObjectBlocks":
        """The blocks of one version of one object. key: any text that names it."""
        return ObjectBlocks(self, hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32])

    def get(self, name: str) -> bytes | None:
        """What was stored under this name, exactly that, or None."""
        try:
            file = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._folder)
        except OSError:
            return None
        try:
            with open(file, "rb", buffering=0) as opened:
                status = os.fstat(file)
                if status.st_size > _LARGEST:
                    return None
                content = opened.read()
                if time.time() - status.st_mtime > _TOUCH:
                    os.utime(file)
        except OSError:
            return None
        data = content[DIGEST:]
        if content[:DIGEST] == _digest(name, data):
            return data
        self._remove(name)
        return None

    def has(self, name: str) -> bool:
        """Whether there is something under this name, right or not."""
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return True

    def put(self, name: str, data: bytes) -> None:
        """Keeps it if it can be kept."""
        if time.monotonic() < self._rests_until:
            return
        try:
            with self._turn:
                if self._folder >= 0:
                    with self._locked() as have:
                        if have:
                            self._store(name, data)
        except OSError as error:
            self._rests_until = time.monotonic() + _REST
            log.warning("%s: %s: nothing is kept for a minute", ascii(self.path)[1:-1], error.strerror)

    def claim(self, name: str) -> bool:
        """False: somebody else has claimed it. Ends with `release`, and with the process."""
        return self._mark(name, fcntl.F_WRLCK)

    def release(self, name: str) -> None:
        self._mark(name, fcntl.F_UNLCK)

    def _mark(self, name: str, kind: int) -> bool:
        place = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest())
        try:
            with self._claiming:
                if self._claims >= 0:
                    fcntl.fcntl(self._claims, fcntl.F_OFD_SETLK, _RANGE.pack(kind, os.SEEK_SET, place, 1, 0))
        except OSError as error:
            return error.errno not in (errno.EAGAIN, errno.EACCES)  # a file system without locks: everybody fetches
        return True

    def _store(self, name: str, data: bytes) -> None:
        need = _room(DIGEST + len(data))
        if need > self.budget or self.has(name):
            return
        counted = os.pread(self._lock_file, 8, 0)
        used = int.from_bytes(counted, "little") if len(counted) == 8 else None
        if used is None or used + need > self.budget:
            used = self._sweep(need)
        os.pwrite(
            self._lock_file, (used + need).to_bytes(8, "little"), 0
        )  # before: a crash makes it too much, not too little
        new = f"{_NEW}{name}"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            with open(file, "wb", buffering=0) as opened:
                content = _digest(name, data) + data
                if opened.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.rename(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            self._remove(new)
            raise

    def _sweep(self, need: int) -> int:
        """Removes what is left of broken writes and, if `need` more bytes do not fit, the files longest unread until an
        eighth is free; the bytes that remain. Under the lock, so nothing is being written."""
        found: list[tuple[float, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(_NEW):
                    self._remove(entry.name)
                elif _NAME.match(entry.name):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # removed meanwhile
                    found.append((status.st_mtime, _room(status.st_size), entry.name))
        used = sum(size for _, size, _ in found)
        if used + need <= self.budget:
            return used
        goal = self.budget - max(self.budget // 8, need)
        for _, size, name in sorted(found):
            if used <= goal:
                break
            if self._remove(name):
                used -= size
        return used

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(name, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether the lock could be had."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    yield False
                    return
                time.sleep(0.005)
        try:
            yield True
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


class ObjectBlocks:
    """One object's blocks in the folder, by number. See `blocks.Kept`."""

    def __init__(self, folder: CacheFolder, key: str) -> None:
        self._folder = folder
        self._key = key

    def get(self, index: int) -> bytes | None:
        return self._folder.get(f"{self._key}-{index:x}")

    def put(self, index: int, data: bytes) -> None:
        self._folder.put(f"{self._key}-{index:x}", data)

    def has(self, index: int) -> bool:
        return self._folder.has(f"{self._key}-{index:x}")

    def claim(self, index: int) -> bool:
        return self._folder.claim(f"{self._key}-{index:x}")

    def release(self, index: int) -> None:
        self._folder.release(f"{self._key}-{index:x}")


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST, key=name.encode()).digest()


def _room(size: int) -> int:
    """What a file of this size takes on the disk, about."""
    return -(-size // _PAGE) * _PAGE
