"""The kernel's command line, as far as it says which image to boot from and how.

    dmgfs.image=[DEVICE:]PATH    the image; PATH//INNER for an image in an image; a DEVICE alone is itself the image
    dmgfs.shadow=none|ram[:SIZE|:NN%]|[DEVICE:]PATH      where changes go; ram unless told. auto:PATH,PATH,ram as for
                                 `dmgfs mount`: paths of the initial file system
    dmgfs.toram  dmgfs.verify=none|full  dmgfs.playlist=  dmgfs.partition=  dmgfs.on-error=fail|ro|ram  dmgfs.wait=SECONDS
    dmgfs.options=WORD,...       more words for -o
    rp=file:///PATH              Darwin's imageboot; rp0= the same, with rp1= an image inside of it
    root-dmg=  container-dmg=    its newer words: the root image, and the one around it
    -rootdmg-ramdisk             its word for dmgfs.toram

DEVICE is /dev/NAME, LABEL=, UUID=, PARTLABEL= or PARTUUID=. A PATH without one lies on the disk that root= names, or,
without root=, in the initial file system.

Rules that hold here:
- words are taken apart as the kernel does it: at blanks, with double quotes around what holds some; after `--` they belong
  to init. Of two equal words the last one counts, and - is _ in names;
- dmgfs.image goes before root-dmg, that before rp0, that before rp;
- a dmgfs word that does not exist is refused by its name: a misspelt shadow must not become a boot that forgets everything.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dmgfs.bootargs.netboot import parse_root_path
from dmgfs.bootargs.rootpath import file_path
from dmgfs.errors import WrongBootArgument

DEFAULT_WAIT = 30
"""Seconds for a disk to appear."""

_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_DEVICE = re.compile(
    r"(?P<disk>(?:/dev/|LABEL=|UUID=|PARTLABEL=|PARTUUID=)[^:]+)(?P<colon>:(?P<path>/.*))?\Z", re.DOTALL
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_KNOWN = ("image", "shadow", "toram", "verify", "playlist", "partition", "on-error", "wait", "options")
_SWITCHES = frozenset({"toram"})
_CHOICES = {"verify": ("none", "full"), "on-error": ("fail", "ro", "ram")}
_SIGNED = ("arp0", "auth-root-dmg")
_PREFIX = "dmgfs."


@dataclass(frozen=True, slots=True)
class Place:
    """A file on a disk. disk: as a DEVICE above; "": the initial file system. path: absolute; "": the disk itself."""

    disk: str
    path: str


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What to boot from. inner: the images inside the image, from the outside in. shadow: none, ram… or a Place; the rest
    as the options of `dmgfs mount` of the same name, "" where nothing was said."""

    image: Place
    inner: tuple[str, ...] = ()
    shadow: str | Place = "ram"
    toram: bool = False
    verify: str = ""
    playlist: str = ""
    partition: str = ""
    on_error: str = ""
    wait: float = DEFAULT_WAIT
    options: str = ""


def split(text: str) -> Iterator[tuple[str, str | None]]:
    """The words for the kernel: (name, value), value None where there is no =. Quotes are taken away."""
    for match in _WORD.finditer(text):
        word = match[0]
        if word == "--":
            return
        if word.startswith('"'):
            word = word.strip('"')
        name, equals, value = word.partition("=")
        if value.startswith('"'):
            value = value[1:].removesuffix('"')
        yield name, value if equals else None


def parse(text: str) -> BootPlan | None:
    """What the command line says; None if it names no image. Raises WrongBootArgument."""
    ours: dict[str, str] = {}
    others: dict[str, str] = {}
    ram_disk = False
    for name, value in split(text):
        plain = name.replace("_", "-")
        if plain.startswith(_PREFIX):
            key = plain[len(_PREFIX) :]
            ours[key] = _checked(name, key, value)
        elif plain == "-rootdmg-ramdisk":
            ram_disk = True
        elif value:
            others[plain] = value
    root = others.get("root", "")
    if "image" not in ours and root.startswith("dmgfs:"):
        ours["image"] = root.removeprefix("dmgfs:")
    if root.startswith("dmgfs:") or not _DEVICE.match(root):
        root = ""
    named = _named(ours, others)
    if named is None:
        return None
    outer, *inner = named
    return BootPlan(
        _place(outer, root),
        tuple(inner),
        _shadow(ours.get("shadow", "ram"), root),
        "toram" in ours or ram_disk,
        ours.get("verify", ""),
        ours.get("playlist", ""),
        ours.get("partition", ""),
        ours.get("on-error", ""),
        _seconds(ours["wait"]) if "wait" in ours else DEFAULT_WAIT,
        ours.get("options", ""),
    )


def _checked(name: str, key: str, value: str | None) -> str:
    if key not in _KNOWN:
        near = difflib.get_close_matches(key, _KNOWN, 1)
        hint = f"is {_PREFIX}{near[0]} meant?" if near else f"there are {', '.join(_KNOWN)}"
        raise WrongBootArgument(f"{name}: there is no such word; {hint}")
    if key in _SWITCHES:
        if value not in (None, "1"):
            raise WrongBootArgument(f"{name}={value}: it takes no value")
        return ""
    if not value:
        raise WrongBootArgument(f"{name}: it takes a value")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise WrongBootArgument(f"{name}={value}: write {' or '.join(_CHOICES[key])}")
    return value


def _named(ours: dict[str, str], others: dict[str, str]) -> list[str] | None:
    """The image and those inside of it, from the outside in."""
    if "image" in ours:
        if _URL.match(ours["image"]):
            why = "there is no network yet when a machine boots; fetch it to a disk, or mount it later"
            raise WrongBootArgument(f"dmgfs.image= is a URL: {why}")
        outer, *inner = ours["image"].split("//")
        return [outer, *(file_path("/" + part) for part in inner)]
    for name in _SIGNED:
        if name in others:
            raise WrongBootArgument(
                f"{name}={others[name]}: signatures of images are not checked here; write root-dmg="
            )
    if "container-dmg" in others and "root-dmg" not in others:
        raise WrongBootArgument("container-dmg= names what is around the root image; root-dmg= is missing")
    if "root-dmg" in others:
        words = [others["container-dmg"]] if "container-dmg" in others else []
        return [file_path(word) for word in (*words, others["root-dmg"])]
    if "rp0" in others:
        return [_here(others[name]) for name in ("rp0", "rp1") if name in others]
    if "rp" in others:
        return [_here(others["rp"])]
    return None


def _here(text: str) -> str:
    """A root path of Darwin's, if it is on this machine."""
    path = parse_root_path(text)
    if path.kind != "file":
        raise WrongBootArgument(f"{text}: that is on a server; mount it first and write {_PREFIX}image=PATH")
    return path.image


def _place(text: str, root: str) -> Place:
    match = _DEVICE.match(text)
    if match is not None:
        return Place(match["disk"], match["path"] or "")
    return Place(root, file_path(text))


def _shadow(text: str, root: str) -> str | Place:
    if text.partition(":")[0] in ("none", "ram", "auto"):
        return text
    place = _place(text, root)
    if not place.path:
        raise WrongBootArgument(f"{_PREFIX}shadow={text}: a shadow is a file; write {text}:/PATH")
    return place


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise WrongBootArgument(f"{_PREFIX}wait={text}: write seconds, 0 to 86400")
    return seconds
