"""What a mount may have besides serving: the image moving into memory, a playlist, the kernel's overlay on top, a life as
root directory. `serve` asks here and knows nothing else of them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dmgfs.lower import View, VolumeLower
from dmgfs.volume import Volume

if TYPE_CHECKING:
    from dmgfs.fuse.liveroot import LiveRoot
    from dmgfs.fuse.playlist import Wish
    from dmgfs.fuse.scaffold import Scaffold
    from dmgfs.fuse.toram import ToRam
    from dmgfs.image import Image


class Beside(Protocol):
    """A companion of the session (see there) that has something for the statistics."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def describe(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Extras:
    """to_ram: with the files that it opened. playlist: what was asked for. overlay_budget: bytes for changes under the
    kernel's overlay; None: our own. live_root: fit to be somebody's root directory. verify: only if all checksums are
    right."""

    to_ram: "ToRam | None" = None
    playlist: "Wish | None" = None
    overlay_budget: int | None = None
    live_root: bool = False
    verify: bool = False

    def make_live_root(self) -> "LiveRoot | None":
        """Once the log is open, before any thread runs and anything else is opened. Raises ImportError."""
        if not self.live_root:
            return None
        from dmgfs.fuse.liveroot import LiveRoot

        return LiveRoot()

    def check(self, image: "Image") -> None:
        """Once the image is open. Raises CorruptImage for a checksum that is wrong."""
        if self.verify:
            from dmgfs.fuse.verify import verify

            verify(image)

    @contextmanager
    def beside(self, image: "Image") -> "Iterator[list[Beside]]":
        """Once the image is open and before its volume is. Stops them at the end. Raises MemoryError, DmgError, OSError."""
        beside: list[Beside] = []
        remote = image.remote_below
        if remote is not None:
            from dmgfs.fuse.network import Network

            beside.append(Network(remote))
        if self.to_ram is not None:
            self.to_ram.prepare(image.container.kind, image.cache.budget)
            beside.append(self.to_ram)
        if self.playlist is not None:
            from dmgfs.fuse.playlist import Playing

            beside.append(Playing(self.playlist, image))
        try:
            yield beside
        finally:
            for one in beside:
                one.stop()

    def lower(self, volume: Volume, view: View, beside: Sequence[Beside]) -> VolumeLower:
        """beside: who may want to know what is opened. Raises Unsupported for a volume that the kernel's overlay cannot
        have below."""
        lower = self._lower(volume, view)
        if self.playlist is not None:
            from dmgfs.fuse.playlist import Playing

            for one in beside:
                if isinstance(one, Playing):
                    one.watch(lower)
        return lower

    def _lower(self, volume: Volume, view: View) -> VolumeLower:
        if self.overlay_budget is None:
            return VolumeLower(volume, view)
        from dmgfs.fuse.exactlower import ExactLower, refuse

        refuse(volume.info)
        return ExactLower(volume, view)

    @contextmanager
    def scaffold(self, place: str, image: str, words: Collection[str]) -> "Iterator[Scaffold | None]":
        """Where the kernel's overlay on `place` is built; None without it. Raises OSError, Unsupported."""
        if self.overlay_budget is None:
            yield None
            return
        from dmgfs.fuse.scaffold import Scaffold

        with Scaffold(place, image, self.overlay_budget, words) as scaffold:
            yield scaffold
