"""A mount namespace of its own, in which a test may put things where the system looks for them (/usr/sbin, /etc) without
touching the machine. Everything mounted in it is gone at the end, daemons included."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from exercise.mounted import DMGFS

LET_GO = "umount -a -i -l -t fuse.dmgfs"
"""The namespace begins with copies of all mounts; those of other tests would keep their daemons from ending."""

PROGRAMS = ("dmgfs", "mount.dmgfs")


class Namespace:
    """process: one that lives in it."""

    def __init__(self, process: int) -> None:
        self.process = process

    def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """`command` in the namespace, with dmgfs on the PATH."""
        path = f"{DMGFS.parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self.process}/ns/mnt", *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": path, "LC_ALL": "C", **(env or {})},
            timeout=timeout,
        )

    def shell(self, script: str, **options: str) -> str:
        """What the script prints; it has to succeed. options: its environment."""
        done = self.run("sh", "-ec", script, env=options)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def mounts(self) -> list[tuple[str, str, str]]:
        """(path, type, options of the mount and of the file system)."""
        found = []
        for line in Path(f"/proc/{self.process}/mounts").read_text().splitlines():
            _, path, kind, options = line.split()[:4]
            found.append((path.encode().decode("unicode_escape"), kind, options))
        return found

    def options(self, place: Path) -> set[str]:
        """Of what is mounted there; empty: nothing of ours."""
        found = [options for path, kind, options in self.mounts() if path == str(place) and kind == "fuse.dmgfs"]
        return set(found[-1].split(",")) if found else set()


@contextlib.contextmanager
def namespace(folder: Path) -> Iterator[Namespace]:
    """folder: for what is needed behind it. dmgfs and mount.dmgfs are in its /usr/sbin."""
    held = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{LET_GO}; echo; exec sleep infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert held.stdout is not None
    held.stdout.readline()
    inside = Namespace(held.pid)
    try:
        inside.shell(
            'mount -t tmpfs none "$FOLDER"; mkdir "$FOLDER/upper" "$FOLDER/work"\n'
            'mount -t overlay none -o "lowerdir=/usr/sbin,upperdir=$FOLDER/upper,workdir=$FOLDER/work" /usr/sbin\n'
            + "".join(f'ln -s "$DMGFS" /usr/sbin/{name}\n' for name in PROGRAMS),
            FOLDER=str(folder),
            DMGFS=str(DMGFS),
        )
        yield inside
    finally:
        for path, kind, _ in reversed(inside.mounts()):
            if kind in ("fuse.dmgfs", "autofs"):
                inside.run("umount", "-i", "-l", path)
        held.kill()
        held.wait()
        held.stdout.close()
