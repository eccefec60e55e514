"""The program with a lower that fails on demand: a look-up of `raise NAME` raises the exception of that name, in the way a
bug in a parser would; one of `from now on NAME` makes other requests fail so (`from now on :ANYTHING`: no more).
Run as `faulty.py mount -f IMAGE PLACE ...`.
"""

import builtins
import sys
from collections.abc import Hashable
from typing import Any, NoReturn

from dmgfs.cli import main
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.fuse import boundary, extras
from dmgfs.fuse.operations import DmgOperations
from dmgfs.lower import VolumeLower
from dmgfs.source import Cold, Load
from overlay.vfs import Content, Entry, Listing


class Failing(VolumeLower):
    """Fails where the name or the switch in `failure` says so."""

    failure: str | None = None

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        if name.startswith(b"raise "):
            fail(name[6:].decode())
        if name.startswith(b"from now on "):
            type(self).failure = name[12:].decode().partition(":")[0] or None
            return None
        return super().lookup(parent, name)

    def readdir(self, ino: int, after: Hashable | None, limit: int) -> Listing:
        if self.failure and self.failure != "loop":
            fail(self.failure)
        return super().readdir(ino, after, limit)

    def open(self, ino: int) -> Content:
        if self.failure:
            fail(self.failure)
        return super().open(ino)

    def readlink(self, ino: int) -> bytes:
        if self.failure == "wrong type":
            return 5  # type: ignore[return-value]
        if self.failure:
            fail(self.failure)
        return super().readlink(ino)


def fail(name: str) -> NoReturn:
    if name == "CorruptImage":
        raise CorruptImage("test", "object", "torn")
    if name == "Unsupported":
        raise Unsupported("this")
    if name == "Cold":
        raise Cold([Load("always", lambda: None)])
    if name == "group":
        raise BaseExceptionGroup("several", [SystemExit(1), ValueError()])
    if name == "deep":
        fail(name)
    raise getattr(builtins, name)()


def end_the_loop_once() -> None:
    """One statfs answers what pyfuse3 cannot send, past the boundary: its loop ends by that."""
    real = DmgOperations.statfs
    broken = []

    async def statfs(self: DmgOperations, ctx: Any) -> Any:
        if Failing.failure == "loop" and not broken:
            broken.append(True)
            return -1
        return await real(self, ctx)

    boundary.ANSWERS["statfs"] = lambda answer: True
    DmgOperations.statfs = statfs  # type: ignore[method-assign]


def install() -> None:
    extras.VolumeLower = Failing  # type: ignore[misc]
    end_the_loop_once()


if __name__ == "__main__":
    install()
    sys.exit(main())
