"""What this machine offers to a mount, and to one that is a root: each a question with an answer, found by trying where
that harms nobody. Standard library only; nothing is mounted, only this process is changed."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dmgfs.fuse import hardening
from dmgfs.fuse.hardening import CAP_SYS_ADMIN, CAP_SYS_RESOURCE, capable

DEVICE = "/dev/fuse"
CONFIGURATION = "/etc/fuse.conf"


class Condition(NamedTuple):
    """name: what it is about. holds: whether. detail: what was found. advice: what to do where it does not hold. needed:
    no mount without it."""

    name: str
    holds: bool
    detail: str
    advice: str = ""
    needed: bool = False


def conditions() -> Iterator[Condition]:
    yield _device()
    yield _mounting()
    yield _modules()
    yield _allow_other()
    yield _decoders()
    yield from _kernel()
    yield from _root()


def _device() -> Condition:
    advice = "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            advice = f"chmod 666 {DEVICE}, or be root; in a container: --device /dev/fuse"
        return Condition("FUSE device", False, f"{DEVICE}: {error.strerror}", advice, True)
    return Condition("FUSE device", True, f"{DEVICE} can be opened", needed=True)


def _mounting() -> Condition:
    name = "mounting"
    if os.geteuid() == 0 and capable(CAP_SYS_ADMIN):
        return Condition(name, True, "root may mount", needed=True)
    helper = shutil.which("fusermount3")
    if helper is None:
        return Condition(name, False, "no fusermount3", "install fuse3, or be root", True)
    status = os.stat(helper)
    if status.st_uid != 0 or not status.st_mode & stat.S_ISUID:
        return Condition(name, False, f"{helper} is not setuid root", f"chmod u+s {helper} as root", True)
    return Condition(name, True, f"by {helper}", needed=True)


def _modules() -> Condition:
    missing = [name for name in ("pyfuse3", "trio", "construct", "lru") if find_spec(name) is None]
    if missing:
        return Condition("Python modules", False, f"missing: {', '.join(missing)}", "scripts/install, or pip", True)
    return Condition("Python modules", True, "pyfuse3, trio, construct and lru are there", needed=True)


def _allow_other() -> Condition:
    name = "-o allow_other"
    if os.geteuid() == 0:
        return Condition(name, True, "root may always")
    try:
        words = Path(CONFIGURATION).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        words = []
    if "user_allow_other" in [word.strip() for word in words]:
        return Condition(name, True, f"user_allow_other is in {CONFIGURATION}")
    return Condition(name, False, f"no user_allow_other in {CONFIGURATION}", "add the line as root")


def _decoders() -> Condition:
    missing = [name for name in ("deflate", "lzfse") if find_spec(name) is None]
    if missing:
        advice = f"pip install {' '.join(missing)}"
        return Condition("fast decoders", False, f"missing: {', '.join(missing)} (slower ones are used)", advice)
    return Condition("fast decoders", True, "libdeflate and liblzfse")


def _kernel() -> Iterator[Condition]:
    for name, purpose in (("overlay", "--engine overlayfs"), ("loop", "dmgfs attach with mount -o loop")):
        found = _feature(name)
        if found:
            yield Condition(f"kernel: {name}", True, found)
        else:
            yield Condition(f"kernel: {name}", False, f"not there: no {purpose}", f"modprobe {name}")


def _feature(name: str) -> str:
    """How the kernel has this file system or driver; "" if it does not seem to."""
    try:
        if any(line.split()[-1:] == [name] for line in Path("/proc/filesystems").read_text().splitlines()):
            return "there"
    except OSError:
        pass
    if os.path.exists(f"/sys/module/{name}") or (name == "loop" and os.path.exists("/dev/loop-control")):
        return "there"
    folder = Path("/lib/modules") / os.uname().release
    for table in ("modules.builtin", "modules.dep"):
        try:
            if f"/{name}.ko" in (folder / table).read_text(encoding="utf-8", errors="replace"):
                return "a module that can be loaded"
        except OSError:
            continue
    return ""


def _root() -> Iterator[Condition]:
    """What a live root has more."""
    powerful = capable(CAP_SYS_RESOURCE)
    resources = "run as root with CAP_SYS_RESOURCE (a container: --cap-add SYS_RESOURCE)"
    yield Condition(
        "live root: CAP_SYS_RESOURCE", powerful, "there" if powerful else "not there", "" if powerful else resources
    )
    for name, held, advice in (
        ("memory locked", hardening.may_lock_memory(), "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"),
        ("spared when memory runs out", hardening.spare_from_oom(), resources),
        ("writing without waiting for itself", hardening.flush_io(), resources),
        ("continuing when stopped", hardening.keep_continuing(), "another C library"),
    ):
        yield Condition(f"live root: {name}", held.holds, held.detail, "" if held.holds else advice)
    initrd = hardening.in_initrd()
    yield Condition(
        "live root: the mark @",
        initrd,
        "an initrd" if initrd else "not an initrd, where alone it is right",
        "" if initrd else "SurviveFinalKillSignal=yes in the [Unit] of a service, or start it in the initrd",
    )
