"""From Linux's words to a Macintosh volume's, the inverse of what `dmgfs.names` and `dmgfs.lower` show.

Attribute names: `user.` is taken away, because a mount puts it there, and a Macintosh knows no namespaces. Where something
that looks like a namespace of Linux follows it (`user.user.x`), it stays. `security.` and `trusted.` stay as they are.
"""

import os
import stat

from dmgfs.hfsplus.unicode import compose, decompose, encode
from dmgfs.hfsplus_writer.dates import fits
from dmgfs.hfsplus_writer.inventory import (
    FINDER_INFO,
    MOST_ATTRIBUTE_UNITS,
    RESOURCE_FORK,
    Inventory,
    name_fits,
)
from dmgfs.lower import LINUX_NAMESPACES, PRIVATE_PREFIX, XATTR_VALUE_MAX
from dmgfs.names import TO_DISK, TO_LINUX
from dmgfs.volume import MOST_DEPTH

NOT_UTF8 = "names that are not UTF-8"
TOO_LONG = "names longer than 255 UTF-16 units"
BAD_ATTRIBUTE = "attributes whose names are longer than 127 UTF-16 units or not UTF-8"
BAD_DEVICE = "device numbers beyond 8 bits of major and 24 of minor"
TOO_DEEP = f"folders that stand more than {MOST_DEPTH - 1} deep, where dmgfs would not read them"
FALSE_LINK = "files whose Finder information says that they are hard links"

_FALSE_LINKS = (b"hlnkhfs+",)
_LONGEST_TARGET = 4095
BAD_TARGET = f"symbolic links without a target or with one of more than {_LONGEST_TARGET} bytes"


_SHOWN = 100


def too_deep(depth: int, place: str, inventory: Inventory) -> bool:
    """Whether a folder stands so deep (1: in the root) that nothing of ours would read it again."""
    if depth < MOST_DEPTH:
        return False
    inventory.problem(TOO_DEEP, f"{place[:_SHOWN]}…")
    return True


class Left:
    """What has no place on the volume, counted by kind. `lines()` are warnings for people, `notes` what else they should
    know."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.notes: list[str] = []

    def count(self, kind: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def lines(self) -> list[str]:
        return [f"{kind}: {count}" for kind, count in self._counts.items()]


def disk_name(name: bytes, left: Left) -> bytes | str:
    """UTF-16BE as the volume stores it, or (a str) why it cannot."""
    if name.isascii() and b":" not in name:
        encoded = name.decode().encode("utf-16-be")
        return encoded if name_fits(encoded) else TOO_LONG
    try:
        text = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return NOT_UTF8
    stored = decompose(text.translate(TO_DISK))
    encoded = encode(stored)
    if encoded.decode("utf-16-be", "surrogatepass") != stored:
        return NOT_UTF8  # two lone surrogates that would become one character
    if not name_fits(encoded):
        return TOO_LONG
    if compose(stored).translate(TO_LINUX) != text:
        left.count("names that are not composed; a mount shows them composed unless --names nfd")
    return encoded


def attribute_name(name: bytes) -> str | None:
    """None for a name that the volume cannot hold."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return None
    bare = text.removeprefix("user.")
    if bare != text and bare and not bare.startswith(LINUX_NAMESPACES):
        text = bare
    return text if 0 < len(encode(text)) <= 2 * MOST_ATTRIBUTE_UNITS else None


def device(rdev: int) -> int | None:
    """The number of a device node as a Macintosh stores it."""
    major, minor = os.major(rdev), os.minor(rdev)
    return major << 24 | minor if major < 1 << 8 and minor < 1 << 24 else None


def good_target(target: bytes) -> bool:
    return 0 < len(target) <= _LONGEST_TARGET and b"\0" not in target


def good_date(modified: int, latest: int | None, left: Left) -> int:
    """The date of modification that an object gets, in Unix seconds."""
    if latest is not None:
        modified = min(modified, latest)
    if not fits(modified):
        left.count("dates before 1904 or after February 2040, which become the nearest that HFS+ has")
    return modified


def with_link_type(finder: bytes | None) -> bytes:
    """The Finder information of a symbolic link: it has a type and a creator of its own."""
    return b"slnkrhap" + (finder or bytes(32))[8:]


class Attributes:
    """The extended attributes of one object, sorted into their places. finder: 32 bytes or None. named: the others, a
    resource fork among them."""

    __slots__ = ("finder", "named")

    def __init__(self) -> None:
        self.finder: bytes | None = None
        self.named: list[tuple[str, bytes]] = []

    def take(self, name: bytes, value: bytes, mode: int, place: str, inventory: Inventory, left: Left) -> None:
        """One attribute of Linux, of the object at `place` (for messages)."""
        if name.startswith(b"system."):
            left.count(f"attributes without a place on HFS+ ({name.decode('ascii', 'replace')})")
            return
        text = attribute_name(name)
        if text is None:
            inventory.problem(BAD_ATTRIBUTE, place)
        elif text.startswith(PRIVATE_PREFIX):
            left.count("private attributes of macOS (com.apple.system.…)")
        elif text == FINDER_INFO:
            self.finder = value[:32].ljust(32, b"\0")
            if stat.S_ISREG(mode) and self.finder[:8] in _FALSE_LINKS:
                inventory.problem(FALSE_LINK, place)
        elif text != RESOURCE_FORK:
            if len(value) > XATTR_VALUE_MAX:
                left.note(
                    "some extended attributes have more than 64 KiB: the volume has them, a mount on Linux cannot show them"
                )
            self.named.append((text, value))
        elif stat.S_ISREG(mode):
            if value:
                self.named.append((text, value))
        else:
            left.count("resource forks of what is no file")
