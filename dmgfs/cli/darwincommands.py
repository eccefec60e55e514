"""Darwin's mount and newfs_hfs for the devices of `dmgfs hdik` and `dmgfs vndevice`: what the shims call.

Rules that hold here:
- memory becomes a RAM disk over the directory, as large as the device; -o union makes it BSD's union. The volume that
  newfs_hfs makes in the device is for whoever uses that; the RAM disk is a tree of its own, with its owner and mode;
- an image is mounted by dmgfs. What is written to its files goes to SHADOW.files where the device has a shadow: the shadow
  itself holds blocks. A vn's begins empty each time;
- everything else is this system's mount.
"""

import argparse
import os
import shutil
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from dmgfs.cli.options import WrongUsage
from dmgfs.cli.shims import real_command

if TYPE_CHECKING:
    from dmgfs.cli.devices import Device, Devices, Word


# -- newfs_hfs -------------------------------------------------------------------------------------------------------


def newfs_hfs(words: Sequence[str]) -> int:
    """Darwin's newfs_hfs: makes the volume, and notes what it is told. Raises OSError, SystemExit, WrongUsage."""
    from dmgfs.cli.devices import SECTOR, call, opened, parse_word

    parser = argparse.ArgumentParser(prog="newfs_hfs", add_help=False)
    for letter in "UGMbcinv":
        parser.add_argument(f"-{letter}")
    parser.add_argument("-J", nargs="?", const="")
    parser.add_argument("-N", nargs="?", const="")
    for letter in "hPs":
        parser.add_argument(f"-{letter}", action="store_true")
    parser.add_argument("device", nargs="?")
    args = parser.parse_args(list(words))
    if args.device is None:  # -J and -N take the next word only if it is a size
        args.device, args.J, args.N = args.J or args.N, "" if args.J else args.J, "" if args.N else args.N
    word = parse_word(args.device or "")
    with opened() as devices:
        device = devices.find(word.name) if word is not None else None
        if device is None or word is None:
            raise WrongUsage(f"{args.device} is no device of ours; `dmgfs newfs` makes volumes in files")
        source = devices.source(word)
        options = [f"-{letter}{value}" for letter in "UGMbcinvJ" if (value := getattr(args, letter)) is not None]
        options += ["-s"] if args.s else []
        call("newfs", "--force", *options, *([] if args.N is None else ["-N"]), source)
        size = os.stat(source).st_size
        if args.N is None:
            kept = {"name": args.v or "untitled", "uid": args.U, "gid": args.G, "mode": args.M}
            device.volume = {key: value for key, value in kept.items() if value is not None}
            devices.note(device)
    print(f"Initialized {args.device} as a {size // SECTOR // 2} KB HFS Plus volume")
    return 0


# -- mount -----------------------------------------------------------------------------------------------------------


def mount(words: Sequence[str]) -> int:
    """Darwin's mount. Raises OSError, SystemExit, WrongUsage."""
    from dmgfs.cli.devices import opened, parse_word

    args, options = _mount_words(words)
    if "-u" in words or any(word.startswith("-u") and set(word[1:]) <= set("urw") for word in words):
        return _update(args, options, words)
    word = parse_word(args[-2]) if len(args) == 2 else None
    if word is not None:
        with opened() as devices:
            device = devices.find(word.name)
            if device is not None:
                path = os.path.realpath(args[-1])
                code = _mount_device(devices, device, word, path, options)
                if code == 0:
                    device.mounted = [*(place for place in device.mounted if place != path), path]
                    devices.note(device)
                return code
    return _become_mount(*words)


def _mount_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(device and directory, -o options)."""
    plain: list[str] = []
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-o":
            options += next(rest, "").split(",")
        elif word == "-t":
            next(rest, None)
        elif not word.startswith("-"):
            plain.append(word)
    return plain, options


def _update(args: Sequence[str], options: Sequence[str], words: Sequence[str]) -> int:
    """mount -u[w|r]: what is mounted there becomes read-only or writable. Without a directory it is the root, which Darwin
    takes from fstab."""
    place = args[-1] if args else "/"
    read_only = "ro" in options or any(word in ("-ur", "-r") for word in words)
    if bool(os.statvfs(place).f_flag & os.ST_RDONLY) == read_only:
        return 0
    return _become_mount("-o", f"remount,{'ro' if read_only else 'rw'}", place)


def _become_mount(*words: str) -> NoReturn:
    os.execv(real_command("mount"), ["mount", *words])


def _mount_device(devices: "Devices", device: "Device", word: "Word", path: str, options: Sequence[str]) -> int:
    from dmgfs.cli.devices import SECTOR, call

    passed = [option for option in options if option not in ("union", "nobrowse", "") and "=" not in option]
    tail = [word for option in passed for word in ("-o", option)]
    if not device.sectors:
        source = devices.source(word)
        tail += ["--shadow", f"{device.shadow}.files"] if device.shadow else []
        tail += ["--recycle"] if device.shadow and device.name.startswith("vn") else []
        call("mount", source, path, *tail)
        return 0
    union = ["--union=bsd"] if "union" in options else []
    sockets = ["--sockets", "keep"] if os.geteuid() == 0 else []
    call("ramdisk", path, str(os.stat(devices.source(word)).st_size // SECTOR), *union, *sockets, *tail)
    volume = device.volume
    if "uid" in volume:
        shutil.chown(path, user=_number(volume["uid"]))
    if "gid" in volume:
        shutil.chown(path, group=_number(volume["gid"]))
    if "mode" in volume:
        os.chmod(path, stat.S_IMODE(int(volume["mode"], 8)))
    return 0


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
