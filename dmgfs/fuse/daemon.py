"""Into the background: the command's parent process waits until the mount answers and takes over the exit code.

Rules that hold here:
- the fork comes first, before anything is opened, any thread runs or trio is imported: the child then makes everything
  itself, and no descriptor of the mount stays in the parent (an open one would keep a dead mount alive);
- the child speaks to the terminal until it is ready, so its error line is the command's error line; then it lets go of
  terminal, directory and standard streams;
- the parent says nothing but what the child cannot: that it died without a word.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

SOFTWARE = 70
_READY = b"R"


def keep_standard_streams() -> None:
    """Descriptors 0 to 2 exist. Otherwise the next file opened would become standard error."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def into_background(*, keep_stderr: bool = False, leave: Callable[[int], NoReturn] = os._exit) -> Callable[[], None]:
    """Returns in the child, with the function to call once the mount answers. The parent leaves: with 0 after that call,
    otherwise with the child's exit code."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(write_end)
        leave(_wait(child, read_end))
    os.close(read_end)

    def ready() -> None:
        os.setsid()
        leave_terminal((0, 1) if keep_stderr else (0, 1, 2))
        try:
            os.write(write_end, _READY)
        except BrokenPipeError:
            pass  # the command was killed meanwhile; the mount stands all the same
        os.close(write_end)

    return ready


def leave_terminal(descriptors: Iterable[int]) -> None:
    """Standard streams to /dev/null, so that whoever reads our output sees its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _wait(child: int, read_end: int) -> int:
    try:
        if os.read(read_end, 1) == _READY:
            return 0
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        return 130
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        os.write(2, f"dmgfs: the daemon was ended by {name} before the mount answered\n".encode())
        return SOFTWARE
    return os.WEXITSTATUS(status) or SOFTWARE
