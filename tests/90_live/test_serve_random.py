"""The same random requests for our two writable disks, the one that `serve` gives to NBD clients and the file that `attach`
makes, for nbdkit's copy-on-write filter, for qemu-nbd over a copy-on-write image, and for a bytearray."""

import os
import random
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from exercise.here import here
from exercise.mounted import dmgfs
from exercise.nbd import serving, started
from exercise.samedisk import Model, OverFile, OverNbd, compare

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not (shutil.which("nbdkit") and shutil.which("qemu-nbd")), reason="needs nbdkit and qemu-nbd"),
]

REQUESTS = int(os.environ.get("DMGFS_REQUESTS", "400"))
SEED = int(os.environ.get("DMGFS_SEED", "0")) or random.randrange(1, 1 << 32)


class Forgetful(Model):
    """Loses the last byte of what it is told to write, sometimes."""

    def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        super().write(offset, data[:-1] if len(data) == 4097 else data)


def test_a_disk_that_forgets_is_found_out() -> None:
    with pytest.raises(AssertionError, match=r"seed 1, request \d+: forgetful differs at \d+ of 1048576"):
        compare({"sound": Model(bytes(1 << 20)), "forgetful": Forgetful(bytes(1 << 20))}, bytes(1 << 20), 1, 400)


@pytest.mark.parametrize("kind", ["ram", "file"])
@pytest.mark.parametrize("size", [2 << 20, (1 << 20) + 3 * 512], ids=["pages", "sectors"])
def test_every_read_is_what_the_others_read(kind: str, size: int, place: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}: DMGFS_SEED={SEED} DMGFS_REQUESTS={REQUESTS} repeats this")
    source = random.Random(SEED)
    raw = bytearray(source.randbytes(size // 4).hex().encode().ljust(size, b"\0"))
    raw[-5000:] = source.randbytes(5000)
    (tmp_path / "raw").write_bytes(raw)
    image = tmp_path / "disk.dmg"
    assert here("convert", tmp_path / "raw", image, "--to", source.choice(["udzo", "ulfo", "ulmo", "udbz"])).code == 0
    shadows = {"ram": ("ram", "ram"), "file": (tmp_path / "served", tmp_path / "attached")}[kind]
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", tmp_path / "raw", "-F", "raw", tmp_path / "top"], check=True
    )
    theirs = {
        "nbdkit --filter=cow": ["nbdkit", "-f", "-U", tmp_path / "cow", "--filter=cow", "file", tmp_path / "raw"],
        "qemu-nbd": [
            *("qemu-nbd", "-t", "-e", "2", "-f", "qcow2"),
            "--discard=unmap",
            "-k",
            tmp_path / "qemu",
            tmp_path / "top",
        ],
    }
    with ExitStack() as ends:
        ended = dmgfs("attach", image, place, "--shadow", shadows[1])
        assert (ended.code, ended.err) == (0, "")
        ends.callback(here, "detach", place)
        attached = OverFile(place / "disk")
        ends.callback(attached.close)
        served = ends.enter_context(serving(image, tmp_path, "--shadow", shadows[0]))
        disks: dict[str, OverNbd | OverFile] = {"dmgfs serve": OverNbd(served.connect), "dmgfs attach": attached}
        for name, path in (("nbdkit --filter=cow", tmp_path / "cow"), ("qemu-nbd", tmp_path / "qemu")):
            server = ends.enter_context(started(theirs[name], path, tmp_path / f"{path.name}.log"))
            disks[name] = OverNbd(server.connect)
        compare(disks, bytes(raw), SEED, REQUESTS)
        for disk in disks.values():
            if isinstance(disk, OverNbd):
                disk.close()
    if kind == "file":
        for shadow in shadows:
            new = tmp_path / "new"
            assert here("convert", image, new, "--shadow", shadow, "--force").code == 0
            assert here("shadow", "check", shadow).code == 0
            subprocess.run(
                ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", new, tmp_path / "top"], check=True
            )
