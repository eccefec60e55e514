"""A Place is a writable directory on the file system under test, and knows how to come by an object of any kind there: by
making it, or, on a mount, by taking one that lies in the image. The rules of POSIX are the same for both, so the tests
never ask which it was."""

import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ["file", "dir", "fifo", "symlink", "socket", "chr", "blk"]


@dataclass
class Place:
    """root: an empty directory, mode 0755, owner 0:0. pool: a directory of the image with ready objects called
    `<kind>-<number>`, None where objects are made."""

    name: str
    root: Path
    pool: Path | None = None
    taken: dict[str, int] = field(default_factory=dict)

    def __truediv__(self, name: str) -> str:
        return f"{self.root}/{name}"  # a Path would tidy "d/." away

    def make(self, kind: str, name: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> str:
        """An object of that kind at root/name with these permissions and owners. A symlink points to "target"."""
        path = self / name
        if self.pool is not None:
            number = self.taken.get(kind, 0)
            self.taken[kind] = number + 1
            os.rename(self.pool / f"{kind}-{number}", path)
        elif kind == "file":
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        elif kind == "dir":
            os.mkdir(path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "symlink":
            os.symlink("target", path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                # A socket's address is short: bind by a relative name.
                here = os.open(".", os.O_RDONLY)
                os.chdir(self.root)
                listener.bind(name)
                os.fchdir(here)
                os.close(here)
        else:
            os.mknod(path, 0o644 | (stat.S_IFCHR if kind == "chr" else stat.S_IFBLK), os.makedev(1, 7))
        os.chown(path, uid, gid, follow_symlinks=False)
        if kind != "symlink":
            os.chmod(path, mode)
        return path

    def write(self, name: str, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> str:
        """A file of that content."""
        path = self.make("file", name, mode, uid, gid)
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            if data:
                os.write(descriptor, data)
        finally:
            os.close(descriptor)
        os.chmod(path, mode)
        return path
