"""commit: an image and the changes over it become an image that holds exactly what the mount showed. The overlay is changed
here without a kernel; tests/90_live/test_commit.py has a real mount."""

import json
import os
import random
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from builders.decmpfs import pack as compressed
from builders.hfsplus import ROOT
from builders.sound import SoundBuilder

from dmgfs import open_image
from dmgfs.identity import identity
from dmgfs.layers import stacked
from dmgfs.lower import View, VolumeLower
from overlay.file import FileStore
from overlay.overlay import Overlay
from overlay.vfs import Steps, run

REPOSITORY = Path(__file__).resolve().parents[2]
FSCK = Path(os.environ.get("DMGFS_FIXTURES", REPOSITORY / ".cache/fixtures")) / "hfsprogs/sbin/fsck.hfsplus"
NOISE = random.Random(5).randbytes(60 * 4096)
TEXT = b"The quick brown fox jumps over the lazy dog. " * 60
VIEW = View(owners="image")


class Caller(NamedTuple):
    uid: int = 3
    gid: int = 4
    pid: int = 5
    umask: int = 0


class Seen(NamedTuple):
    """What a user sees of one object."""

    mode: int
    owner: tuple[int, int]
    rdev: int
    mtime: int
    contents: bytes | None
    xattrs: dict[bytes, bytes]
    names: frozenset[bytes]


def base(path: Path) -> Path:
    """Everything that a volume may have, fragmented."""
    volume = SoundBuilder()
    folder = volume.folder(ROOT, "folder")
    deep = volume.folder(folder, "deep")
    for number in range(30):
        volume.file((ROOT, folder, deep)[number % 3], f"file {number}", NOISE[: number * 500], extent_blocks=1)
    volume.file(folder, "resource", b"data", resource=NOISE[:20000], attributes={"com.example": b"value"})
    kind, attribute, resource = 4, *compressed(4, TEXT * 30)
    assert kind == 4
    volume.file(deep, "packed", resource=resource, flags=0x20, attributes={"com.apple.decmpfs": attribute})
    volume.inode(77, b"of three names", 3)
    for number, parent in enumerate((ROOT, folder, deep)):
        volume.file_link(parent, f"link {number}", 77)
    path.write_bytes(volume.build().data)
    return path


class Changed:
    """An image under a shadow file, to be changed. layers: shadows between the two."""

    def __init__(self, image: Path, shadow: Path, layers: Sequence[Path] = ()) -> None:
        self.image, self.shadow, self.layers = image, shadow, layers

    def __enter__(self) -> Overlay:
        self._open = ExitStack()
        image = self._open.enter_context(open_image(self.image))
        volume = image.volume()
        lower = VolumeLower(volume, VIEW)
        below = stacked(lower, identity(image, volume), [*map(str, self.layers)], force_base=False)
        stack = self._open.enter_context(below)
        self.overlay = Overlay(stack.lower, FileStore.open_file(self.shadow, stack.base()))
        return self.overlay

    def __exit__(self, *_: object) -> None:
        run(self.overlay.fsync())
        self.overlay.close()
        self._open.close()


def walk(overlay: Overlay, ino: int, path: bytes = b"") -> Iterator[tuple[bytes, int]]:
    yield path, ino
    if not stat.S_ISDIR(run(overlay.getattr(ino)).mode):
        return
    handle = run(overlay.opendir(ino))
    after = 0
    while entries := run(overlay.readdir(handle, after)):
        after = entries[-1].next
        for entry in entries:
            if entry.name not in (b".", b".."):
                yield from walk(overlay, entry.ino, path + b"/" + entry.name)
    overlay.releasedir(handle)


def seen(overlay: Overlay) -> dict[bytes, Seen]:
    places = list(walk(overlay, overlay.root))
    names: dict[int, set[bytes]] = {}
    for path, ino in places:
        names.setdefault(ino, set()).add(path)
    found = {}
    for path, ino in places:
        attr = run(overlay.getattr(ino))
        contents = None
        if stat.S_ISREG(attr.mode):
            contents = bytes(run(overlay.read(ino, 0, attr.size))) if attr.size else b""
            assert attr.nlink == len(names[ino])
        elif stat.S_ISLNK(attr.mode):
            contents = run(overlay.readlink(ino))
        xattrs = {name: bytes(run(overlay.getxattr(ino, name))) for name in run(overlay.listxattr(ino))}
        times = attr.mtime_ns // 10**9
        found[path] = Seen(attr.mode, (attr.uid, attr.gid), attr.rdev, times, contents, xattrs, frozenset(names[ino]))
    return found


def seen_in(image: Path) -> dict[bytes, Seen]:
    with open_image(image) as opened:
        volume = opened.volume()
        assert volume.info.warnings == ()
        return seen(Overlay(VolumeLower(volume, VIEW)))


def commit(run_verb, changed: Changed, out: Path, *options: str) -> dict[str, object]:
    said = run_verb("commit", changed.shadow, out, "--image", changed.image, "--json", "--owners", "on", *options)
    assert (said.code, said.err) == (0, "")
    if FSCK.exists():
        raw = out.with_suffix(".raw")
        assert (
            run_verb("convert", out, raw, "--force", *(("--partition", "1") if "gpt" in out.name else ())).code == 0
        )
        verdict = subprocess.run([FSCK, "-fn", raw], capture_output=True, text=True, check=False)
        assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    told: dict[str, object] = json.loads(said.out)
    return told


def attempt(step: Steps[object]) -> None:
    try:
        run(step)
    except OSError:
        pass  # the choice made no sense


def change(overlay: Overlay, chance: random.Random, count: int) -> None:
    """Random operations on what is there. As the kernel does, it holds what it names: an object that lost its names since
    is known to have lost them, and is gone when nobody holds it."""
    me = Caller()
    places: list[tuple[bytes, int]] = []
    for number in range(count):
        if number % 4 == 0:
            let_go(overlay)
            places = list(walk(overlay, overlay.root))
            for ino in {ino for _, ino in places}:
                overlay.hold(ino)
        folders = [ino for _, ino in places if stat.S_ISDIR(_mode(overlay, ino))]
        files = [ino for _, ino in places if stat.S_ISREG(_mode(overlay, ino))]
        folder, other = chance.choice(folders), chance.choice(folders)
        path, ino = chance.choice(places)
        name = path.rpartition(b"/")[2] if chance.random() < 0.6 else b"new %d" % chance.randrange(12)
        fresh = chance.choice((b"new %d" % chance.randrange(30), "né: %d".encode() % number, b"File 3"))
        match chance.randrange(14):
            case 0:
                attempt(overlay.create(folder, fresh, stat.S_IFREG | 0o640, os.O_WRONLY, me))
            case 1:
                attempt(overlay.mkdir(folder, fresh, 0o750, me))
            case 2:
                attempt(overlay.symlink(folder, fresh, b"t" * (1 + chance.randrange(90)), me))
            case 3:
                kind, rdev = chance.choice(((stat.S_IFIFO, 0), (stat.S_IFCHR, os.makedev(4, 64))))
                attempt(overlay.mknod(folder, fresh, kind | 0o600, rdev, me))
            case 4 | 5:
                if stat.S_ISREG(_mode(overlay, ino)):
                    attempt(overlay.link(ino, folder, fresh))
            case 6:
                attempt(overlay.unlink(folder, name))
            case 7:
                attempt(overlay.rmdir(folder, name))
            case 8 | 9:
                attempt(overlay.rename(folder, name, other, fresh, chance.choice((0, 0, 2))))
            case 10 | 11:
                data = chance.randbytes(chance.choice((1, 4096, 20_000)))
                attempt(overlay.write(chance.choice(files), chance.randrange(9000), data))
            case 12:
                attempt(overlay.setattr(chance.choice(files), size=chance.choice((0, 1, 5000, 70_000))))
                attempt(overlay.setattr(ino, mode=0o711, uid=100 + number, mtime_ns=number * 10**9))
            case 13:
                if stat.S_ISREG(_mode(overlay, ino)) or stat.S_ISDIR(_mode(overlay, ino)):
                    names = (b"user.com.example", b"user.mine", b"security.x", b"user.com.apple.FinderInfo")
                    attempt(overlay.setxattr(ino, chance.choice(names[:3]), chance.randbytes(32)))
                    attempt(overlay.setxattr(ino, names[3], b"TEXT%04d" % number + bytes(24)))
                    attempt(overlay.removexattr(ino, chance.choice(names)))
    let_go(overlay)


def let_go(overlay: Overlay) -> None:
    for ino in overlay.held:
        overlay.forget(ino, 1 << 20)


def _mode(overlay: Overlay, ino: int) -> int:
    try:
        return run(overlay.getattr(ino)).mode
    except OSError:
        return 0  # removed since


@pytest.mark.parametrize("seed", [*range(6), 55])
def test_a_commit_holds_what_the_mount_showed(run, tmp_path: Path, seed: int) -> None:
    """Twice, the second time over what the first one made."""
    image = base(tmp_path / "base")
    chance = random.Random(seed)
    for turn in range(2):
        changed = Changed(image, tmp_path / f"shadow {turn}")
        with changed as overlay:
            change(overlay, chance, 160)
            wanted = seen(overlay)
        image = tmp_path / f"commit {turn}"
        commit(run, changed, image, "--format", ("udzo", "raw")[seed % 2])
        found = seen_in(image)
        assert found.keys() == wanted.keys()
        for path in wanted:
            assert found[path] == wanted[path], path
        assert run("verify", "--deep", image).code == 0


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_committed_with_what_lies_on_them(run, tmp_path: Path, seed: int) -> None:
    image = base(tmp_path / "base")
    chance = random.Random(100 + seed)
    layers: list[Path] = []
    for number in range(3):
        changed = Changed(image, tmp_path / f"shadow {number}", layers)
        with changed as overlay:
            change(overlay, chance, 120)
            names = {name for name, ino in walk(overlay, overlay.root) if stat.S_ISCHR(_mode(overlay, ino))}
            for name in sorted(names):  # hard links of devices are refused below the topmost
                entry = find(overlay, name)
                if overlay_run(overlay.getattr(entry[1])).nlink > 1:
                    overlay_run(overlay.unlink(entry[0], name.rpartition(b"/")[2]))
            wanted = seen(overlay)
        layers = [*layers, changed.shadow]
    words = [word for layer in layers[:-1] for word in ("--shadow-ro", str(layer))]
    commit(run, changed, tmp_path / "out", "--format", "raw", *words)
    found = seen_in(tmp_path / "out")
    assert found.keys() == wanted.keys()
    for path in wanted:
        assert found[path] == wanted[path], path
    assert run("verify", "--deep", tmp_path / "out").code == 0


def test_numbers_of_links_that_others_gave(run, tmp_path: Path) -> None:
    """A volume may have an object of number N, and a hard link that another object is found by under that number."""
    volume = SoundBuilder()
    number = volume.file(ROOT, "file", b"contents")
    volume.inode(number, b"of two names", 2)
    for name in ("link", "other"):
        volume.file_link(ROOT, name, number)
    image = tmp_path / "image"
    image.write_bytes(volume.build().data)
    changed = Changed(image, tmp_path / "shadow")
    with changed as overlay:
        attempt(overlay.link(number, overlay.root, b"again"))
        wanted = seen(overlay)
    assert wanted[b"/again"].names == {b"/file", b"/again"}
    commit(run, changed, tmp_path / "out")
    assert seen_in(tmp_path / "out") == wanted


def find(overlay: Overlay, path: bytes) -> tuple[int, int]:
    """(folder, object) of a path."""
    parent = ino = overlay.root
    for name in path.split(b"/")[1:]:
        parent, ino = ino, overlay_run(overlay.lookup(ino, name)).ino
    return parent, ino


def test_what_did_not_change_is_taken_over_as_it_is(run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(12):
        (tree / f"{number:02}").write_bytes(random.Random(number).randbytes(1 << 19) + bytes(1 << 19))
    image = tmp_path / "image"
    assert run("create", tree, image, "--format", "ulfo").code == 0
    changed = Changed(image, tmp_path / "shadow")
    with changed as overlay:
        me = Caller()
        attr = overlay_run(overlay.create(overlay.root, b"added", stat.S_IFREG | 0o644, os.O_WRONLY, me))
        overlay_run(overlay.write(attr.ino, 0, b"a line\n"))
        overlay.release(attr.ino)
        entry = overlay_run(overlay.lookup(overlay.root, b"03"))
        overlay_run(overlay.write(entry.ino, 100, b"changed"))
        wanted = seen(overlay)
    told = commit(run, changed, tmp_path / "gpt.dmg")
    # All but those of the header, of the change and of the copy of the header.
    assert told["runs_kept"] == 10
    assert seen_in(tmp_path / "gpt.dmg") == wanted
    assert run("verify", tmp_path / "gpt.dmg").code == 0
    with open_image(image) as old, open_image(tmp_path / "gpt.dmg") as new:
        assert new.map.scheme == "GPT"
        before, after = old.volume(), new.volume()
        for name in ("02", "03"):
            one, other = before.find(2, name), after.find(2, name)
            assert one is not None
            assert other is not None
            assert one.cnid == other.cnid


overlay_run = run


def test_what_linux_does_not_show_survives(run, tmp_path: Path) -> None:
    """Creation dates, flags, compression, resource forks, private attributes."""
    volume = SoundBuilder()
    attribute, resource = compressed(4, TEXT * 30)
    volume.file(ROOT, "packed", resource=resource, flags=0x20, attributes={"com.apple.decmpfs": attribute})
    dates = tuple(3_000_000_000 + number for number in range(5))
    finder = bytes(range(32))
    volume.file(
        ROOT, "odd", b"data", flags=0x8002, dates=dates, finder=finder, attributes={"com.apple.system.x": b"1"}
    )
    image = tmp_path / "image"
    image.write_bytes(volume.build().data)
    changed = Changed(image, tmp_path / "shadow")
    with changed as overlay:
        entry = overlay_run(overlay.lookup(overlay.root, b"odd"))
        overlay_run(overlay.setattr(entry.ino, mode=0o600))
        overlay_run(overlay.setxattr(entry.ino, b"user.com.apple.FinderInfo", b"TEXTttxt" + bytes(24)))
    commit(run, changed, tmp_path / "out")
    with open_image(image) as old, open_image(tmp_path / "out") as new:
        before, after = old.volume(), new.volume()
        packed, odd = after.find(2, "packed"), after.find(2, "odd")
        was = before.find(2, "odd")
        assert packed is not None
        assert odd is not None
        assert was is not None
        assert packed.compressed
        assert after.data(packed).read(0, packed.data_size) == TEXT * 30
        assert (odd.created, odd.backed_up, odd.modified) == (was.created, was.backed_up, was.modified)
        assert odd.flags & 2
        assert odd.finder_info == b"TEXTttxt" + bytes(8) + finder[16:24] + bytes(4) + finder[28:]
        assert list(after.attributes(odd)) == ["com.apple.system.x"]
        assert after.info.id == before.info.id


def test_what_cannot_be_committed(run, tmp_path: Path) -> None:
    image = base(tmp_path / "base")
    changed = Changed(image, tmp_path / "shadow")
    with changed:
        pass
    said = run("commit", changed.shadow, tmp_path / "out")
    assert said.code == 64
    assert "say with --image" in said.err
    (tmp_path / "out").write_text("mine")
    said = run("commit", changed.shadow, tmp_path / "out", "--image", image)
    assert said.code == 73
    assert "--force replaces it" in said.err
    other = base(tmp_path / "other")
    with other.open("r+b") as file:
        file.seek(1024 + 104)
        file.write(b"another!")
    said = run("commit", changed.shadow, tmp_path / "new", "--image", other)
    assert said.code == 78, said.err
    said = run("commit", tmp_path / "nothing", tmp_path / "new", "--image", image)
    assert said.code == 66
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["itself", "hard link", "link"])
def test_nothing_that_is_read_is_replaced(run, tmp_path: Path, kind: str) -> None:
    image, layer, shadow = base(tmp_path / "base"), tmp_path / "layer", tmp_path / "shadow"
    for changed in (Changed(image, layer), Changed(image, shadow, [layer])):
        with changed as overlay:
            overlay_run(overlay.mkdir(overlay.root, b"new" if changed.layers else b"old", 0o755, Caller()))
    before = [path.read_bytes() for path in (image, layer, shadow)]
    for path in (image, layer, shadow):
        out = path
        if kind != "itself":
            out = tmp_path / f"other {path.name}"
            (os.symlink if kind == "link" else os.link)(path, out)
        over = ("--image", image, "--shadow-ro", layer, "--owners", "on")
        for words in (("commit", shadow, out, "--force"), ("shadow", "export", shadow, "--tar", out)):
            said = run(*words, *over)
            assert (said.code, said.err.count("\n")) == (73, 1)
            assert said.err.startswith(f"dmgfs: {out}: it is an input")
    assert [path.read_bytes() for path in (image, layer, shadow)] == before
    assert not list(tmp_path.glob(".dmgfs-*"))
