"""Attached disks by the names that Darwin gives them: disk1, disk2 … (hdik) and vn0, vn1 … (vndevice), in a folder that
outlives the commands.

    RUNTIME/disk1        the device: a link to the file that is the disk
    RUNTIME/disk1s2      a link to a partition
    RUNTIME/disk1.d      where it is attached (`dmgfs attach`), or a tmpfs with the disk of a RAM disk
    RUNTIME/disk1.json   what is known of it

Rules that hold here:
- RUNTIME is $DMGFS_RUNTIME, else /run/dmgfs for root, else dmgfs in $XDG_RUNTIME_DIR;
- one command at a time works on it (a lock); a command that fails leaves nothing behind;
- errors are OSError with the errno that Darwin's driver gives.
"""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from dmgfs.fuse import mountpoint

MOST_DISKS = 256
MOST_SLOTS = 16
SECTOR = 512

_WORD = re.compile(r"(r?)((?:disk|vn)\d{1,4})(?:s(\d{1,4}))?\Z")


@dataclass
class Device:
    """name: disk1 or vn0. image: what is attached. sectors: of a disk in memory, else 0. shadow: the file for what is
    written, "" without one. drivekeys: as given to hdik, kept and shown. volume: what newfs_hfs was told. mounted: where
    the `mount` of the shims put it."""

    name: str
    image: str
    sectors: int = 0
    shadow: str = ""
    drivekeys: dict[str, str] = field(default_factory=dict)
    volume: dict[str, str] = field(default_factory=dict)
    mounted: list[str] = field(default_factory=list)


class Word(NamedTuple):
    """A device as somebody wrote it. raw: with an r before the name. part: after the s, 0 for the whole disk."""

    name: str
    raw: bool
    part: int


def runtime() -> str:
    if "DMGFS_RUNTIME" in os.environ:
        return os.path.abspath(os.environ["DMGFS_RUNTIME"])
    if os.geteuid() == 0:
        return "/run/dmgfs"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR", f"/tmp/dmgfs-{os.geteuid()}"), "dmgfs")


def parse_word(text: str) -> Word | None:
    """disk1, /dev/rdisk1s2, RUNTIME/vn0 …; None for what is no device of ours by its look."""
    folder, name = os.path.split(text)
    if folder and os.path.normpath(folder) not in ("/dev", runtime()):
        return None
    match = _WORD.match(name)
    return None if match is None else Word(match[2], bool(match[1]), int(match[3] or 0))


class Devices:
    """The folder, locked: use `opened`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def place(self, name: str) -> str:
        """Where its files are."""
        return self._file(f"{name}.d")

    def source(self, word: Word) -> str:
        """The file that is the device. OSError(ENXIO) for a partition that there is not."""
        path = os.path.join(self.place(word.name), f"disk0s{word.part}" if word.part else "disk")
        if word.part and not os.path.exists(path):
            raise OSError(errno.ENXIO, f"it has no partition {word.part}", word.name)
        return path

    def find(self, name: str) -> Device | None:
        try:
            with open(self._file(f"{name}.json"), encoding="utf-8") as file:
                return Device(**json.load(file))
        except FileNotFoundError:
            return None

    def all(self) -> list[Device]:
        names = [name[: -len(".json")] for name in os.listdir(self.path) if name.endswith(".json")]
        found = [self.find(name) for name in sorted(names)]
        return [device for device in found if device is not None]

    def forget_gone(self) -> None:
        """Devices of before the machine was started anew, or whose mount somebody took away."""
        for device in self.all():
            if mountpoint.mounted_at(self.place(device.name)) is None:
                self._clear(device.name, lazy=False)

    def note(self, device: Device) -> None:
        temporary = self._file(f".{device.name}.new")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(device), file)
        os.replace(temporary, self._file(f"{device.name}.json"))

    def free_name(self) -> str:
        """The next disk. OSError(ENXIO) if there are too many."""
        for number in range(1, MOST_DISKS):
            if not os.path.exists(self._file(f"disk{number}.json")):
                return f"disk{number}"
        raise OSError(errno.ENXIO, f"{MOST_DISKS - 1} disks are attached already")

    def add(self, device: Device, options: Sequence[str]) -> str:
        """Attaches it, with more options of `dmgfs attach`; the word for it. Raises OSError; SystemExit with the code of
        `attach`, which has said why."""
        place = self.place(device.name)
        os.makedirs(place, mode=0o700, exist_ok=True)
        try:
            if device.sectors and os.geteuid() == 0:
                size = device.sectors * SECTOR
                mountpoint.mount("dmgfs-hdik", place, "tmpfs", 0, f"size={size + 4096},nr_inodes=4,mode=0700")
                os.close(
                    os.open(os.path.join(place, "disk"), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                )
                os.truncate(os.path.join(place, "disk"), size)
            else:
                call("attach", device.image, place, *options)
            for name in os.listdir(place):
                self._link(device.name + name.removeprefix("disk").removeprefix("0"), os.path.join(place, name))
            self.note(device)
        except BaseException:
            self._clear(device.name, lazy=True)
            raise
        return self._file(device.name)

    def _link(self, name: str, target: str) -> None:
        path = self._file(name)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)

    def remove(self, device: Device) -> None:
        """OSError(EBUSY) while it is mounted or open."""
        for path in device.mounted:
            there = mountpoint.mounted_at(path)
            if there is not None and mountpoint.is_ours(there):
                raise OSError(errno.EBUSY, f"it is mounted on {path}", device.name)
        self._clear(device.name, lazy=False)

    def _clear(self, name: str, *, lazy: bool) -> None:
        place = self.place(name)
        if mountpoint.mounted_at(place) is not None:
            try:
                mountpoint.unmount(place, lazy=lazy)
            except OSError as error:
                users = ", ".join(f"{holder.name} ({holder.what})" for holder in mountpoint.holders(place))
                text = f"it is in use{': ' if users else ''}{users}" if error.errno == errno.EBUSY else error.strerror
                raise OSError(error.errno, text, name) from None
        if os.path.isdir(place):
            os.rmdir(place)
        for file in os.listdir(self.path):
            path = self._file(file)
            ours = file == f"{name}.json" or (os.path.islink(path) and os.readlink(path).startswith(place + "/"))
            if ours:
                os.unlink(path)


@contextmanager
def opened() -> "Iterator[Devices]":
    """The folder, made if it is not there, for this command alone. Raises OSError(EPERM) if it is somebody else's."""
    path = runtime()
    os.makedirs(path, mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
    if os.lstat(path).st_uid != os.geteuid():
        raise OSError(errno.EPERM, "the folder of devices belongs to somebody else; set DMGFS_RUNTIME", path)
    lock = os.open(os.path.join(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        devices = Devices(path)
        devices.forget_gone()
        yield devices
    finally:
        os.close(lock)


def call(*words: str) -> None:
    """Another verb of ours. Raises SystemExit with its code; it has said why."""
    done = subprocess.run([sys.executable, "-m", "dmgfs", *words], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
