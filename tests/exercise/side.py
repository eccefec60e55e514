"""One of two directories on which the same operations are done: each operation is a method here, so there is one place that
says how it is done. Its arguments say all of it (paths, offsets, the seed of the data).
"""

import ctypes
import errno
import hashlib
import mmap
import os
import random
import stat
from pathlib import Path

SLOTS = 6
"""Files that are held open at a time, across renames and unlinks."""

NAMES = [f"{word}{number}" for word in ("ant", "bee", "cat", "dog", "elk") for number in range(4)]
ATTRIBUTES = ["user.a", "user.b", "user.c", "trusted.t", "security.s"]
SPACES = ("user.", "trusted.", "security.")
SIZES = [0, 1, 100, 4095, 4096, 4097, 20000, 70000, 300000]
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source: bytes, target: bytes, flags: int) -> None:
    if libc.renameat2(-100, source, -100, target, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def data(seed: int, length: int) -> bytes:
    """Bytes that are the same for both sides; half of the seeds give compressible ones."""
    if seed % 2:
        return random.Random(seed).randbytes(length)
    return (b"%d " % seed * (length // 2 + 1))[:length]


class Side:
    """One of the two directories. Every operation returns something comparable or raises OSError. most: bytes that a write
    takes at most, None for all of them."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.open_files: dict[int, int] = {}
        self.most: int | None = None

    def data(self, seed: int, length: int) -> bytes:
        return data(seed, length)[: self.most]

    def at(self, path: str) -> bytes:
        return os.path.join(self.root, os.fsencode(path))

    def close_all(self) -> None:
        for file in self.open_files.values():
            os.close(file)
        self.open_files.clear()

    # Names.

    def create(self, path: str, mode: int) -> None:
        os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self.at(path), mode, device)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def link(self, path: str, new: str) -> None:
        os.link(self.at(path), self.at(new), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def rename(self, path: str, new: str) -> None:
        os.rename(self.at(path), self.at(new))

    def rename_noreplace(self, path: str, new: str) -> None:
        renameat2(self.at(path), self.at(new), RENAME_NOREPLACE)

    def exchange(self, path: str, new: str) -> None:
        renameat2(self.at(path), self.at(new), RENAME_EXCHANGE)

    def listdir(self, path: str) -> list[bytes]:
        return sorted(os.listdir(self.at(path)))

    def readlink(self, path: str) -> bytes:
        return os.readlink(self.at(path))

    def remove_tree(self, path: str) -> None:
        top = self.at(path)
        for folder, folders, files in os.walk(top, topdown=False):
            for name in files:
                os.unlink(os.path.join(folder, name))
            for name in folders:
                inner = os.path.join(folder, name)
                if os.path.islink(inner):
                    os.unlink(inner)
                else:
                    os.rmdir(inner)
        os.rmdir(top)

    # Contents by path.

    def write(self, path: str, offset: int, seed: int, length: int) -> int:
        file = os.open(self.at(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            return os.pwrite(file, self.data(seed, length), offset)
        finally:
            os.close(file)

    def rewrite(self, path: str, seed: int, length: int) -> int:
        """What an editor does: open with O_TRUNC, write all."""
        file = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
        try:
            return os.write(file, self.data(seed, length))
        finally:
            os.close(file)

    def append(self, path: str, seed: int, length: int) -> int:
        file = os.open(self.at(path), os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        try:
            return os.write(file, self.data(seed, length))
        finally:
            os.close(file)

    def truncate(self, path: str, size: int) -> None:
        self.need_plain_file(path)
        os.truncate(self.at(path), size)

    def read(self, path: str, offset: int, length: int) -> str:
        self.need_plain_file(path)
        with open(self.at(path), "rb", buffering=0) as file:
            file.seek(offset)
            return hashlib.sha256(file.read(length)).hexdigest()

    def far_and_back(self, path: str, offset: int, seed: int, length: int) -> tuple[str, bool]:
        """Writes far behind the end, reads around it, cuts it off again: what was read, and whether it took no more room
        than what was written."""
        self.need_plain_file(path)
        file = os.open(self.at(path), os.O_RDWR)
        try:
            before = os.fstat(file)
            os.pwrite(file, self.data(seed, length), offset)
            taken = 512 * (os.fstat(file).st_blocks - before.st_blocks)
            around = os.pread(file, length + 10000, offset - 5000)
            os.ftruncate(file, before.st_size)
            return hashlib.sha256(around).hexdigest(), taken <= length + 5 * 4096
        finally:
            os.close(file)

    def map_write(self, path: str, seed: int) -> int:
        """Changes some bytes of the file through a shared mapping."""
        self.need_plain_file(path)
        with open(self.at(path), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 0
            with mmap.mmap(file.fileno(), size) as pages:
                start = seed % size
                part = data(seed, min(5000, size - start))
                pages[start : start + len(part)] = part
        return size

    def map_sync(self, path: str, seed: int) -> int:
        """Changes a few bytes inside one page through a shared mapping and waits until they are safe."""
        self.need_plain_file(path)
        with open(self.at(path), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 0
            with mmap.mmap(file.fileno(), size) as pages:
                start = seed % size
                part = data(seed, min(100, size - start, 4096 - start % 4096))
                pages[start : start + len(part)] = part
                pages.flush()
        return size

    def need_plain_file(self, path: str) -> None:
        """A FIFO would wait for ever and a device would answer: neither is ours to test here."""
        mode = os.stat(self.at(path)).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "not a file")

    # Metadata.

    def lstat(self, path: str) -> tuple[int, ...]:
        status = os.lstat(self.at(path))
        if stat.S_ISDIR(status.st_mode):
            return (status.st_mode, status.st_uid, status.st_gid)
        return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink, status.st_rdev)

    def chmod(self, path: str, mode: int) -> None:
        if os.path.islink(self.at(path)):
            raise OSError(errno.EINVAL, "chmod would follow the link")
        os.chmod(self.at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def utime(self, path: str, seconds: int) -> None:
        os.utime(self.at(path), (seconds, seconds), follow_symlinks=False)
        if int(os.lstat(self.at(path)).st_mtime) != seconds:
            raise AssertionError(f"utime of {path} did not set mtime to {seconds}")

    def setxattr(self, path: str, name: str, seed: int, length: int, flags: int) -> None:
        os.setxattr(self.at(path), name, data(seed, length), flags, follow_symlinks=False)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.at(path), name, follow_symlinks=False)

    def listxattr(self, path: str) -> list[str]:
        return sorted(name for name in os.listxattr(self.at(path), follow_symlinks=False) if name.startswith(SPACES))

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self.at(path), name, follow_symlinks=False)

    # Files held open.

    def hold(self, slot: int, path: str) -> None:
        self.need_plain_file(path)
        file = os.open(self.at(path), os.O_RDWR)
        if slot in self.open_files:
            os.close(self.open_files[slot])
        self.open_files[slot] = file

    def hold_new(self, slot: int, path: str) -> None:
        """Creates a file, holds it, and takes its name away at once: a temporary file."""
        file = os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if slot in self.open_files:
            os.close(self.open_files[slot])
        self.open_files[slot] = file
        os.unlink(self.at(path))

    def let_go(self, slot: int) -> None:
        if slot in self.open_files:
            os.close(self.open_files.pop(slot))

    def held_write(self, slot: int, offset: int, seed: int, length: int) -> int:
        return os.pwrite(self.held(slot), self.data(seed, length), offset)

    def held_read(self, slot: int, offset: int, length: int) -> str:
        return hashlib.sha256(os.pread(self.held(slot), length, offset)).hexdigest()

    def held_truncate(self, slot: int, size: int) -> None:
        os.ftruncate(self.held(slot), size)

    def held_stat(self, slot: int) -> tuple[int, ...]:
        status = os.fstat(self.held(slot))
        return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink)

    def held_chmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.held(slot), mode)

    def held_sync(self, slot: int) -> None:
        os.fsync(self.held(slot))

    def held(self, slot: int) -> int:
        if slot not in self.open_files:
            raise OSError(errno.EBADF, "nothing is held there")
        return self.open_files[slot]
