"""dmgfs ramdisk: directories covered with memory, as rc.cdrom's RAMDisk does it.

Rules that hold here:
- all or nothing: what can be checked is checked before the first disk, and when one fails those before it are taken away;
- a directory whose sockets would be out of reach is refused, or they are kept reachable, never lost silently;
- one line per disk on standard output, with both units.
"""

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from dmgfs.cli.options import WrongUsage, choose, parse_words
from dmgfs.cli.ramplan import PRESETS, SECTOR, Folder, RamDisk, beneath, parse_plan, parse_ram_size
from dmgfs.cli.report import human, printable

if TYPE_CHECKING:
    from dmgfs.fuse.ramdisk import Covered, Union

SUMMARY = "cover a directory with memory, keeping its owner and permissions"

USAGE, SOFTWARE, OS_ERROR = 64, 70, 71


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directory", metavar="DIR", nargs="?", help="the directory to cover")
    add("size", metavar="SECTORS|SIZE", nargs="?", help="1024 is 512K (sectors of 512 bytes); or 64M, 10%%")
    add("--plan", metavar="FILE", help="a list of them, one DIR SIZE per line; all or none")
    add("--preset", choices=tuple(PRESETS), help="a list that is built in")
    add("--under", metavar="ROOT", help="the directories of the list are below this one")
    add("--list", action="store_true", help="the RAM disks that there are (below ROOT)")
    add("--remove", action="store_true", help="take all of them (below ROOT) away, the last one first")
    add(
        "--union",
        nargs="?",
        const="bsd",
        metavar="bsd|overlay",
        help="what the directory holds stays visible: bsd (the default): names that the disk has not show through and "
        "cannot be changed; overlay: what is changed is copied up, what is removed stays away",
    )
    add(
        "--sockets",
        metavar="keep|refuse",
        help="sockets in use below DIR: bind them over the disk, or refuse (default)",
    )
    add("--force", action="store_true", help="cover DIR whatever sockets are below it")
    add("--fuse", action="store_true", help="serve a plain RAM disk ourselves, where a tmpfs would do")
    add(
        "-o",
        dest="words",
        metavar="OPTION,...",
        action="append",
        default=[],
        help="options as in fstab (dev, suid …)",
    )


def run(args: argparse.Namespace) -> int:
    if args.list or args.remove:
        return _list_or_remove(args.under or "/", args.remove)
    try:
        steps = _steps(args)
        words = parse_words(args.words)
        if words.ours:
            raise WrongUsage(f"-o {next(iter(words.ours))}: that is for images")
        union = choose("union", args.union, ("none", "bsd", "overlay"), "none")
        sockets = choose("sockets", args.sockets, ("keep", "refuse"), "refuse")
    except WrongUsage as error:
        print(printable(f"dmgfs: ramdisk: {error}"), file=sys.stderr)
        return USAGE
    return _Work(cast("Union", union), sockets, args.force, args.fuse, words.kernel).all(steps)


def _list_or_remove(root: str, remove: bool) -> int:
    """The exit code of the last one that stays."""
    from dmgfs.cli import unmount
    from dmgfs.fuse import mountpoint

    inside = mountpoint.resolve(root).rstrip("/") + "/"
    code = 0
    for mount in reversed(mountpoint.mounts()):
        if mount.source == mountpoint.RAM_DISK and mount.path.startswith(inside):
            if remove:
                code = unmount.run(argparse.Namespace(mountpoint=mount.path, lazy=False)) or code
            else:
                print(printable(mount.path))
    return code


def _steps(args: argparse.Namespace) -> list[RamDisk | Folder]:
    lists = [name for name in (args.plan, args.preset) if name is not None]
    if len(lists) + (args.directory is not None) != 1:
        raise WrongUsage("write DIR SECTORS|SIZE, or --plan FILE, or --preset NAME")
    if args.directory is not None:
        if args.size is None:
            raise WrongUsage(f"{args.directory}: how large? 1024 is 512K (sectors of 512 bytes)")
        return [RamDisk(args.directory, parse_ram_size(args.size))]
    if args.plan is not None:
        with open(args.plan, encoding="utf-8", errors="surrogateescape") as file:
            steps = parse_plan(file.read(1 << 20), args.plan)
    else:
        steps = parse_plan(PRESETS[args.preset], args.preset)
    return beneath(steps, args.under) if args.under is not None else steps


class _Work:
    def __init__(self, union: "Union", sockets: str, force: bool, fuse: bool, words: Collection[str]) -> None:
        self._union = union
        self._sockets = sockets
        self._force = force
        self._tmpfs = union == "none" and not fuse and os.geteuid() == 0 and sys.platform == "linux"
        self._words = words
        self._done: list[str] = []

    def all(self, steps: list[RamDisk | Folder]) -> int:
        from dmgfs.fuse import mountpoint

        for step in steps:
            if isinstance(step, RamDisk):
                mountpoint.check(step.directory)
        lines = []
        try:
            for step in steps:
                if isinstance(step, Folder):
                    self._make(step)
                else:
                    self._cover(mountpoint.resolve(step.directory), step.size)
                    lines.append(f"{step.directory}: {step.size // SECTOR} sectors, {human(step.size)} of memory")
        except BaseException:
            self._take_back()
            raise
        for line in lines:
            print(printable(line))
        return 0

    def _make(self, folder: Folder) -> None:
        try:
            os.mkdir(folder.directory)
        except FileExistsError:
            return
        os.chmod(folder.directory, folder.mode)

    def _take_back(self) -> None:
        from dmgfs.fuse import mountpoint, sockets

        for path in reversed(self._done):
            try:
                sockets.release(path)
                mountpoint.unmount(path, lazy=True)
            except OSError as error:
                print(printable(f"dmgfs: {path}: {error.strerror}; it stays covered"), file=sys.stderr)

    def _cover(self, path: str, size: int) -> None:
        from dmgfs.fuse import sockets
        from dmgfs.fuse.ramdisk import cover_with_tmpfs, look_at

        found = [] if self._force else sockets.bound_below(path)
        try:
            if found and self._sockets == "refuse":
                names = ", ".join(socket.path for socket in found[:5]) + (", …" if len(found) > 5 else "")
                text = (
                    f"sockets in use would be out of reach: {names}; --sockets keep binds them over, --force covers"
                )
                raise OSError(errno.EBUSY, text, path)
            covered = look_at(path)
            try:
                if self._tmpfs:
                    for lost in cover_with_tmpfs(covered, size, self._words):
                        print(printable(f"dmgfs: {path}: not kept: {lost}"), file=sys.stderr)
                else:
                    self._serve(covered, size)
            finally:
                os.close(covered.descriptor)
            self._done.append(path)
            sockets.keep(path, found)
        finally:
            sockets.close(found)

    def _serve(self, covered: "Covered", size: int) -> None:
        """In a child that stays; returns when it answers."""
        from dmgfs.fuse import daemon

        daemon.keep_standard_streams()
        if os.fork():
            _, status = os.wait()
            code = os.waitstatus_to_exitcode(status)
            if code != 0:
                raise OSError(errno.EIO, f"its daemon ended with {code} before it answered", covered.path)
            return
        code = SOFTWARE
        try:
            code = self._serve_here(covered, size)
        finally:
            os._exit(code)

    def _serve_here(self, covered: "Covered", size: int) -> int:
        from dmgfs.fuse import daemon

        ready = daemon.into_background()
        from dmgfs.fuse.log import open_log
        from dmgfs.fuse.ramdisk import serve_ram_disk
        from dmgfs.fuse.session import MountFailed

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        open_log(None, foreground=False)
        try:
            serve_ram_disk(covered, size, self._union, self._words, ready)
        except (MountFailed, OSError, MemoryError) as error:
            print(printable(f"dmgfs: {covered.path}: {error}"), file=sys.stderr)
            return OS_ERROR
        except Exception as error:
            logging.getLogger(__name__).critical("the daemon failed", exc_info=True)
            print(printable(f"dmgfs: {covered.path}: internal error: {error!r}"), file=sys.stderr)
            return SOFTWARE
        return 0
