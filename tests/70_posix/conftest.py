"""Where the POSIX rules are tested: on tmpfs, so that a test that is wrong shows itself, and on a mount, with objects that
are new and with objects that lie in the image.

The image is an HFSX volume with a pool of ready objects of each kind. It is mounted once for all tests; each test gets a
directory of its own."""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from exercise.mounted import mounted
from place import KINDS, Place

POOL = 400
"""Objects of each kind in the image: more than all tests together take."""

_numbers = count()


def _volume() -> HfsPlusBuilder:
    volume = HfsPlusBuilder(hfsx=True, binary=True, block_size=4096)
    pool = volume.folder(ROOT, "pool", mode=0o40755, uid=0, gid=0)
    kinds = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "chr": stat.S_IFCHR, "blk": stat.S_IFBLK}
    for number in range(POOL):
        volume.file(pool, f"file-{number}", b"lies in the image" * (number % 7), uid=0, gid=0)
        volume.folder(pool, f"dir-{number}", uid=0, gid=0, record_flags=0x10)
        volume.symlink(pool, f"symlink-{number}", b"target")
        for kind, bits in kinds.items():
            volume.file(pool, f"{kind}-{number}", mode=bits | 0o644, uid=0, gid=0, special=1 << 24 | 7)
    return volume


@pytest.fixture(scope="session")
def pool_mount() -> Iterator[tuple[Path, dict[str, int]]]:
    """The mount, and how many objects of each kind were taken from its pool. Not in pytest's own folder: other users must
    get through to it."""
    folder = Path(tempfile.mkdtemp(prefix="dmgfs-posix-"))
    try:
        folder.chmod(0o755)
        image = folder / "pool.img"
        image.write_bytes(bytes(_volume().build().data))
        with mounted(image, folder / "mount", "--shadow", "ram:512M", "-o", "allow_other,dev,suid,acl") as mount:
            yield mount, dict.fromkeys(KINDS, 0)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def tick() -> Callable[[], None]:
    """Lets the kernel's clock move: file times are taken from a clock of a few milliseconds."""
    return lambda: time.sleep(0.02)


@contextlib.contextmanager
def _empty(root: Path) -> Iterator[Path]:
    root.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        root.chmod(0o755)
        yield root
    finally:
        os.umask(old)
        shutil.rmtree(root)


@pytest.fixture(params=["tmpfs", "new", "image"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A directory to work in. tmpfs: the yardstick. new, image: on the mount; objects are made, or taken from the image."""
    name = f"posix-{os.getpid()}-{next(_numbers)}"
    if request.param == "tmpfs":
        with _empty(Path("/dev/shm") / name) as root:
            yield Place("tmpfs", root)
        return
    mount, taken = request.getfixturevalue("pool_mount")
    with _empty(mount / name) as root:
        yield Place(request.param, root, mount / "pool" if request.param == "image" else None, taken)
