"""Where files hold something: what is not named is zeros, after any operations, over layers, too."""

import os
from stat import S_ISREG

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller
from builders.overlay_walk import walk
from builders.shuffled import shuffled

from overlay.overlay import Overlay
from overlay.pages import PAGE
from overlay.ram import RamStore
from overlay.stratum import Stratum
from overlay.vfs import run

FAR = 1 << 45


@pytest.mark.parametrize("seed", range(6))
def test_the_rest_is_zeros(seed: int) -> None:
    pair, choice = shuffled(300 + seed, case_sensitive=bool(seed % 2), layers=seed // 2)
    for _ in range(8):
        for _ in range(25):
            pair.call(*choice.operation())
        for ino in set(walk(pair.overlay).values()):
            attr = run(pair.overlay.getattr(ino))
            if not S_ISREG(attr.mode):
                continue
            data = bytearray(run(pair.overlay.read(ino, 0, attr.size)))
            for gap in (1, 3 * PAGE):
                end = 0
                for start, stop in run(pair.overlay.extents(ino, gap)):
                    assert start == end == 0 or start - end >= gap
                    assert start < stop <= attr.size
                    assert not any(data[end:start])
                    end = stop
                assert end == attr.size or attr.size - end >= gap
                assert not any(data[end:])
    pair.end()


def test_a_page_far_away_is_all_that_is_named() -> None:
    """Also two layers further up, where the file is changed again and cut."""
    lower = LowerTree(True)
    ino = lower.add_file(lower.root, b"file", b"bytes" * 2000)
    overlay = Overlay(lower, RamStore(1 << 20))
    run(overlay.write(ino, FAR, b"x"))
    run(overlay.write(ino, PAGE, bytes(PAGE)))
    assert run(overlay.extents(ino)) == [(0, PAGE), (2 * PAGE, 10_000), (FAR, FAR + 1)]
    assert run(overlay.extents(ino, 2 * PAGE)) == [(0, 10_000), (FAR, FAR + 1)]
    made = run(overlay.create(lower.root, b"made", 0o644, os.O_RDWR, Caller())).ino
    run(overlay.setattr(made, size=FAR))
    assert run(overlay.extents(made)) == []
    second = Overlay(Stratum(lower, overlay.tree, overlay.store), RamStore(1 << 20))
    run(second.setattr(ino, mode=0o600))
    third = Overlay(Stratum(second.lower, second.tree, second.store), RamStore(1 << 20))
    assert run(third.extents(ino)) == [(0, PAGE), (2 * PAGE, 10_000), (FAR, FAR + 1)]
    run(third.write(ino, FAR - PAGE, b"y"))
    run(third.setattr(ino, size=FAR - 1))
    assert run(third.extents(ino)) == [(0, PAGE), (2 * PAGE, 10_000), (FAR - PAGE, FAR - 1)]
