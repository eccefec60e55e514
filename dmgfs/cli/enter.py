"""dmgfs enter: live in a mounted image. A command runs with the mount as its root directory, and with what programs expect
there: /proc, /sys and /dev of the machine, and an empty /run.

Rules that hold here:
- all of this is mounted in a namespace of its own, which nothing leaves: the machine's table of mounts stays what it is;
- when the command ends, so does everything that it left running, and with it the namespace and its mounts;
- nothing is made in the image for it: a directory that is not there, or is a link (which could lead out of the image), is
  passed over, and said to be;
- standard library only.
"""

import argparse
import ctypes
import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from dmgfs.cli.report import printable

SUMMARY = "run a command, or a shell, with a mount as its root directory"

NO_INPUT, OS_ERROR, NO_PERMISSION, CANNOT_RUN, NOT_FOUND = 66, 71, 77, 126, 127

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BOUND = ("proc", "sys", "dev")

GRACE_SECONDS = 2.0
"""For what the command left running, between SIGTERM and SIGKILL."""

CLONE_NEWNS = 0x00020000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 4096, 1 << 14, 1 << 19


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the image is mounted")
    parser.add_argument(
        "command", metavar="COMMAND", nargs=argparse.REMAINDER, help="with its arguments; default: $SHELL, or /bin/sh"
    )


def run(args: argparse.Namespace) -> int:
    from dmgfs.fuse import mountpoint

    path = mountpoint.resolve(args.mountpoint)
    there = mountpoint.mounted_at(path)
    if there is None or not mountpoint.is_ours(there):
        what = "nothing is mounted there" if there is None else f"a {there.fstype} is mounted there, no image"
        return _say(args.mountpoint, what, NO_INPUT)
    if os.geteuid() != 0:
        return _say(args.mountpoint, "only root can enter a mount; without root there is no chroot", NO_PERMISSION)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if not child:
        _become(args.mountpoint, path, command, parent)
    return _accompany(child)


def _become(shown: str, path: str, command: list[str], parent: int) -> NoReturn:
    """The child: ends as the command, or with a line that says why not."""
    code = OS_ERROR
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            code = _enter(shown, path) or _execute(shown, command)
    except OSError as error:
        code = _say(shown, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror), OS_ERROR)
    finally:
        os._exit(code)


def _enter(shown: str, path: str) -> int:
    """This process goes into its own namespace and makes the mount its root directory. Raises OSError."""
    from dmgfs.fuse.mountpoint import mount

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no namespace for mounts: {os.strerror(number)}")
    mount("none", "/", None, MS_REC | MS_SLAVE, "")
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in BOUND:
        _on(shown, root, name, partial(mount, f"/{name}", kind=None, flags=MS_BIND | MS_REC, options=""))
    _on(shown, root, "run", partial(mount, "run", kind="tmpfs", flags=MS_NOSUID | MS_NODEV, options="mode=0755"))
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")
    return 0


def _on(shown: str, root: int, name: str, cover: Callable[[str], None]) -> None:
    """Covers the directory `name` of the image, if it is one."""
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        _say(shown, f"there is no directory /{name} in it, so /{name} is missing", 0)
        return
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            cover(f"/proc/self/fd/{descriptor}")
        else:
            _say(shown, f"/{name} is no directory in it and left alone", 0)
    finally:
        os.close(descriptor)


def _execute(shown: str, command: list[str]) -> int:
    """Does not return if the command can be run."""
    os.environ.setdefault("PATH", PATH)
    if not command:
        shells = [
            one for one in (os.environ.get("SHELL", ""), "/bin/sh") if os.path.isabs(one) and os.access(one, os.X_OK)
        ]
        if not shells:
            return _say(shown, "there is no shell in it, neither $SHELL nor /bin/sh; say what to run", NOT_FOUND)
        command = shells[:1]
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        code, why = CANNOT_RUN, os.strerror(error.errno or errno.EIO)
        if error.errno == errno.ENOENT and "/" in command[0] and os.path.exists(command[0]):
            why = "the interpreter or loader that it asks for is not in the image"
        elif error.errno == errno.ENOENT:
            code, why = NOT_FOUND, "not found in the image"
        elif error.errno == errno.ENOEXEC:
            why = "no program for Linux"
        return _say(shown, f"{command[0]}: {why}", code)


def _accompany(child: int) -> int:
    """Waits for the command, then ends what it left. Its exit code, or 128 and the number of the signal that ended it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends them to the command as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: _kill(child, number))
    status = 0
    while True:
        process, ended = os.wait()
        if process == child:
            status = ended
            break
    _end_the_rest()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_the_rest() -> None:
    """All descendants that are left are children of this process by now, or become so when their parent ends."""
    end = time.monotonic() + GRACE_SECONDS
    while left := _children():
        for process in left:
            _kill(process, signal.SIGTERM if time.monotonic() < end else signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def _children() -> list[int]:
    """Looked up in /proc, where the list of a process's children is not there in every kernel."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as status:
                    parent = status.read().rpartition(")")[2].split()[1]
            except (OSError, IndexError):
                continue  # gone meanwhile
            if int(parent) == os.getpid():
                found.append(int(entry))
    return found


def _kill(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def _prctl(what: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(what, ctypes.c_ulong(value), 0, 0, 0)


def _say(shown: str, what: str, code: int) -> int:
    print(printable(f"dmgfs: {shown}: {what}"), file=sys.stderr)
    sys.stderr.flush()
    return code
