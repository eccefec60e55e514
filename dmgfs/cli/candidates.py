"""Shadows to choose from, as rc.netboot does: --shadow auto:[RULE,]FILE,FILE,ram.

    RULE    -NETWORK-, -LOCAL-             files on a network file system first, or those on a local one
            -NETWORK_ONLY-, -LOCAL_ONLY-   no others
            none                           in the order in which they stand
    ram, ram:SIZE, ram:NN% may be among them, always as the last one: it can always be had

Rules that hold here:
- the first one that can be had is taken: a file that is damaged, in use or of another image is left as it is and passed
  over, in a line that says why. If none can be had, the last reason is the command's, with its exit code;
- a folder that is missing is made, one level of it, for its owner alone (0700); files are 0600;
- with --wait, the first file's folder is waited for; then it goes as it is.
"""

import os
import time
from collections.abc import Callable, Sequence

from dmgfs.cli.options import Shadow, WrongUsage, parse_shadow

AUTO = "auto:"
MOST = 32
RULES = ("-NETWORK-", "-NETWORK_ONLY-", "-LOCAL-", "-LOCAL_ONLY-")
POLL_SECONDS = 0.2

NETWORKS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "coda",
        "ocfs2",
        "gfs2",
        "lustre",
        "glusterfs",
    }
    | {
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.davfs",
        "fuse.curlftpfs",
        "davfs",
        "virtiofs",
    }
)


def is_auto(text: str | None) -> bool:
    return text is not None and text.startswith(AUTO)


def parse_auto(text: str) -> tuple[str, list[Shadow]]:
    """(rule or "", shadows as they stand). Raises WrongUsage."""
    words = [word.replace("\0", ",") for word in text.removeprefix(AUTO).replace("\\,", "\0").split(",")]
    rule = ""
    if words and words[0].startswith("-"):
        rule = words.pop(0)
        if rule not in RULES:
            raise WrongUsage(f"--shadow {text}: there is no rule {rule}; there are {', '.join(RULES)}")
    if len(words) > 1 and words[-1].startswith("compress="):
        words[-2:] = [",".join(words[-2:])]
    if not any(words) or not all(words) or len(words) > MOST:
        raise WrongUsage(f"--shadow {text}: write auto:[RULE,]FILE,...,ram, at most {MOST} of them")
    shadows = [parse_shadow(word) for word in words]
    for number, shadow in enumerate(shadows, 1):
        if shadow.kind == "none":
            raise WrongUsage(
                f"--shadow {text}: none is no shadow; --on-error ro mounts read-only if no other can be had"
            )
        if shadow.kind == "ram" and number < len(shadows):
            raise WrongUsage(f"--shadow {text}: ram can always be had; write it last")
    return rule, shadows


def ordered(rule: str, shadows: Sequence[Shadow], on_network: Callable[[str], bool]) -> list[Shadow]:
    """Those that the rule allows, in its order."""
    files = [shadow for shadow in shadows if shadow.kind == "file"]
    rest = [shadow for shadow in shadows if shadow.kind != "file"]
    if rule:
        network = "NETWORK" in rule
        wanted = [shadow for shadow in files if on_network(shadow.path) == network]
        others = [] if "ONLY" in rule else [shadow for shadow in files if shadow not in wanted]
        files = wanted + others
    return files + rest


def on_network(path: str) -> bool:
    """Whether the file lies, or would lie, on a network file system."""
    from dmgfs.fuse.mountpoint import mounts

    place = os.path.realpath(path)
    longest, kind = -1, ""
    for mount in mounts():
        inside = place == mount.path or place.startswith(mount.path.rstrip("/") + "/")
        if inside and len(mount.path) >= longest:
            longest, kind = len(mount.path), mount.fstype
    return kind in NETWORKS


def choose(text: str, wait: float) -> Shadow:
    """The shadow of kind "auto", whose `others` are to be tried in order. Raises WrongUsage."""
    rule, shadows = parse_auto(text)
    end = time.monotonic() + wait
    while True:
        found = ordered(rule, shadows, on_network)
        if not found and time.monotonic() >= end:
            raise WrongUsage(f"--shadow {text}: {rule} leaves none of them")
        if found and (found[0].kind != "file" or _make_folder(found[0].path) or time.monotonic() >= end):
            break
        time.sleep(POLL_SECONDS)
    for shadow in found:
        if shadow.kind == "file":
            _make_folder(shadow.path)
    return Shadow("auto", path=text, others=tuple(found))


def _make_folder(path: str) -> bool:
    """Whether the file's folder is there now."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder) and os.path.isdir(os.path.dirname(folder)):
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            return False
    return os.path.isdir(folder)
