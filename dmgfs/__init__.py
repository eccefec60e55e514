"""dmgfs: mount compressed Apple disk images and live in them.

This package is a library of parsers (bytes in, values out) with a thin application on top. Importing it costs nothing:
every name is loaded when it is first used, so `dmgfs info` never pays for the mount.
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "open_image":
        from dmgfs.image import open_image

        return open_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
