"""What can be asked of a mount: sizes, the shadow, and `-o` as in fstab.

Rules that hold here:
- three kinds of -o words: ours (they mean the long option of the same name), those of mount(8) and fstab (passed to the
  kernel or ignored as mount(8) does), and libfuse's. Anything else is refused by its name;
- a comma in a value is written `\\,` (libfuse) or within double quotes (mount(8)); a backslash takes the meaning from the
  character after it, or with three octal digits stands for a byte, as in fstab: `\\040` is a space;
- a long option beats the same word in -o;
- standard library only, and nothing is opened: wrong usage ends in exit code 64 before anything happens.
"""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_WORD = re.compile(r'(?:\\.|"[^"]*"|[^,\\"]|["\\])+', re.DOTALL)
_ESCAPED = re.compile(rb'\\([0-7]{3})|\\(.)|"([^"]*)"', re.DOTALL)

_QUOTED = re.compile(r'"([^"]*)"')

DEFAULT_SHARE = 50
"""Per cent of the memory that a shadow in RAM may take, as tmpfs."""

OURS = frozenset(
    {"shadow", "shadow-ro", "partition", "cache", "owners", "names", "xattrs", "uid", "gid", "umask", "log"}
    | {"requests", "compress"}
    | {"passphrase-file", "slow-key", "no-replay", "foreground", "acl"}
    | {"late-shadow", "recycle", "force-base", "preallocate", "engine", "toram", "playlist", "liveroot"}
    | {"on-error", "wait", "verify", "network-timeout", "network-cache"}
)
_SWITCHES = frozenset(
    {"slow-key", "no-replay", "foreground", "acl", "late-shadow", "recycle", "force-base", "toram", "liveroot"}
)

LAYER = "shadow-ro"
"""The one that may be given several times."""

KERNEL = frozenset(
    {"ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "sync", "async", "dirsync", "noatime"}
    | {"allow_other", "allow_root", "auto_unmount", "default_permissions"}
)
KERNEL_VALUES = frozenset({"fsname", "context", "fscontext", "defcontext", "rootcontext"})

FSTAB = frozenset(
    {"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "atime"}
    | {
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "lazytime",
        "nolazytime",
        "loop",
    }
    | {"silent", "loud", "mand", "nomand", "iversion", "noiversion", "nobrowse"}
)
"""Words for mount(8), for the boot scripts, or without meaning here."""

OF_A_MOUNT = frozenset({"user_id", "group_id", "rootmode", "max_read", "blksize", "subtype", "fd"})
"""What mount(8) repeats from the kernel's table when a mount is to be changed."""


class WrongUsage(ValueError):
    """What was asked makes no sense; the message says what would."""


def parse_size(text: str) -> int:
    """ "64M" → bytes. Units k, M, G, T are powers of 1024. Raises WrongUsage."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise WrongUsage(f"{text!r} is no size; write for example 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def memory_size() -> int:
    """Bytes of memory that this process may hope for: the machine's, or its control group's limit if that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit, encoding="ascii") as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue  # no such limit, or "max"
    return total


@dataclass(frozen=True, slots=True)
class Shadow:
    """Where changes go. kind: "none" (read-only), "ram", "file", or "auto": the first of `others` that can be had (see
    `candidates`). budget: bytes, of RAM. path: of the file, absolute. compress: how cold pages in RAM are, "none"
    or "zstd"."""

    kind: str
    budget: int = 0
    path: str = ""
    others: tuple["Shadow", ...] = ()
    compress: str = "none"


def parse_shadow(text: str, compress: str | None = None) -> Shadow:
    """A place as for `_parse_place`; after that of RAM perhaps ,compress=zstd, which `compress` says otherwise. Raises
    WrongUsage."""
    place, _, word = text.partition(",")
    if place.partition(":")[0] == "ram" and word.startswith("compress="):
        text, compress = place, word.removeprefix("compress=")
    compress = choose("compress", compress, ("zstd", "none"), "none")
    shadow = _parse_place(text)
    if compress != "none" and shadow.kind != "ram":
        raise WrongUsage(f"compress={compress} is about a shadow in RAM: write --shadow ram,compress={compress}")
    return replace(shadow, compress=compress)


def _parse_place(text: str) -> Shadow:
    """none | ram | ram:SIZE | ram:NN% | FILE. Raises WrongUsage. A file called none or ram is written ./none, ./ram, and so
    is a new one whose name is a bare word: it may be a slip of the pen for a kind."""
    kind, colon, amount = text.partition(":")
    if kind == "auto" and colon:
        raise WrongUsage(f"--shadow {text}: a choice cannot be made here; name one (./{text} if it is a file)")
    if kind in ("none", "") and not colon:
        return Shadow("none")
    if kind not in ("ram", "none") or "/" in text:
        if not ("/" in text or "." in text or os.path.exists(text)):
            raise WrongUsage(f"--shadow {text}: write none, ram, ram:SIZE, ram:NN% or a file; ./{text} if it is one")
        return Shadow("file", path=os.path.abspath(text))
    if kind == "none" or (colon and not amount):
        raise WrongUsage(f"--shadow {text}: write none, ram, ram:SIZE, ram:NN% or a file")
    if not colon:
        return Shadow("ram", memory_size() * DEFAULT_SHARE // 100)
    return Shadow("ram", shadow_budget(text, amount))


def shadow_budget(text: str, amount: str) -> int:
    """SIZE or NN% of the memory, in bytes. Raises WrongUsage about `text`."""
    if amount.endswith("%"):
        share = amount[:-1]
        if not share.isdecimal() or not 1 <= int(share) <= 100:
            raise WrongUsage(f"--shadow {text}: the share of the memory is 1% to 100%")
        return memory_size() * int(share) // 100
    budget = parse_size(amount)
    if budget < 1 << 16:
        raise WrongUsage(f"--shadow {text}: at least 64K are needed")
    return budget


@dataclass(frozen=True, slots=True)
class Words:
    """-o taken apart. ours: value by option ("" for switches). kernel: for libfuse, in its quoting. remount: change what
    is mounted. layers: every shadow-ro, in order."""

    ours: Mapping[str, str]
    kernel: tuple[str, ...]
    remount: bool = False
    layers: tuple[str, ...] = ()


def parse_words(lists: list[str], *, sloppy: bool = False) -> Words:
    """Every -o of the command line, in order; of contradicting words the last one counts. Raises WrongUsage, for an
    unknown word unless sloppy."""
    ours: dict[str, str] = {}
    layers: list[str] = []
    kernel: dict[str, None] = {}
    words = [word for text in lists for word in _WORD.findall(text)]
    remount = "remount" in words
    for word in words:
        key, equals, value = word.partition("=")
        name = key.replace("_", "-")
        if name in OURS:
            if (name in _SWITCHES) == bool(equals):
                raise WrongUsage(f"-o {word}: {key} takes {'no' if equals else 'a'} value")
            if name == LAYER:
                layers.append(unquote(value))
            else:
                ours[name] = unquote(value)
        elif (key in KERNEL and not equals) or (key in KERNEL_VALUES and equals):
            opposite = key[2:] if key.startswith("no") else f"no{key}"
            for other in (word, opposite, {"ro": "rw", "rw": "ro", "sync": "async", "async": "sync"}.get(key, "")):
                kernel.pop(other, None)
            kernel[_QUOTED.sub(lambda match: match[1].replace(",", "\\,"), word)] = None
        elif not (
            sloppy
            or word == "remount"
            or (remount and key in OF_A_MOUNT)
            or key in FSTAB
            or key.startswith(("x-", "X-", "comment"))
        ):
            raise WrongUsage(f"-o {word}: there is no such option{_suggest(key)}")
    return Words(ours, tuple(kernel), remount, tuple(layers))


def unquote(value: str) -> str:
    """What a quoted value means (see above)."""

    def plain(match: re.Match[bytes]) -> bytes:
        octal, escaped, quoted = match.groups()
        return bytes([int(octal, 8) & 0xFF]) if octal else escaped or quoted or b""

    return os.fsdecode(_ESCAPED.sub(plain, os.fsencode(value)))


def _suggest(key: str) -> str:
    near = difflib.get_close_matches(key, sorted(OURS | KERNEL | KERNEL_VALUES | FSTAB), 1)
    return f"; is {near[0]} meant?" if near else ""


def merge(args: argparse.Namespace, words: Mapping[str, str]) -> None:
    """Lets -o fill what the long options left unset. The values go through the same conversions."""
    for name, value in words.items():
        attribute = name.replace("-", "_")
        if getattr(args, attribute) in (None, False):
            setattr(args, attribute, True if name in _SWITCHES else value)


def convert(name: str, text: str | None, conversion: Callable[[str], int], default: int) -> int:
    """A number given as text. Raises WrongUsage."""
    if text is None:
        return default
    try:
        return conversion(text)
    except ValueError as error:
        if isinstance(error, WrongUsage):
            raise
        raise WrongUsage(f"--{name} {text}: not a number") from None


def choose(name: str, text: str | None, choices: tuple[str, ...], default: str) -> str:
    """One of a few words. Raises WrongUsage."""
    if text is None:
        return default
    if text not in choices:
        raise WrongUsage(f"--{name} {text}: write {' or '.join(choices)}")
    return text


def octal(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError(text)
    return value


def parse_owners(text: str | None, default: str) -> tuple[str, tuple[int, int] | None]:
    """on | off | UID:GID (image and mounter are other words for the first two) as one of "image" and "mounter", and who
    owns all files if it says so. Raises WrongUsage."""
    words = {"on": "image", "image": "image", "off": "mounter", "mounter": "mounter"}
    if text is None or text in words:
        return words.get(text or "", default), None
    uid, colon, gid = text.partition(":")
    try:
        if colon:
            return "mounter", (identity(uid), identity(gid))
    except ValueError:
        pass
    raise WrongUsage(f"--owners {text}: write on, off or UID:GID (two numbers)")


def identity(text: str) -> int:
    """A user or group number."""
    value = int(text)
    if not 0 <= value < 1 << 32:
        raise ValueError(text)
    return value
