"""Saved shadows as layers: opened, closed, refused, and never waited for by the thread that serves."""

from pathlib import Path

import pytest
from builders.lower_tree import LowerTree
from builders.overlay_pair import Caller

from dmgfs.layers import stacked
from dmgfs.source import Cold, forbid_blocking
from overlay.disk import FileDisk
from overlay.errors import ShadowBase, ShadowDamaged
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.superblock import Base, layers_of
from overlay.vfs import Lower, run

IMAGE: Base = {"image": "x"}
DATA = bytes(range(256)) * 4096


def save(path: Path, lower: Lower, base: Base, name: bytes) -> int:
    """A file of a MiB, in a new shadow."""
    overlay = Overlay(lower, FileStore.open_file(path, base))
    ino = run(overlay.create(overlay.root, name, 0o644, 0, Caller())).ino
    run(overlay.write(ino, 0, DATA))
    overlay.close()
    return ino


def test_layers_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    lower = LowerTree()
    one, two = tmp_path / "one", tmp_path / "two"
    inodes = [save(one, lower, IMAGE, b"one")]
    with stacked(lower, IMAGE, [str(one)], force_base=False) as stack:
        assert len(layers_of(stack.base())) == 1
        inodes.append(save(two, stack.lower, stack.base(), b"two"))
    with stacked(lower, IMAGE, [str(one), str(two)], force_base=False) as stack:
        assert [(layer.path, layer.objects) for layer in stack.layers] == [(str(one), 2), (str(two), 2)]
        assert len(layers_of(stack.base())) == 2
        for ino in inodes:
            assert bytes(stack.lower.open(ino).read(0, len(DATA))) == DATA


def test_one_that_does_not_fit_is_named_and_all_are_let_go(tmp_path: Path) -> None:
    lower = LowerTree()
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    save(one, lower, IMAGE, b"one")
    save(two, lower, IMAGE, b"two")
    three.write_bytes(one.read_bytes()[:4096] + bytes(len(one.read_bytes()) - 4096))
    for paths, error in (([one, two], ShadowBase), ([three], ShadowDamaged)):
        second = paths[-1]
        with pytest.raises(error) as caught, stacked(lower, IMAGE, [str(path) for path in paths], force_base=False):
            pass
        assert caught.value.path == str(second)
        FileStore.open_file(one, IMAGE).close()  # nobody has it locked any more
        FileStore.open_file(second, None, read_only=True).close()


def test_what_is_not_in_memory_is_cold_for_who_must_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one"
    ino = save(path, LowerTree(), IMAGE, b"one")
    with stacked(LowerTree(), IMAGE, [str(path)], force_base=False) as stack:
        content = stack.lower.open(ino)
        forbid_blocking()
        try:
            monkeypatch.setattr(FileDisk, "read_now", lambda self, offset, length: None)
            with pytest.raises(Cold) as caught:
                content.read(4096, 8192)
            [load] = caught.value.loads
            assert load.run() == DATA[4096:12288]
            monkeypatch.undo()
            assert bytes(content.read(4096, 8192)) == DATA[4096:12288]
        finally:
            forbid_blocking(False)
        monkeypatch.setattr(FileDisk, "read_now", lambda self, offset, length: None)
        assert bytes(content.read(4096, 8192)) == DATA[4096:12288]  # another thread waits for the disk
