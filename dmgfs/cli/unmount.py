"""dmgfs unmount: take a mount away and wait until its daemon has ended, so that what follows finds everything released.

A daemon that goes on serving is not waited for: the same is mounted elsewhere, perhaps in a namespace that we do not see.
It knows, and is asked.
"""

import argparse
import errno
import os
import select
import sys
import threading
import time

from dmgfs.cli.report import printable

SUMMARY = "unmount a directory and wait for the daemon to end"

NO_INPUT, TEMPORARY, NO_PERMISSION = 66, 75, 77

ANSWER_SECONDS = 2.0
LONGEST_SECONDS = 600.0
MOST_HOLDERS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the image is mounted")
    parser.add_argument(
        "--lazy", action="store_true", help="if it is busy, take it out of sight; gone when nobody uses it"
    )


def run(args: argparse.Namespace) -> int:
    from dmgfs.fuse import mountpoint

    path = mountpoint.resolve(args.mountpoint)
    there = mountpoint.mounted_at(path)
    if there is None or not mountpoint.is_ours(there):
        what = "nothing is mounted there" if there is None else f"a {there.fstype} is mounted there, no image"
        print(printable(f"dmgfs: {args.mountpoint}: {what}"), file=sys.stderr)
        return NO_INPUT
    owner = next((word[8:] for word in there.options.split(",") if word.startswith("user_id=")), None)
    if owner is not None and os.geteuid() not in (0, int(owner)):
        text = f"mounted by user {owner}; only that user and root can unmount it"
        print(printable(f"dmgfs: {args.mountpoint}: {text}"), file=sys.stderr)
        return NO_PERMISSION
    daemon, socket = _watch(path) if there.fstype == mountpoint.FSTYPE else (mountpoint.daemon_below(there), b"")
    if there.source == mountpoint.RAM_DISK and (daemon is not None or there.fstype != mountpoint.FSTYPE):
        from dmgfs.fuse import sockets

        sockets.release(path)
    try:
        try:
            mountpoint.unmount(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if not args.lazy:
                return _busy(args.mountpoint, path)
            mountpoint.unmount(path, lazy=True)
            return 0
        if daemon is not None:
            _await_end(daemon, socket)
    finally:
        if daemon is not None:
            os.close(daemon)
    return 0


def _watch(path: str) -> tuple[int | None, bytes]:
    """A descriptor that becomes readable when the daemon ends, None if it does not say which process it is; and the name
    of its socket, empty if it does not tell us."""
    found: list[int] = []
    sockets: list[bytes] = []

    def ask() -> None:
        try:
            found.append(os.pidfd_open(int(os.getxattr(path, "user.dmgfs.pid"))))
            sockets.append(os.getxattr(path, "user.dmgfs.control"))
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)  # a daemon that hangs must not keep us from unmounting it
    thread.start()
    thread.join(ANSWER_SECONDS)
    return (found[0] if found else None), (sockets[0] if sockets else b"")


def _await_end(daemon: int, socket: bytes) -> None:
    """Returns when the process has ended, or is found to go on serving."""
    from dmgfs.cli.control import SECONDS, ask_daemon

    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end and not select.select([daemon], [], [], 1.0)[0]:
        try:
            if socket and ask_daemon(socket, "", "mounted", seconds=SECONDS):
                return
        except (OSError, ValueError):
            continue  # it is on its way out: writing its shadow, for example


def _busy(shown: str, path: str) -> int:
    from dmgfs.fuse import mountpoint

    print(printable(f"dmgfs: {shown}: busy; --lazy unmounts it all the same. It is used by"), file=sys.stderr)
    for number, holder in enumerate(mountpoint.holders(path)):
        if number == MOST_HOLDERS:
            print("  and others", file=sys.stderr)
            break
        who = holder.name if holder.pid == 0 else f"{holder.pid} {holder.name}"
        print(printable(f"  {who}: {holder.what}"), file=sys.stderr)
    return TEMPORARY
