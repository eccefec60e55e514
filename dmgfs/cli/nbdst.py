"""dmgfs nbdst: a live read-only mount or disk gets a shadow, with the words of Darwin's NetBoot deferred shadow tool. The
same as `dmgfs shadow attach`.

Rule: without -recycle what was written earlier is there again, and only over the image that it was written over.
"""

import argparse

SUMMARY = "give a live mount or disk a shadow, with nbdst's words"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-recycle", action="store_true", help="begin with an empty shadow")
    kind.add_argument("-preallocate", metavar="SIZE", help="the same, and reserve its room now")
    add("mountpoint", metavar="MOUNTPOINT|DEVICE", help="where the image is mounted, or disk1, vn0 …")
    add("shadow", metavar="SHADOW", help="the file; made if it is not there")


def run(args: argparse.Namespace) -> int:
    from dmgfs.cli import shadow
    from dmgfs.cli.devices import opened, parse_word

    word = parse_word(args.mountpoint)
    noted = None
    with opened() as devices:
        device = devices.find(word.name) if word is not None else None
        if device is not None and word is not None:
            args.mountpoint = devices.place(word.name)
            noted = device
        args.what = "attach"
        args.force_base = False
        args.wait = None
        args.recycle = args.recycle or args.preallocate is not None
        code = shadow.run(args)
        if code == 0 and noted is not None:
            noted.shadow = args.shadow
            devices.note(noted)
    return code
