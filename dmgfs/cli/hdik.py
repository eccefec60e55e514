"""dmgfs hdik: attach an image or a disk in memory, with the words of Darwin's hdik.

Rules that hold here:
- on success exactly one word goes to standard output, the device; on failure nothing does, because scripts write
  dev=`hdik …` and look at the exit code;
- nothing is mounted by itself, with -nomount or without.
"""

import argparse
import os
import sys

from dmgfs.cli.options import WrongUsage
from dmgfs.cli.report import print_json, printable

SUMMARY = "attach an image or memory as a disk, with hdik's words"

USAGE = 64
RAM = "ram://"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", metavar="ram://SECTORS|IMAGE", nargs="?", help="memory, in sectors of 512 bytes, or a disk image")
    add("-nomount", action="store_true", help="nothing is mounted; so it is without it")
    add("-drivekey", metavar="K=V", action="append", default=[], help="kept with the disk and shown by -list")
    add("-shadow", metavar="FILE", nargs="?", const="", help="what is written goes there; default IMAGE.shadow")
    add("-e", dest="eject", metavar="DEVICE", help="detach it")
    add("-list", action="store_true", help="the disks that are attached, as JSON")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli.devices import opened

    try:
        if args.list:
            with opened() as devices:
                print_json([vars(device) for device in devices.all()])
            return 0
        if args.eject is not None:
            _eject(args.eject)
            return 0
        word = _attach(args)
    except WrongUsage as error:
        print(printable(f"dmgfs: hdik: {error}"), file=sys.stderr)
        return USAGE
    print(word)
    return 0


def _eject(text: str) -> None:
    from dmgfs.cli.devices import opened, parse_word

    word = parse_word(text)
    if word is None:
        raise WrongUsage(f"{text} is no device; write disk1 or what hdik printed")
    with opened() as devices:
        device = devices.find(word.name)
        if device is None:
            raise FileNotFoundError(2, "no such disk is attached", text)
        devices.remove(device)


def _attach(args: argparse.Namespace) -> str:
    from dmgfs.cli.devices import Device, opened

    image, shadow = args.image, args.shadow
    if image is None and shadow:
        image, shadow = shadow, ""  # hdik -shadow IMAGE
    if image is None:
        raise WrongUsage("write ram://SECTORS or an image")
    keys = dict(key.split("=", 1) for key in args.drivekey if "=" in key)
    if len(keys) < len({key.partition("=")[0] for key in args.drivekey}):
        raise WrongUsage("-drivekey takes KEY=VALUE")
    if image.startswith(RAM):
        number = image.removeprefix(RAM)
        if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 1 << 32:
            raise WrongUsage(f"{image}: write ram://SECTORS, of 512 bytes each; 1024 are 512 KiB")
        if shadow is not None:
            raise WrongUsage(f"{image}: memory needs no shadow")
        with opened() as devices:
            return devices.add(Device(devices.free_name(), image, sectors=int(number), drivekeys=keys), ())
    image = os.path.abspath(image)
    path = None if shadow is None else os.path.abspath(shadow or f"{image}.shadow")
    with opened() as devices:
        device = Device(devices.free_name(), image, shadow=path or "", drivekeys=keys)
        return devices.add(device, () if path is None else ("--shadow", path))
