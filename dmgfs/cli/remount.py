"""`-o remount` of `dmgfs mount` and mount.dmgfs: what stands is changed as far as the kernel can: ro, rw, noatime, nosuid …

Rules that hold here:
- mount(8) repeats all options of fstab and of the kernel's table beside the new one, so ours are taken for what the mount
  has already. Only a shadow that it plainly has not is refused;
- and it tells `exec` by not telling `noexec` any more: what is not said is off. Except nosuid and nodev, which are on
  unless told otherwise, as when mounting.
"""

import argparse
import errno
import os
from typing import Any

from dmgfs.cli.options import Words, WrongUsage, parse_shadow

_OFF = {"noexec": "exec", "sync": "async", "noatime": "atime"}


def remount(args: argparse.Namespace, words: Words) -> int:
    """Raises WrongUsage and OSError."""
    from dmgfs.cli.control import ask, require
    from dmgfs.fuse.remount import change, is_read_only

    there = require(args.mountpoint)
    opening = "rw" in words.kernel and is_read_only(there.path)
    wanted = parse_shadow(words.ours.get("shadow", "none"))
    if opening or wanted.kind != "none":
        shadow: dict[str, Any] | None = ask(there.path, "status")["shadow"]
        kind = "none" if shadow is None else shadow["kind"]
        if wanted.kind != "none" and kind != (wanted.path or wanted.kind):
            raise WrongUsage(
                f"-o remount,shadow={words.ours['shadow']}: a remount changes no shadow; "
                f"`dmgfs shadow attach {args.mountpoint} ram|FILE` gives it one"
            )
        if opening and shadow is None:
            text = f"it has no shadow for changes; `dmgfs shadow attach {args.mountpoint} ram|FILE` makes it writable"
            raise OSError(errno.EROFS, text, args.mountpoint)
    if os.geteuid() != 0:
        raise OSError(errno.EPERM, "only root can change how a mount is mounted", args.mountpoint)
    try:
        change(there.path, [*words.kernel, *(off for on, off in _OFF.items() if on not in words.kernel)])
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        text = "busy: files in it are open for writing, so it cannot become read-only"
        raise OSError(errno.EBUSY, text, args.mountpoint) from None
    return 0
