"""hfsutils, which shares no code with us, as maker and as reader of volumes (Debian package `hfsutils`)."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.hfs import File, Folder, Image

from dmgfs.hfs import roman
from dmgfs.hfs.volume import open_volume
from dmgfs.source import MemorySource
from dmgfs.volume import ROOT_FOLDER

pytestmark = pytest.mark.skipif(shutil.which("hformat") is None, reason="hfsutils is not installed")

Run = Callable[..., None]

# hfsutils takes patterns and paths; these characters would mean something in them.
USABLE = [bytes([code]) for code in range(33, 256) if code not in b'*:?[]{}\\~/-."\x7f']


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(program: str, *arguments: str | bytes) -> None:
        environment = os.environ | {"HOME": str(tmp_path), "LC_ALL": "C"}
        command = [os.fsencode(argument) for argument in (program, *arguments)]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=20)

    return run


def test_reading_what_hfsutils_wrote(tmp_path: Path, run: Run) -> None:
    """Names of all characters: the order of the listing is hfsutils's, and each is found by ours."""
    image = tmp_path / "volume"
    image.write_bytes(bytes(2 << 20))
    run("hformat", "-l", "Made", "volume")
    run("hmount", "volume")
    chance = random.Random(7)
    made: dict[bytes, tuple[bytes, bytes]] = {}
    while len(made) < 150:
        name = b"".join(chance.choice(USABLE) for _ in range(chance.randint(1, 6)))
        if roman.key(name) in made:
            continue
        made[roman.key(name)] = (name, chance.randbytes(chance.randint(0, 1500)))
        (tmp_path / "file").write_bytes(made[roman.key(name)][1])
        run("hcopy", "-r", "file", b":" + name)
    run("humount")
    volume = open_volume(MemorySource(image.read_bytes()))
    nodes = volume.children(ROOT_FOLDER, None, 1000).nodes
    assert [roman.encode(node.name) for node in nodes] == [made[key][0] for key in sorted(made)]
    assert volume.info.files == len(made)
    for name, content in made.values():
        node = volume.find(ROOT_FOLDER, roman.decode(name))
        assert node is not None
        assert volume.node(node.cnid) == node
        assert volume.data(node).read(0, node.data_size) == content


def test_hfsutils_reads_what_the_builder_wrote(tmp_path: Path, run: Run) -> None:
    """So what the other tests read is no misunderstanding shared by builder and reader. (It takes no volume < 800 KiB.)"""
    chance = random.Random(8)
    files = {
        f"F{number} é": File(chance.randbytes(number * 137), fragments=1 + number % 9, thread=number % 2 == 0)
        for number in range(120)
    }
    (tmp_path / "volume").write_bytes(Image(Folder({"Folder": Folder(files)}), block_size=1024).bytes)
    run("hmount", "volume")
    for name, file in list(files.items())[::3]:
        run("hcopy", "-r", b":Folder:" + name.encode("mac_roman"), "out")
        assert (tmp_path / "out").read_bytes() == file.data
