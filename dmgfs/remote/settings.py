"""What a user may say about reading over a network. Standard library only."""

import os
from dataclasses import dataclass, field

TIMEOUT = 30.0
"""Seconds without a byte until a read fails."""

CACHE_BYTES = 1 << 30


def default_folder() -> str:
    """Where blocks are kept unless told: /var/cache/dmgfs for root, dmgfs in the user's cache folder for others."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(told):
        return os.path.join(told, "dmgfs")
    return "/var/cache/dmgfs" if os.geteuid() == 0 else os.path.expanduser("~/.cache/dmgfs")


@dataclass(frozen=True, slots=True)
class Settings:
    """timeout: seconds without a byte until a read fails. folder: of the cache on the disk, None: there is none.
    cache_bytes: what the folder may hold."""

    timeout: float = TIMEOUT
    folder: str | None = field(default_factory=default_folder)
    cache_bytes: int = CACHE_BYTES
