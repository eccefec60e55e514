"""A volume as the lower layer of the kernel's own overlay (`--engine overlayfs`).

Rules that hold here:
- the overlay takes attributes named `trusted.overlay.*` in a lower layer for its own notes, so those of an image are hidden
  from it, or they could make folders vanish or lead elsewhere;
- a name is found in the one spelling that is listed: the overlay would make two objects of two spellings;
- that cannot be had on a case-insensitive volume without surprising its programs, so such a volume is refused.
"""

from collections.abc import Sequence

from dmgfs.errors import Unsupported
from dmgfs.lower import VolumeLower
from dmgfs.volume import VolumeInfo
from overlay.vfs import Entry

_HIDDEN = (b"trusted.overlay.", b"user.overlay.")


class ExactLower(VolumeLower):
    """A volume for the kernel's overlay: one spelling for each name, none of the overlay's own attributes."""

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        entry = super().lookup(parent, name)
        return entry if entry is not None and entry.name == name else None

    def only_spelling(self, name: bytes) -> bool:
        return True

    def listxattr(self, ino: int) -> Sequence[bytes]:
        return [name for name in super().listxattr(ino) if not name.startswith(_HIDDEN)]

    def getxattr(self, ino: int, name: bytes) -> bytes | None:
        return None if name.startswith(_HIDDEN) else super().getxattr(ino, name)


def refuse(info: VolumeInfo) -> None:
    """Raises Unsupported for a volume that the kernel's overlay would show wrongly."""
    if not info.case_sensitive:
        raise Unsupported(
            f"--engine overlayfs over the case-insensitive volume {ascii(info.name)[1:-1]!r}",
            "the kernel's overlay knows one spelling of each name only; leave --engine out",
        )
