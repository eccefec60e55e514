"""What dmgfs has to reach, and whether it did: limits that follow from other systems in the same run.

Rules that hold here:
- a limit is either the same everywhere, or so many times what another system takes in the same run. Where it was set in
  seconds, it is carried over: what dmgfs was to take on the machine where the peers were first measured, times what a peer
  takes here over what that peer took there. With several such peers present the strictest limit counts;
- no peer, no verdict: a limit in seconds of another machine says nothing here.
"""

from collections.abc import Mapping
from typing import NamedTuple

DMG_PEERS = ("modimount+fshfsmount", "darling-dmg")


class Bar(NamedTuple):
    """key: of the row. must: the figure there, in the row's unit. there: what peers reached there; empty if `must` holds
    anywhere. higher: more is better. note: what the figure is made of."""

    key: str
    must: float
    there: Mapping[str, float]
    higher: bool = False
    note: str = ""


BARE = {"bare pyfuse3": 1.0}


def _readers(modi: float, darling: float) -> dict[str, float]:
    return dict(zip(DMG_PEERS, (modi, darling), strict=True))


BARS = (
    Bar("mount", 0.25, {"bare pyfuse3": 0.105}, note="a daemon that only imports pyfuse3 and mounts"),
    Bar("walk", 0.8, _readers(1.13, 5.19)),
    Bar("walk_again", 0.3, _readers(0.72, 5.44)),
    Bar("read", 6.0, _readers(10.3, 16.1)),
    Bar("read_again", 2.0, _readers(4.1, 16.4)),
    Bar("memory", 150.0, {}),
    Bar("sequential", 800.0, _readers(214, 198), higher=True),
    Bar("random", 2000.0, _readers(828, 995), higher=True),
    Bar("first_byte", 10.0, {}),
    Bar("growth", 256.0, {}),
    Bar("create", 1.2, BARE),
    Bar("append", 1.2, BARE),
    Bar("unpack", 1.2, BARE),
    Bar("remove", 1.2, BARE),
    Bar("rename", 10.0, {}, note="whatever is in the folder"),
    Bar("write", 2.0, {"unionfs-fuse": 1.7}),
    Bar("read_back", 0.8, {"unionfs-fuse": 0.87}),
)

ONE_THREAD = "one thread, no mount"
CODEC_TIMES = 1.8
WITHOUT_LIMIT = {
    "udro": "none: nothing is decoded",
    "udco": "none: decoded by Python code (ADC), one thread at a time whatever the machine has",
    "udzo": "that of the 126 MB above",
}


class Verdict(NamedTuple):
    """limit: here, in the row's unit. by: the peer that set it, "" if it is the same everywhere."""

    limit: float
    by: str
    reached: bool


def judge(bar: Bar, figures: Mapping[str, float]) -> Verdict | None:
    """figures: system → its figure in this run, with dmgfs's. None if dmgfs or every peer of this bar is missing."""
    ours = figures.get("dmgfs")
    if ours is None:
        return None
    limits = [(bar.must, "")]
    if bar.there:
        limits = [(bar.must * figures[peer] / there, peer) for peer, there in bar.there.items() if peer in figures]
    if not limits:
        return None
    limit, by = max(limits) if bar.higher else min(limits)
    return Verdict(limit, by, ours >= limit if bar.higher else ours <= limit)
