"""Dates as HFS+ keeps them: whole seconds since 1904 in 32 bits, so 1904 to 2040; 0 means "not set".

Rule: a date that does not fit becomes the nearest that does, and is counted by whoever asks.
"""

from dmgfs.hfsplus.header import EPOCH

FIRST, LAST = 1 - EPOCH, 0xFFFFFFFF - EPOCH
"""Unix seconds of the earliest and the latest date."""


def date(seconds: int) -> int:
    """Unix seconds → date on disk."""
    return min(max(seconds, FIRST), LAST) + EPOCH


def fits(seconds: int) -> bool:
    return FIRST <= seconds <= LAST
