"""A mount namespace of its own, in which a test may put things where the system looks for them (/usr/sbin, /etc) without
touching the machine. Everything mounted in it is gone at the end, daemons included."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from exercise.mounted import DMGFS

USERS = (4_000_001, 4_000_002)

REPOSITORY = Path(__file__).resolve().parents[2]

LET_GO = "umount -a -i -l -t fuse.dmgfs"
"""The namespace begins with copies of all mounts; those of other tests would keep their daemons from ending."""

PROGRAMS = ("dmgfs", "mount.dmgfs")


class Namespace:
    """process: one that lives in it. folder: a tmpfs, seen in it only."""

    def __init__(self, process: int, folder: Path) -> None:
        self.process = process
        self.folder = folder

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

    def let_users_in(self) -> None:
        """There are two ordinary users (USERS); they may use /dev/fuse, and reach Python and dmgfs wherever those are."""
        self.shell(
            'mknod -m 666 "$T/fuse" c 10 229; mount --bind "$T/fuse" /dev/fuse\n'
            'cp /etc/passwd "$T/passwd"; chmod 644 "$T/passwd"; mount --bind "$T/passwd" /etc/passwd\n'
            + "".join(f'echo "dmgfs{user}:x:{user}:{user}::/:/bin/sh" >>/etc/passwd\n' for user in USERS),
            T=str(self.folder),
        )
        for path in {Path(sys.base_prefix), Path(sys.prefix), REPOSITORY}:
            for above in reversed(path.parents):
                if not above.stat().st_mode & 0o001:
                    self._open_way(above, path)
                    break

    def _open_way(self, shut: Path, path: Path) -> None:
        self.shell(
            'mkdir -p "$T/held"; mount --bind "$P" "$T/held"; mount -t tmpfs -o mode=755 none "$SHUT"\n'
            'mkdir -p "$P"; mount --move "$T/held" "$P"',
            T=str(self.folder),
            P=str(path),
            SHUT=str(shut),
        )

    def as_user(self, user: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """The same without any privilege."""
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
        return self.run(*words, *command, env={"HOME": "/"})

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
    inside = Namespace(held.pid, folder)
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
