"""nbdkit: where it is, whether it can take us in, how it is started.

Rules that hold here:
- the Python inside nbdkit is the system's. It finds our packages by a list of folders; compiled ones fit only the Python
  that they were made for, so another version is refused before it fails to load them;
- nbdkit takes our place (exec): whoever started or supervises us has the server's own process number.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence

from dmgfs.nbd.settings import VARIABLE

INSTALL = "apt-get install nbdkit nbdkit-plugin-python (elsewhere: nbdkit and its Python plug-in)"
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "script.py")
_THREADS = 4, 16
"""Least and most for one connection: each may hold a request of 64 MiB."""

_ABOVE = 10
"""Descriptors that nbdkit inherits are moved to here and above: the first ones are for sockets."""


class NoProgram(Exception):
    """nbdkit is not there, or cannot take us in. The text says what to do."""


def find() -> str:
    """The path of nbdkit. Raises NoProgram, also where its Python is not ours."""
    program = shutil.which("nbdkit") or shutil.which(
        "nbdkit", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    )
    if program is None:
        raise NoProgram(f"needs nbdkit, which speaks NBD; install it: {INSTALL}")
    done = subprocess.run(
        [program, "--filter=limit", "python", "--dump-plugin"],
        env=environment(program),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    facts = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    if done.returncode or "python_version" not in facts:
        said = done.stderr.strip().splitlines()
        raise NoProgram(
            f"nbdkit has no Python plug-in ({said[-1] if said else 'no word why'}); install it: {INSTALL}"
        )
    ours, theirs = sys.version_info[:2], tuple(map(int, facts["python_version"].split(".")[:2]))
    if ours != theirs:
        version = ".".join(map(str, theirs))
        raise NoProgram(
            f"nbdkit has Python {version} inside, and dmgfs runs on {ours[0]}.{ours[1]}: install dmgfs for python{version}"
            f" as well (python{version} -m venv …) and serve with that one"
        )
    return program


def environment(program: str) -> dict[str, str]:
    """Ours, without what would lead the Python inside nbdkit to another one's library."""
    known = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "LISTEN_", "NBDKIT_", "__PYVENV")) and key != "VIRTUAL_ENV"
    }
    own = os.path.dirname(os.path.realpath(program))
    return known | {"PATH": f"{own}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}


def replace_by(program: str, options: Sequence[str], *, limit: int, socket: int, settings: int) -> None:
    """nbdkit in place of this process, listening on `socket` for `limit` clients at a time (0: any number), with `settings`
    (see `hand_over`). Raises OSError."""
    known = environment(program)
    known["DMGFS_SERVE_PATH"] = json.dumps(_folders())
    known[VARIABLE] = str(moved(settings))
    high = moved(socket)
    os.dup2(high, 3, inheritable=True)
    os.set_inheritable(high, False)
    known |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    threads = min(max(os.cpu_count() or 1, _THREADS[0]), _THREADS[1])
    first = [program, "--foreground", "--log=stderr", f"--threads={threads}", "--filter=limit"]
    os.execve(program, [*first, *options, "python", _SCRIPT, f"limit={limit}"], known)


def moved(descriptor: int) -> int:
    """The same one, inheritable, with a number that is in nobody's way."""
    import fcntl

    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE)
    os.close(descriptor)
    return high


def _folders() -> list[str]:
    """Where our packages are: ours to begin with, then those of the environment, without the standard library."""
    paths = sysconfig.get_paths()
    standard = {paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("DESTSHARED")}
    own = os.path.dirname(os.path.dirname(os.path.dirname(_SCRIPT)))
    others = [
        folder
        for folder in sys.path
        if os.path.isdir(folder) and folder not in standard and os.path.basename(folder) != "lib-dynload"
    ]
    return list(dict.fromkeys([own, *map(os.path.abspath, others)]))
