"""Segmented images: `x.dmg`, `x.002.dmgpart`, `x.003.dmgpart` …, each with a trailer of its own and a part of one data
fork. The names of the others are made from the name of the first and looked for beside it; nothing is followed elsewhere.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from construct import Container as Fields

from dmgfs.container import OpenFile
from dmgfs.container.resourcefork import LAYER
from dmgfs.errors import CorruptImage, Unsupported
from dmgfs.source import ByteSource, FileSource, Run, RunSource

MOST_SEGMENTS = 999  # what three digits can name


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the set. fork: its part of the data fork."""

    path: Path | None
    koly: Fields
    fork: ByteSource


def part_names(path: Path, count: int) -> list[Path]:
    """The files of segments 2 to `count` for the first one."""
    return [path.with_name(f"{path.stem}.{number:03d}.dmgpart") for number in range(2, count + 1)]


def refuse_part(koly: Fields) -> None:
    """Raises CorruptImage if the trailer belongs to a later segment, which has no block tables."""
    if koly.SegmentCount > 1 and koly.SegmentNumber != 1:
        raise CorruptImage(
            LAYER,
            "segments",
            f"this is segment {koly.SegmentNumber} of {koly.SegmentCount}: open the first one, the .dmg file",
        )


def open_segments(
    first: Segment,
    read: Callable[[ByteSource, Path], Segment],
    closers: list[Callable[[], None]],
    open_file: OpenFile = FileSource,
) -> list[Segment]:
    """All segments in order. `read` makes a segment of a file that `open_file` opened; what must be closed later goes to
    `closers`.

    Raises CorruptImage: a file is missing (all missing ones are named) or belongs to another set. Unsupported: the first
    segment is not a file of its own.
    """
    count = first.koly.SegmentCount
    if count > MOST_SEGMENTS:
        raise CorruptImage(LAYER, "trailer", f"claims {count} segments, at most {MOST_SEGMENTS} can be named")
    if first.path is None:
        raise Unsupported(
            "a segmented image inside another container or behind a URL",
            "copy all of its segments out and open the first",
        )
    names = part_names(first.path, count)
    missing = [name.name for name in names if not name.is_file()]
    if missing:
        listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise CorruptImage(
            LAYER, "segments", f"the image has {count} segments; missing in {first.path.parent}: {listed}"
        )
    segments = [first]
    for number, name in enumerate(names, 2):
        try:
            file = open_file(name, follow=False)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise CorruptImage(LAYER, "segments", f"{name.name} is a symbolic link, which is not followed") from None
        closers.append(file.close)
        segment = read(file, name)
        koly = segment.koly
        if (koly.SegmentID, koly.SegmentCount, koly.SegmentNumber) != (first.koly.SegmentID, count, number):
            raise CorruptImage(LAYER, "segments", f"{name.name} is not segment {number} of this image")
        segments.append(segment)
    return segments


def join(segments: Sequence[Segment]) -> ByteSource:
    """The whole data fork. Raises CorruptImage if the segments' own offsets do not line up."""
    end = 0
    for segment in segments:
        start = segment.koly.RunningDataForkOffset
        if start != end:
            raise CorruptImage(
                LAYER,
                f"segment {segment.koly.SegmentNumber}",
                f"its data begins at {start:#x} of the whole, that of the segments before it ends at {end:#x}",
            )
        end += segment.fork.size
    return RunSource([Run(segment.fork, 0, segment.fork.size) for segment in segments])
