"""What the command tells the server, through a descriptor that only the two have: no file, no command line, because a
passphrase may be in it.

Rule: the command has checked all of it; the server opens the same things again, in its own process.
"""

import base64
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

VARIABLE = "DMGFS_SERVE"
"""In the environment of nbdkit: the number of the descriptor."""


@dataclass(frozen=True, slots=True)
class Settings:
    """image: absolute path, or URL; network: how that is read (timeout, folder, bytes there: see `dmgfs.remote.settings`),
    None for a path. cache_bytes: of decoded chunks. replay, slow_key: as for `open_image` and --slow-key.
    exports: (name, start, size in bytes), the first for clients that name none.
    shadow: "none", "ram", "file", or "folder": one file for each client; where: its path; per_client: of those in RAM;
    budget: bytes of one shadow, None for no limit of ours. read_only: nothing is written, shadow files neither.
    force_base, recycle: as the options. known_only: no new files in the folder. second: what happens to a second writer,
    "refuse", "read-only" or "take-over". log: "stderr", "syslog", "none" or a path. limit: clients at a time, 0 for any
    number. pid_file, socket: files to make and to remove, "" for none. ready: a descriptor to write to when clients are
    served, -1 for none."""

    image: str
    network: tuple[float, str | None, int] | None
    cache_bytes: int
    replay: bool
    passphrase: bytes | None
    slow_key: bool
    exports: tuple[tuple[str, int, int], ...]
    shadow: str
    where: str
    per_client: bool
    budget: int | None
    read_only: bool
    force_base: bool
    recycle: bool
    known_only: bool
    second: str
    log: str
    limit: int
    pid_file: str
    socket: str
    ready: int


def hand_over(settings: Settings) -> int:
    """A descriptor, inheritable, from which `taken_over` reads them. Raises OSError."""
    known: dict[str, Any] = asdict(settings)
    if settings.passphrase is not None:
        known["passphrase"] = base64.b64encode(settings.passphrase).decode()
    descriptor = os.memfd_create("dmgfs settings", 0)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(known).encode())
    return descriptor


def taken_over() -> Settings:
    """What the command gave to this process. Once; raises KeyError where there is nothing."""
    with os.fdopen(int(os.environ.pop(VARIABLE)), "rb") as file:
        file.seek(0)
        known = json.loads(file.read())
    if known["passphrase"] is not None:
        known["passphrase"] = base64.b64decode(known["passphrase"])
    known["network"] = tuple(known["network"]) if known["network"] is not None else None
    known["exports"] = tuple((name, start, size) for name, start, size in known["exports"])
    return Settings(**known)
