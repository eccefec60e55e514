"""`--engine overlayfs`: the kernel's own overlay over a read-only dmgfs, instead of ours.

    MOUNTPOINT      overlay
      upper, work   in a tmpfs of the shadow's size
      lower         dmgfs, read-only, in a folder of that same tmpfs

Rules that hold here:
- tmpfs and dmgfs are taken out of sight as soon as the overlay stands: it keeps both alive, and alone does. So one umount
  of MOUNTPOINT, whoever does it, ends the daemon and frees the memory; a daemon that dies leaves that one mount behind;
- the scaffold is a private mount: other namespaces and containers never see it;
- everything here runs before the mount is announced, or reads mountinfo: nothing looks into the mount;
- standard library only: `dmgfs unmount` must not pay for the engine.
What the overlay needs of the volume below is in `exactlower`.
"""

import errno
import logging
import os
import stat
import tempfile
from collections.abc import Collection
from types import TracebackType

from dmgfs.errors import Unsupported
from dmgfs.fuse import mountpoint
from dmgfs.fuse.mountpoint import OVERLAY

log = logging.getLogger(__name__)

LOST = (
    "engine overlayfs: the first byte written to a file copies all of it into memory; what was changed cannot be looked "
    "at, saved or resized with dmgfs (no shadow verbs); a file behind several hard links of the image may come apart when "
    "it is changed. Without --engine there is none of that"
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_DIRSYNC, MS_NOATIME = 1, 2, 4, 8, 16, 128, 1024
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18

_FLAGS = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "noatime": MS_NOATIME}
_FLAGS |= {"sync": MS_SYNCHRONOUS, "dirsync": MS_DIRSYNC}
_WITHOUT = frozenset({"rw", "dev", "suid", "exec", "async", "allow_other", "default_permissions"})
"""Words that the overlay needs not be told."""

_LABELS = ("context=", "fscontext=", "defcontext=", "rootcontext=")

_FEATURES = ("index=on,", "")
"""Hard links stay hard links where the kernel can find the lower's files by number again; older kernels refuse."""


def flags_of(words: Collection[str]) -> tuple[int, str]:
    """(mount flags, options) of the overlay for the -o words of the mount. As for dmgfs itself, nosuid and nodev are set
    unless told otherwise. Raises Unsupported for a word that has no meaning here."""
    flags = (0 if "suid" in words else MS_NOSUID) | (0 if "dev" in words else MS_NODEV)
    labels = ""
    for word in words:
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif word.startswith(_LABELS):
            labels += f",{word}"
        elif word not in _WITHOUT and not word.startswith(("fsname=", "subtype=")):
            raise Unsupported(f"-o {word} with --engine overlayfs", "leave one of the two out")
    return flags, labels


class Scaffold:
    """The tmpfs of `budget` bytes, and the way from it to the overlay on `place`. A context manager: what still stands
    is taken away. lower: where to mount dmgfs."""

    def __init__(self, place: str, image: str, budget: int, words: Collection[str]) -> None:
        if os.geteuid() != 0:
            raise PermissionError(
                errno.EPERM, "--engine overlayfs needs root: it mounts a tmpfs and an overlay", place
            )
        self._place = place
        self._image = image
        self._flags, self._labels = flags_of(words)
        parent = "/run" if os.access("/run", os.W_OK) else None
        self._path = tempfile.mkdtemp(prefix=mountpoint.scaffold_name(os.getpid()), dir=parent)
        self.lower = f"{self._path}/lower"
        try:
            mountpoint.mount("tmpfs", self._path, "tmpfs", MS_NOSUID | MS_NODEV, f"size={budget},mode=0700")
            mountpoint.mount("none", self._path, None, MS_PRIVATE, "")
            for name in ("lower", "upper", "work"):
                os.mkdir(f"{self._path}/{name}")
        except BaseException:
            self._clear()
            raise

    def __enter__(self) -> "Scaffold":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clear()

    def cover(self) -> str:
        """Once dmgfs answers in `lower`: puts the overlay on the place, takes the scaffold out of sight, and returns the
        place. Waits for dmgfs, so not on the thread that serves it. Raises OSError."""
        self._imitate_root()
        layers = f"lowerdir={self.lower},upperdir={self._path}/upper,workdir={self._path}/work"
        for number, feature in enumerate(_FEATURES, 1):
            try:
                options = f"{layers},{feature}metacopy=on,redirect_dir=on{self._labels}"
                mountpoint.mount(self._image, self._place, OVERLAY, self._flags, options)
                break
            except OSError:
                if number == len(_FEATURES):
                    raise
        log.info("the kernel's overlay is on %s. %s", ascii(self._place)[1:-1], LOST)
        self._clear()
        return self._place

    def _imitate_root(self) -> None:
        """The root folder of an overlay looks like the upper one's."""
        upper = f"{self._path}/upper"
        root = os.stat(self.lower)
        os.chown(upper, root.st_uid, root.st_gid)
        os.chmod(upper, stat.S_IMODE(root.st_mode))
        for name in os.listxattr(self.lower):
            try:
                os.setxattr(upper, name, os.getxattr(self.lower, name))
            except OSError as error:
                log.warning("the root folder's attribute %s is not shown: %s", ascii(name), error.strerror)
        os.utime(upper, ns=(root.st_atime_ns, root.st_mtime_ns))

    def _clear(self) -> None:
        if not self._path:
            return
        if mountpoint.mounted_at(self._path) is not None:
            mountpoint.unmount(self._path, lazy=True)
        os.rmdir(self._path)
        self._path = ""
