"""Where the POSIX rules are tested: on tmpfs, so that a test that is wrong shows itself, and on a mount, with objects that
are new and with objects that lie in the image."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from place import Place


@pytest.fixture
def tick() -> Callable[[], None]:
    """Lets the kernel's clock move: file times are taken from a clock of a few milliseconds."""
    return lambda: time.sleep(0.02)


@pytest.fixture(params=["tmpfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    import os
    import shutil

    root = Path("/dev/shm") / f"posix-{os.getpid()}"
    root.mkdir(mode=0o755)
    old = os.umask(0)
    try:
        yield Place("tmpfs", root)
    finally:
        os.umask(old)
        shutil.rmtree(root)
