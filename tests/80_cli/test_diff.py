"""diff and patch: what differs between two images, and what makes the one into the other."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

MTIME = 1_600_000_000


def made(run, tmp_path: Path, name: str, *changes: str, options: tuple[str, ...] = ()) -> Path:
    """An image of a tree with the changes."""
    root = tmp_path / f"{name} tree"
    (root / "folder" / "below").mkdir(parents=True)
    for number in range(20):
        (root / "folder" / f"{number:02}").write_bytes(random.Random(number).randbytes(200_000))
    (root / "link").symlink_to("folder")
    (root / "folder" / "below" / "deep").write_text("deep")
    for change in changes:
        exec(change, {"root": root, "os": os})
    for path in [*root.rglob("*"), root]:
        if path.name != "touched":
            os.utime(path, (MTIME, MTIME), follow_symlinks=False)
    image = tmp_path / f"{name}.dmg"
    assert run("create", root, image, "--fs", "hfsx", "--volname", "V", *options).code == 0
    return image


CHANGES = (
    "(root / 'folder' / '03').unlink()",
    "(root / 'folder' / '04').chmod(0o600)",
    "(root / 'folder' / '05').write_bytes(b'other')",
    "(root / 'new' / 'inside').mkdir(parents=True); (root / 'new' / 'file').write_text('x')",
    "(root / 'link').unlink(); (root / 'link').symlink_to('elsewhere')",
    "(root / 'folder' / '06').unlink(); (root / 'folder' / '06').mkdir()",
    "os.setxattr(root / 'folder', 'user.x', b'y')",
    "os.link(root / 'folder' / '07', root / 'seven')",
)
SAID = """\
metadata  folder/  (xattrs)
changed   link  (target)
added     new/
added     new/file
added     new/inside/
added     seven
deleted   folder/03
metadata  folder/04  (mode)
changed   folder/05  (content)
changed   folder/06/  (type)
metadata  folder/07  (links)
"""


def test_what_differs(run, tmp_path: Path) -> None:
    old, new = made(run, tmp_path, "old"), made(run, tmp_path, "new", *CHANGES)
    said = run("diff", old, new)
    assert (said.code, said.err) == (1, "")
    assert said.out.decode() == SAID
    listed = json.loads(run("diff", old, new, "--json").out)
    assert len(listed) == len(SAID.splitlines())
    assert {"change": "changed", "path": "folder/05", "type": "file", "what": ["content"]} in listed
    same = made(run, tmp_path, "same", options=("--format", "raw", "--layout", "none"))
    for more in ((), ("--quick",)):
        said = run("diff", old, same, *more)
        assert (said.code, said.out) == (0, b"")


def test_a_delta_makes_the_one_into_the_other(run, tmp_path: Path) -> None:
    late = "(root / 'folder' / '19').write_bytes(b'z' * 200_000)"  # what lies before it stays in its place
    old, new = made(run, tmp_path, "old"), made(run, tmp_path, "new", late)
    delta, out = tmp_path / "delta", tmp_path / "out.dmg"
    said = run("diff", old, new, "--delta", delta, "--json")
    assert said.code == 0
    told = json.loads(said.out)
    assert told["copied"] + told["new"] == new.stat().st_size
    assert told["copied"] > told["new"]
    assert delta.stat().st_size == told["size"] < told["new"] + 10_000
    assert run("diff", old, new, "--delta", delta).code == 73
    assert run("patch", old, delta, out).code == 0
    assert out.read_bytes() == new.read_bytes()
    assert stat.S_ISREG(out.stat().st_mode)
    assert run("patch", old, delta, out).code == 73
    said = run("patch", new, delta, tmp_path / "wrong")
    assert said.code == 65
    assert "made for another file" in said.err
    said = run("patch", old, new, tmp_path / "wrong")
    assert (said.code, said.err) == (66, f"dmgfs: {old}: no dmgfs delta of version 1\n")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("layout", ["raw", "empty"])
def test_deltas_of_other_files(run, tmp_path: Path, layout: str) -> None:
    noise = random.Random(1).randbytes(1_000_000)
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(noise)
    new.write_bytes(noise[: 5 << 16] + b"changed" + noise[(5 << 16) + 7 :] + b"more" if layout == "raw" else b"")
    delta = tmp_path / "delta"
    assert run("diff", old, new, "--delta", delta).code == 0
    assert delta.stat().st_size < 90_000
    assert run("patch", old, delta, tmp_path / "out").code == 0
    assert (tmp_path / "out").read_bytes() == new.read_bytes()


def test_damaged_deltas(run, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(random.Random(1).randbytes(300_000))
    new.write_bytes(random.Random(2).randbytes(100_000) + old.read_bytes())
    delta = tmp_path / "delta"
    assert run("diff", old, new, "--delta", delta).code == 0
    sound = delta.read_bytes()
    chance = random.Random(3)
    for number in range(40):
        damaged = bytearray(sound)
        if number % 2:
            del damaged[chance.randrange(20, len(sound)) :]
        else:
            damaged[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        delta.write_bytes(damaged)
        said = run("patch", old, delta, tmp_path / "out", "--force")
        assert said.code in (0, 65, 66), said.err
        assert said.err.count("\n") == (1 if said.code else 0)
        if said.code == 0:  # (a bit that nobody reads)
            assert (tmp_path / "out").read_bytes() == new.read_bytes()
            (tmp_path / "out").unlink()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_part_of_a_delta(tmp_path: Path, number: signal.Signals) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(random.randbytes(24 << 20))
    command = [sys.executable, "-m", "dmgfs", "diff", tmp_path / "old", tmp_path / "new", "--delta", tmp_path / "out"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not list(tmp_path.glob(".dmgfs-*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert process.stderr.read() == ""
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]
