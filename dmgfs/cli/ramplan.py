"""How large a RAM disk is, and lists of them: the words of `dmgfs ramdisk`, taken apart. Nothing is opened but the list.

SIZE    1024 or ram://1024: sectors of 512 bytes, as hdik counts them; 512K, 2M, 1G: bytes; 10%: of the memory
list    one line each: DIR SIZE, or: mkdir MODE DIR; # begins a comment. DIR may hold spaces
"""

import os
import re
from dataclasses import dataclass

from dmgfs.cli.options import WrongUsage, memory_size, parse_size

SECTOR = 512
SMALLEST = 64 << 10
MOST_DISKS = 256

PRESETS = {
    "rc.cdrom": (
        "/Volumes 1024\n"
        "/var/tmp 1024\n"
        "/var/run 1024\n"
        "/var/db 1024\n"
        "mkdir 1777 /var/db/mds\n"
        "/Library/Preferences 1024\n"
        "/Library/ColorSync/Profiles/Displays 2048\n"
    ),
}
"""What Apple's rc.cdrom covers on an installation disc, and how large."""

_NUMBER = re.compile(r"[0-9]{1,18}\Z")


@dataclass(frozen=True, slots=True)
class RamDisk:
    """directory, as it was given. size: bytes."""

    directory: str
    size: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory to be made once the disks before it stand."""

    directory: str
    mode: int


def parse_ram_size(text: str) -> int:
    """Bytes. Raises WrongUsage."""
    number = text.removeprefix("ram://")
    if _NUMBER.match(number):
        size = int(number) * SECTOR
    elif number is not text:
        raise WrongUsage(f"{text}: write ram://SECTORS, of {SECTOR} bytes each; {number!r} is no number of sectors")
    elif text.endswith("%"):
        if not text[:-1].isdecimal() or not 1 <= int(text[:-1]) <= 100:
            raise WrongUsage(f"{text}: a share of the memory is 1% to 100%")
        size = memory_size() * int(text[:-1]) // 100
    else:
        size = parse_size(text)
    if size < SMALLEST:
        raise WrongUsage(f"{text}: {size} bytes; a RAM disk has at least {SMALLEST // SECTOR} sectors (64K)")
    if size > memory_size():
        raise WrongUsage(f"{text}: {size} bytes are more than the memory has")
    return size


def parse_plan(text: str, name: str) -> list[RamDisk | Folder]:
    """Raises WrongUsage with the list's name and the line."""
    steps: list[RamDisk | Folder] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            steps.append(_step(line.strip(), words))
        except WrongUsage as error:
            raise WrongUsage(f"{name}:{number}: {error}") from None
    if not any(isinstance(step, RamDisk) for step in steps):
        raise WrongUsage(f"{name}: there is no RAM disk in it; a line is DIR SIZE")
    if len(steps) > MOST_DISKS:
        raise WrongUsage(f"{name}: {len(steps)} lines, at most {MOST_DISKS} are taken")
    return steps


def _step(line: str, words: list[str]) -> RamDisk | Folder:
    if words[0] == "mkdir":
        if len(words) < 3 or not re.fullmatch("[0-7]{3,4}", words[1]):
            raise WrongUsage("write mkdir MODE DIR, MODE in octal")
        return Folder(_absolute(line.split(maxsplit=2)[2]), int(words[1], 8))
    if len(words) < 2:
        raise WrongUsage("write DIR SIZE")
    directory, size = line.rsplit(maxsplit=1)
    return RamDisk(_absolute(directory), parse_ram_size(size))


def _absolute(directory: str) -> str:
    if not directory.startswith("/"):
        raise WrongUsage(f"{directory}: the directories of a list are absolute")
    return directory


def beneath(steps: list[RamDisk | Folder], root: str) -> list[RamDisk | Folder]:
    """The same plan for a system whose root is the directory `root` here."""

    def moved(directory: str) -> str:
        return os.path.join(root, directory.lstrip("/"))

    return [
        RamDisk(moved(step.directory), step.size)
        if isinstance(step, RamDisk)
        else Folder(moved(step.directory), step.mode)
        for step in steps
    ]
