"""Everything that serving may ever import, imported now; and a guard that refuses and reports whatever comes later.

A root file system's daemon loses the files that it was started from: switch_root deletes them. A late import then fails, or
worse, finds emptied folders and takes them for packages.
"""

import importlib
import logging
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from dmgfs.squeezing import find_zstd

log = logging.getLogger(__name__)

PACKAGES = ("overlay", "dmgfs")
NOT_SERVING = (
    *("dmgfs.cli", "dmgfs.packing", "dmgfs.gathering", "dmgfs.hfsplus_writer"),
    *("dmgfs.bootargs", "dmgfs.nbd", "dmgfs.__main__"),
)
"""What other verbs do."""
STANDARD = (
    *(f"encodings.{name}" for name in ("ascii", "utf_8", "utf_16", "utf_16_be", "utf_16_le", "latin_1", "idna")),
    *(
        "bz2",
        "hashlib",
        "json.decoder",
        "json.encoder",
        "linecache",
        "locale",
        "lzma",
        "traceback",
        "unicodedata",
        "zlib",
    ),
)
"""What the standard library imports by itself only when it is needed for the first time."""


class ImportGuard:
    """From `close` on, nothing new is imported. refused: what was asked for since, by name."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def close(self) -> None:
        sys.meta_path.insert(0, self)

    def open(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of the import system: called for what is not imported yet."""
        if name not in self.refused:
            self.refused.append(name)
            log.error("late import of %s refused: its files may be gone", name)
        raise ModuleNotFoundError(f"{name}: nothing is imported once a live root is ready", name=name)


def preload() -> int:
    """Imports it all. How many modules there are now. Raises ImportError."""
    for package in PACKAGES:
        _import_below(importlib.import_module(package))
    for name in STANDARD:
        importlib.import_module(name)
    find_zstd()  # for a late shadow
    return len(sys.modules)


def _import_below(package: ModuleType) -> None:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.startswith(NOT_SERVING):
            continue
        module = importlib.import_module(found.name)
        if found.ispkg:
            _import_below(module)
