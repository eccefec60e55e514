"""The mount that a program lives in."""

import os
import signal
import subprocess
from pathlib import Path

from exercise.daemon import clear_away, has_ended, process_of
from exercise.mounted import dmgfs

NAMESPACE_SECONDS = 120.0


class Home:
    """A mount of `image` on `place`. shadow: `ram…` or the path of a shadow file. notes: what a workload tells."""

    def __init__(self, image: Path, place: Path, shadow: str | Path, *options: str) -> None:
        self.image, self.place, self.shadow, self.options = image, place, shadow, options
        self.lasts = isinstance(shadow, Path)
        self.notes: list[str] = []

    def enter(self) -> None:
        self.place.mkdir(exist_ok=True)
        given = ("--shadow", str(self.shadow), "-o", "allow_other,dev,suid", *self.options)
        ended = dmgfs("mount", self.image, self.place, *given)
        assert ended.code == 0, ended.err

    def leave(self) -> None:
        """Unmounts as users do; a shadow file must be sound then. The daemon lives on for as long as a mount namespace does
        that somebody made meanwhile, with a copy of the mount in it."""
        process = process_of(self.place)
        ended = dmgfs("unmount", self.place)
        assert ended.code == 0, ended.err
        assert has_ended(process, NAMESPACE_SECONDS)
        self.check()

    def check(self) -> None:
        if self.lasts:
            ended = dmgfs("shadow", "check", self.shadow)
            assert ended.code == 0, f"shadow check: {ended.out}{ended.err}"

    def kill(self) -> None:
        """kill -9 of the daemon."""
        process = process_of(self.place)
        os.kill(process, signal.SIGKILL)
        assert has_ended(process)

    def enter_again(self) -> None:
        """After `kill`: the dead mount is taken away, the shadow file must be sound."""
        clear_away(self.place)
        self.check()
        self.enter()


def run(*command: str | Path, cwd: Path | None = None, stdin: str | None = None, **more: str) -> str:
    """Standard output of a program that must succeed; more: its environment."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", **more},
    )
    told = (done.stdout + done.stderr).strip()[-2000:]
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}: {told}"
    return done.stdout
