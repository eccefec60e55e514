"""A process that looks at everything on a mount: names, attributes, links, extended attributes, every byte. Run on its own,
because whoever looks into a mount that hangs hangs with it:

    python walkthrough.py PLACE [SECONDS]     prints {"objects": n, "bytes": n, "errors": {"EIO": n, ...}, "complete": bool}

Errors are counted, not raised: the mount may be of a damaged image. What it may answer is the caller's business.
"""

import errno
import json
import os
import stat
import sys
import time
from collections import Counter

MOST_OBJECTS = 20_000
"""Damage can make a folder contain itself."""
MOST_OF_A_FILE = 32 << 20
BLOCK = 1 << 20


class Walk:
    """What was seen so far."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.objects = self.bytes = 0
        self.errors: Counter[str] = Counter()

    @property
    def over(self) -> bool:
        return self.objects >= MOST_OBJECTS or time.monotonic() > self.end

    def attempt(self, function, *arguments, **options):
        """The function's result, None where it fails."""
        try:
            return function(*arguments, **options)
        except OSError as error:
            self.errors[errno.errorcode.get(error.errno or 0, "?")] += 1
            return None

    def everything(self, root: bytes) -> None:
        todo = [root]
        while todo and not self.over:
            folder = todo.pop()
            for name in self.attempt(os.listdir, folder) or ():
                path = os.path.join(folder, name)
                self.objects += 1
                if self.over:
                    return
                if self.one(path):
                    todo.append(path)

    def one(self, path: bytes) -> bool:
        """Looks at one object; whether it is a folder."""
        status = self.attempt(os.lstat, path)
        if status is None:
            return False
        for name in self.attempt(os.listxattr, path, follow_symlinks=False) or ():
            self.attempt(os.getxattr, path, name, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            self.attempt(os.readlink, path)
        elif stat.S_ISREG(status.st_mode):
            self.attempt(self.read, path)
        return stat.S_ISDIR(status.st_mode)

    def read(self, path: bytes) -> None:
        """Whole, or its beginning and its end if it is large (or says so); a block that fails does not hide the next."""
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            size = os.fstat(file).st_size
            blocks = list(range(0, min(size, MOST_OF_A_FILE), BLOCK))
            if size > MOST_OF_A_FILE:
                blocks += [size // 2, size - BLOCK]
            for offset in blocks:
                if self.over:
                    return
                self.bytes += len(self.attempt(os.pread, file, BLOCK, offset) or b"")
        finally:
            os.close(file)


if __name__ == "__main__":
    walk = Walk(float(sys.argv[2]) if len(sys.argv) > 2 else 60)
    walk.everything(os.fsencode(sys.argv[1]))
    print(
        json.dumps(
            {"objects": walk.objects, "bytes": walk.bytes, "errors": walk.errors, "complete": not walk.over},
        )
    )
