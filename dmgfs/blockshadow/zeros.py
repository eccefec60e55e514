"""Where a disk is zeros without looking at its bytes: what an image says of itself. Whoever copies a disk need not read
them."""

from collections.abc import Iterator
from typing import NamedTuple

from dmgfs.container.udifdisk import UdifDisk
from dmgfs.source import ByteSource


class Stretch(NamedTuple):
    """offset, length: in bytes. zeros: nothing but; False: anything."""

    offset: int
    length: int
    zeros: bool


def stretches_of(base: ByteSource, offset: int, length: int) -> Iterator[Stretch]:
    """The range [offset, offset+length), which lies on the disk, without gaps. Of compressed images what they mark as
    zeros; of others all of it may be anything."""
    if not isinstance(base, UdifDisk):
        yield Stretch(offset, length, False)
        return
    for size, zeros in base.stretches(offset, length):
        yield Stretch(offset, size, zeros)
        offset += size


def joined(stretches: Iterator[Stretch]) -> list[Stretch]:
    """Neighbours of one kind as one."""
    whole: list[Stretch] = []
    for one in stretches:
        if whole and whole[-1].zeros == one.zeros:
            whole[-1] = whole[-1]._replace(length=whole[-1].length + one.length)
        elif one.length:
            whole.append(one)
    return whole
