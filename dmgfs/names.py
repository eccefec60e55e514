"""Names between a Macintosh volume (UTF-16, decomposed, any character but ':') and Linux (bytes, any but '/' and NUL).

Rules that hold here:
- '/' on disk is ':' on Linux and the other way round; NUL is U+2400; lone surrogates are three bytes each, as UTF-8 would
  spell them if it could;
- names are shown composed unless asked otherwise, and found in either form. Where a volume stores both forms of one name
  side by side, the decomposed one is shown as stored, so the two stay apart;
- a name that Linux cannot show at all (empty, '.', '..', with ':' on disk) is shown changed, with '#' and its catalog
  number in hex, and is found by that.
"""

import re

from dmgfs.errors import CorruptImage
from dmgfs.hfsplus.unicode import compose
from dmgfs.volume import Node, Volume

TO_LINUX = str.maketrans({"/": ":", "\0": "\N{SYMBOL FOR NULL}"})
TO_DISK = str.maketrans({":": "/", "\N{SYMBOL FOR NULL}": "\0"})

_CHANGED = re.compile(rb"#([0-9A-F]{1,8})\Z")

ASCII_TWINS = frozenset(b";`")
"""The only ASCII characters that are the canonical form of others (U+037E, U+1FEF)."""


class Names:
    """The names of `volume`. compose: show them composed."""

    def __init__(self, volume: Volume, *, compose: bool) -> None:
        self._volume = volume
        self._compose = compose
        self._case_sensitive = volume.info.case_sensitive

    def fold(self, name: bytes) -> bytes:
        """Equal for exactly the spellings that name one object."""
        text = _decode(name)
        if text is None:
            return b"\xff" + name  # no name of the volume, and its own name only
        return b"\0" + self._volume.fold(_to_disk(text))

    def only_spelling(self, name: bytes) -> bool:
        return self._case_sensitive and name.isascii() and ASCII_TWINS.isdisjoint(name)

    def show(self, node: Node) -> bytes:
        """The one spelling under which `node` is listed."""
        name = node.name
        if ":" in name or name in ("", ".", ".."):
            return _encode(name.replace(":", "_")) + b"#%X" % node.cnid
        if self._compose and not name.isascii():
            name = self._composed(node)
        return _encode(name)

    def find(self, parent: int, name: bytes) -> Node | None:
        """The child that `name` finds, in any of its spellings."""
        text = _decode(name)
        if text is None:
            return None
        node = self._volume.find(parent, _to_disk(text))
        if node is None and (changed := _CHANGED.search(name)):
            node = self._numbered(parent, name, int(changed[1], 16))
        return node

    def _composed(self, node: Node) -> str:
        composed = compose(node.name)
        if composed != node.name:
            other = self._volume.find(node.parent, composed)
            if other is not None and other.name != node.name:
                return node.name  # that name belongs to another object, which is stored composed
        return composed

    def _numbered(self, parent: int, name: bytes, cnid: int) -> Node | None:
        try:
            node = self._volume.node(cnid)
        except CorruptImage:
            return None
        return node if node.parent == parent and self.show(node) == name else None


def _decode(name: bytes) -> str | None:
    """None if the bytes are no UTF-8, so no name of the volume."""
    try:
        return name.decode() if name.isascii() else name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _to_disk(text: str) -> str:
    return text if text.isascii() and ":" not in text else text.translate(TO_DISK)


def _encode(name: str) -> bytes:
    if "/" in name or "\0" in name:
        name = name.translate(TO_LINUX)
    return name.encode() if name.isascii() else name.encode("utf-8", "surrogatepass")
