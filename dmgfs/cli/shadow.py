"""dmgfs shadow: see, keep, take back and move the changes of a live mount or of a shadow file. One sub-verb per function
here; the work is the daemon's, or the overlay library's.
"""

import argparse
import errno
import os

from dmgfs.cli.options import DEFAULT_SHARE, WrongUsage, memory_size, shadow_budget
from dmgfs.cli.report import human, printable

SUMMARY = "changes of a mount: see, keep, take back, resize, attach"

USAGE = 64


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)

    def verb(name: str, help: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help)

    resize = verb("resize", "give the shadow another size, live")
    resize.add_argument("mountpoint", metavar="MOUNTPOINT")
    resize.add_argument("size", metavar="SIZE", help="bytes, or 512M, 2G, or NN%% of the memory")
    attach = verb("attach", "make a live read-only mount writable")
    attach.add_argument("mountpoint", metavar="MOUNTPOINT")
    attach.add_argument("shadow", metavar="ram[:SIZE|:NN%]|FILE", help="where changes go from now on")
    attach.add_argument("--force-base", action="store_true", help="take a file that was made over another image")


def run(args: argparse.Namespace) -> int:
    try:
        return int(_VERBS[args.what](args))
    except WrongUsage as error:
        print(printable(f"dmgfs: shadow {args.what}: {error}"))
        return USAGE


def _resize(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require

    mount = require(args.mountpoint)
    now = ask(mount.path, "resize", size=shadow_budget(args.size, args.size))
    print(f"{human(now['used'])} of {human(now['budget'])} used")
    return 0


def _attach(args: argparse.Namespace) -> int:
    from dmgfs.cli.control import ask, require
    from dmgfs.fuse.remount import is_read_only, make_writable

    mount = require(args.mountpoint)
    read_only = is_read_only(mount.path)
    if read_only and os.geteuid() != 0:
        text = "the kernel mounted it read-only, and only root can change that; mount with --late-shadow next time"
        raise OSError(errno.EPERM, text, args.mountpoint)
    kind, _, amount = args.shadow.partition(":")
    if kind == "ram":
        size = shadow_budget(args.shadow, amount) if amount else memory_size() * DEFAULT_SHARE // 100
        ask(mount.path, "attach", size=size)
    else:
        path = os.path.abspath(args.shadow)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(path, flags, 0o600)
        try:
            _require_elsewhere(file, mount.device, path)
            ask(mount.path, "attach", [file], seconds=None, path=path, force=args.force_base)
        finally:
            os.close(file)
    if read_only:
        make_writable(mount.path)
        ask(mount.path, "settle")
    return 0


def _require_elsewhere(file: int, device: str, path: str) -> None:
    """A shadow inside of its own mount would wait for itself."""
    status = os.fstat(file)
    if f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" == device:
        raise OSError(errno.EINVAL, "it lies in the mount itself", path)


_VERBS = {"resize": _resize, "attach": _attach}
