"""dmgfs shadow, about the file that holds changes: is it sound, away with it, make it smaller."""

import argparse
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dmgfs.cli.report import human, print_json, printable
from dmgfs.cli.shadowfile import is_file

DATA_ERROR = 65


def check_file(args: argparse.Namespace) -> int:
    from overlay.check import check
    from overlay.superblock import layers_of

    report = check(args.file)
    if args.json:
        fields: dict[str, Any] = {"objects": report.inodes, "used": report.size, "base": dict(report.base)}
        fields["fingerprint"] = report.fingerprint
        names = [name.decode("utf-8", "surrogateescape") for name in report.snapshots]
        print_json({**fields, "snapshots": names, "problems": report.problems})
    else:
        for problem in report.problems:
            print(printable(f"{args.file}: {problem}"))
        state = f"{len(report.problems)} problems" if report.problems else "clean"
        kept = f", {len(report.snapshots)} snapshots" if report.snapshots else ""
        print(printable(f"{args.file}: {state}; {report.inodes} objects{kept}, {human(report.size)}"))
        over = f", over {', '.join(layers)}" if (layers := layers_of(report.base)) else ""
        print(f"  as a layer: {report.fingerprint}{over}")
    return DATA_ERROR if report.problems else 0


def discard(args: argparse.Namespace) -> int:
    from overlay.errors import ShadowInUse
    from overlay.file import FileStore

    if not is_file(args.where):
        _refuse_live(args.where)
    if not os.path.exists(args.where):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), args.where)
    try:
        store = FileStore.open_file(args.where, None)  # raises unless it is a shadow that nobody uses
    except ShadowInUse:
        mountpoint = _user_of(args.where)
        if mountpoint is not None:
            _refuse_live(mountpoint)
        raise
    try:
        os.unlink(args.where)
    finally:
        store.close()
    return 0


def _refuse_live(mountpoint: str) -> None:
    """Changes that somebody sees are not thrown away with the file that holds them; there are two things he may want."""
    from dmgfs.cli.control import ask, require

    mount = require(mountpoint)
    shadow = ask(mount.path, "status")["shadow"]
    if shadow is None:
        raise OSError(errno.EROFS, "the mount is read-only and has no changes", mountpoint)
    reset = f"`dmgfs shadow reset {mount.path}` takes all changes back"
    if shadow["kind"] == "ram":
        raise OSError(errno.EBUSY, f"{reset}, and unmounting throws them away", mountpoint)
    text = f"it is in use by the mount: {reset}; after unmounting, `dmgfs shadow discard {shadow['kind']}` removes the file"
    raise OSError(errno.EBUSY, text, mountpoint)


def _user_of(path: str) -> str | None:
    """The live mount that keeps its changes in this file, as far as can be seen."""
    from dmgfs.cli.control import ask
    from dmgfs.fuse.mountpoint import FSTYPE, mounts

    for mount in mounts():
        try:
            shadow = ask(mount.path, "status")["shadow"] if mount.fstype == FSTYPE else None
            if shadow is not None and os.path.samefile(shadow["kind"], path):
                return mount.path
        except OSError:
            continue
    return None


def compact(args: argparse.Namespace) -> int:
    """A file in use gives parts of itself back; one that nobody uses is written anew, which takes as much room meanwhile
    and leaves nothing out."""
    if not is_file(args.where):
        from dmgfs.cli.control import ask, require

        mount = require(args.where)
        path = (ask(mount.path, "status")["shadow"] or {}).get("kind", "")
        before = _taken(path)
        ask(mount.path, "compact", seconds=None)
    else:
        from overlay.compact import compact as write_anew

        path = args.where
        before = _taken(path)
        with new_file(path, replace=True) as file:
            write_anew(path, os.dup(file))
    now = _taken(path)
    if before is not None and now is not None:
        print(f"{human(before)} before, {human(now)} now")
    return 0


def _taken(path: str) -> int | None:
    """What a file takes of its file system; None if it cannot be seen from here."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return None


@contextmanager
def new_file(path: str, *, replace: bool = False) -> Iterator[int]:
    """A file that appears under its name when it is whole and on the medium. replace: another one may be there."""
    partial = f"{path}.partial"
    if not replace and os.path.lexists(path):
        raise OSError(errno.EEXIST, "it exists already and is left alone", path)
    file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            yield file
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
