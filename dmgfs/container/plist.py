"""Property lists from untrusted files: XML only, bounded, and every failure is a CorruptImage (threats.md U2-U8).

plistlib refuses entity declarations by itself, so nothing is ever expanded or fetched; what it raises on bad input is a
whole zoo (expat, lookup, value, binascii errors), turned into one kind here. The tree may be nested so deeply that its
repr() recurses: callers take the keys they know by type and never print or compare the tree.
"""

import plistlib

from dmgfs.errors import CorruptImage
from dmgfs.source import Buffer

MOST_TAGS = 500_000
"""Each costs a microsecond and some hundred bytes, so their number says more than the size what a list costs. The largest
that makes sense, 4096 block tables, has a fifth."""


def parse_plist(data: Buffer, layer: str, structure: str, limit: int) -> dict[str, object]:
    """The top dictionary of an XML property list of at most `limit` bytes. Trailing NULs and white space are accepted,
    as files padded by other tools have them. Raises CorruptImage(layer, structure, ...)."""
    if len(data) > limit:
        raise CorruptImage(layer, structure, f"{len(data)} bytes long, at most {limit} are read")
    text = bytes(data).rstrip(b"\0 \t\r\n")
    tags = text.count(b"<")
    if tags > MOST_TAGS:
        raise CorruptImage(layer, structure, f"{tags} tags, at most {MOST_TAGS} are read")
    try:
        tree = plistlib.loads(text, fmt=plistlib.FMT_XML)
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptImage(layer, structure, f"not a readable XML property list ({type(error).__name__})") from error
    if not isinstance(tree, dict):
        raise CorruptImage(layer, structure, f"holds a {type(tree).__name__} where a dictionary belongs")
    return tree
