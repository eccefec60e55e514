"""dmgfs vndevice: attach, shadow and detach a disk in a slot, with the words and the errors of Darwin's vndevice.

    attach DEVICE FILE    EBUSY: the slot is taken; ENODEV: a raw device (rvn0); ENOENT: no such file
    shadow DEVICE FILE    EINVAL: nothing attached, or no regular file; EBUSY: has one; ENOENT: the file must be there
    detach DEVICE         ENXIO: nothing attached; ENODEV: a raw device; EBUSY: in use

Rule: as vn's, a shadow begins empty each time, whatever the file held; but a file that is no shadow of ours is not
overwritten. Compressed images and images beyond 8 GiB will do.
"""

import argparse
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from dmgfs.cli.report import printable

if TYPE_CHECKING:
    from dmgfs.cli.devices import Devices, Word

SUMMARY = "attach, shadow and detach disks in slots, with vndevice's words"

USAGE = 64


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("attach", "shadow", "detach"))
    parser.add_argument("device", metavar="DEVICE", help="/dev/vn0 …")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the image; for shadow: the shadow file")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.devices import MOST_SLOTS, opened, parse_word

    word = parse_word(args.device)
    if word is None or not word.name.startswith("vn") or word.part:
        return _say(f"{args.device} is no slot; write vn0 to vn{MOST_SLOTS - 1}")
    if (args.file is None) != (args.verb == "detach"):
        return _say(f"{args.verb} takes {'no' if args.verb == 'detach' else 'a'} file")
    if int(word.name[2:]) >= MOST_SLOTS:
        raise _error(errno.ENXIO, args.device)
    with opened() as devices:
        {"attach": _attach, "shadow": _shadow, "detach": _detach}[args.verb](devices, word, args)
    return 0


def _error(number: int, device: str, why: str = "") -> OSError:
    return OSError(number, f"{os.strerror(number)}{': ' if why else ''}{why}", device)


def _say(line: str) -> int:
    print(printable(f"dmgfs: vndevice: {line}"), file=sys.stderr)
    return USAGE


def _attach(devices: "Devices", word: "Word", args: argparse.Namespace) -> None:
    from dmgfs.cli.devices import Device

    if word.raw:
        raise _error(errno.ENODEV, args.device, "attach the block device")
    if devices.find(word.name) is not None:
        raise _error(errno.EBUSY, args.device, "something is attached there")
    path = os.path.abspath(args.file)
    os.stat(path)
    devices.add(Device(word.name, path), ("--late-shadow",))


def _shadow(devices: "Devices", word: "Word", args: argparse.Namespace) -> None:
    from dmgfs.cli.devices import call

    device = devices.find(word.name)
    if device is None:
        raise _error(errno.EINVAL, args.device, "nothing is attached there")
    if device.shadow:
        raise _error(errno.EBUSY, args.device, f"it has the shadow {device.shadow}")
    path = os.path.abspath(args.file)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _error(errno.EINVAL, args.device, f"{path} is no regular file")
    call("shadow", "attach", "--recycle", devices.place(word.name), path)
    device.shadow = path
    devices.note(device)


def _detach(devices: "Devices", word: "Word", args: argparse.Namespace) -> None:
    if word.raw:
        raise _error(errno.ENODEV, args.device, "detach the block device")
    device = devices.find(word.name)
    if device is None:
        raise _error(errno.ENXIO, args.device, "nothing is attached there")
    devices.remove(device)
