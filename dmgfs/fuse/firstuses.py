"""Which files of the volume were opened, in the order of their first opening: what a playlist says besides the parts.

Rule: noting costs a dictionary's entry, is bounded, and ends with the recording.
"""

from dmgfs.lower import VolumeLower
from dmgfs.playlist import MOST_FILES


class FirstUses:
    """lower: what shows the volume; it tells every opening, in any thread."""

    def __init__(self, lower: VolumeLower) -> None:
        self._order: dict[int, None] = {}
        self._lower = lower
        lower.opened = self._note

    def _note(self, ino: int) -> None:
        if len(self._order) < MOST_FILES:
            self._order[ino] = None

    def files(self) -> tuple[int, ...]:
        return tuple(self._order.copy())

    def stop(self) -> None:
        self._lower.opened = None
