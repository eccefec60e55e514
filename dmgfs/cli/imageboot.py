"""dmgfs imageboot: what the kernel's command line says, done: disks found and mounted, the image mounted as a live root.

Meant for an initial file system, from where the caller goes on with switch_root. The disks on which image and shadow lie
are mounted below /run/dmgfs and stay there.
"""

import argparse
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from dmgfs.cli.report import print_json, printable

if TYPE_CHECKING:
    from dmgfs.bootargs.cmdline import BootPlan, Place

SUMMARY = "mount the image that the kernel's command line names, as a root"

USAGE = 64
CMDLINE = "/proc/cmdline"
FOLDER = "/run/dmgfs"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("mountpoint", metavar="MOUNTPOINT", nargs="?", help="an existing directory")
    add("--cmdline", metavar="TEXT", help=f"instead of {CMDLINE}")
    add(
        "--root-path", metavar="PATH", nargs="+", help="only say what Darwin's root path means (file:, nfs:, http: …)"
    )
    add("--show", action="store_true", help="only say what would be done, as JSON; exit code 64 if no image is named")


def run(args: argparse.Namespace) -> int:
    from dmgfs.bootargs.cmdline import parse

    if args.root_path:
        from dmgfs.bootargs.netboot import parse_root_paths

        print_json([asdict(path) for path in parse_root_paths(args.root_path)])
        return 0
    text = args.cmdline
    if text is None:
        with open(CMDLINE, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    plan = parse(text)
    if plan is None:
        return _say("imageboot: the command line names no image (dmgfs.image=, rp=, root-dmg=)")
    if args.show:
        print_json(asdict(plan))
        return 0
    if args.mountpoint is None:
        return _say("imageboot: MOUNTPOINT is missing")
    words = mount_words(plan, args.mountpoint, *_places(plan))
    from dmgfs.cli import mount

    parser = argparse.ArgumentParser(prog="dmgfs mount")
    mount.configure(parser)
    chosen = parser.parse_args(words)
    args.image = chosen.image  # what goes wrong from here on is about it
    return mount.run(chosen)


def mount_words(plan: "BootPlan", mountpoint: str, image: str, shadow: str) -> list[str]:
    """The arguments of `dmgfs mount`."""
    words = [image, mountpoint, "--liveroot", "--shadow", shadow, "--wait", f"{plan.wait:g}"]
    for name, value in (
        ("partition", plan.partition),
        ("playlist", plan.playlist),
        ("verify", plan.verify),
        ("on-error", plan.on_error),
    ):
        if value:
            words += [f"--{name}", value]
    if plan.toram:
        words.append("--toram")
    if plan.options:
        words += ["-o", plan.options]
    return words


def _places(plan: "BootPlan") -> tuple[str, str]:
    """The paths of image and shadow (or none, ram), with their disks mounted."""
    from dmgfs.cli.policy import Policy
    from dmgfs.fuse.disks import await_path, device_path, mount_disk

    policy = Policy(plan.on_error or "fail", plan.wait, verify=False, console=True)

    shadow = plan.shadow if not isinstance(plan.shadow, str) else None
    mounted: dict[str, str] = {}

    def path(place: "Place", name: str, *, writable: bool) -> str:
        if not place.disk:
            return place.path
        device = device_path(place.disk)
        await_path(device, plan.wait)
        if not place.path:
            return device
        if device not in mounted:
            mounted[device] = f"{FOLDER}/{name}"
            mount_disk(device, mounted[device], writable=writable)
        return mounted[device] + place.path

    shared = shadow is not None and shadow.disk == plan.image.disk
    try:
        image = path(plan.image, "image", writable=shared)
    except OSError:
        if not shared or policy.on_error == "fail":
            raise
        mounted.clear()
        image = path(plan.image, "image", writable=False)  # what that means for the shadow is found out later
    await_path(image, plan.wait)
    image = "//".join((image, *(part.lstrip("/") for part in plan.inner)))
    if shadow is None:
        return image, str(plan.shadow)
    try:
        changes = path(shadow, "shadow", writable=True)
        os.makedirs(os.path.dirname(changes), mode=0o700, exist_ok=True)
    except OSError as error:
        return image, policy.instead_of(f"{shadow.disk}:{shadow.path}", error)
    return image, changes


def _say(line: str) -> int:
    print(printable(f"dmgfs: {line}"), file=sys.stderr)
    return USAGE
