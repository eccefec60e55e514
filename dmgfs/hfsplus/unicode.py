"""Names on HFS+: how the volume compares them and how it decomposes them (TN1150 "Unicode Subtleties").

Comparison is turned into keys: `fold` gives UTF-16BE bytes whose byte order is the volume's order, so trees are searched
with `bisect`. It works on 16-bit units; surrogates are units like any other, lone ones too. Decomposition is Unicode
3.2's, except for the ranges that Apple leaves alone. `str.lower` and today's Unicode tables are both wrong here.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from typing import Literal
from unicodedata import ucd_3_2_0

MAX_NAME_UNITS = 255


def _case_folding() -> dict[int, int | None]:
    """TN1150's lower-case table: a unit's replacement, None for units that comparison ignores. It is short because
    names are stored decomposed: only letters without a decomposition need an entry."""
    table: dict[int, int | None] = {0: 0xFFFF}
    for first, last in ((0x200C, 0x200F), (0x202A, 0x202E), (0x206A, 0x206F), (0xFEFF, 0xFEFF)):
        table.update(dict.fromkeys(range(first, last + 1)))

    def shift(distance: int, units: Iterable[int]) -> None:
        table.update({unit: unit + distance for unit in units})

    shift(32, [*range(0x41, 0x5B), 0xC6, 0xD0, 0xD8, 0xDE, *range(0x391, 0x3A2), *range(0x3A3, 0x3AA)])
    shift(32, [*range(0x410, 0x419), *range(0x41A, 0x430), *range(0xFF21, 0xFF3B)])
    shift(80, [0x402, 0x404, 0x405, 0x406, 0x408, 0x409, 0x40A, 0x40B, 0x40F])
    shift(48, [*range(0x531, 0x557), *range(0x10A0, 0x10C6)])
    shift(16, range(0x2160, 0x2170))
    shift(1, [0x110, 0x126, 0x132, 0x13F, 0x141, 0x14A, 0x152, 0x166, 0x182, 0x184, 0x187, 0x18B, 0x191, 0x198])
    shift(1, [0x1A2, 0x1A4, 0x1A7, 0x1AC, 0x1B3, 0x1B5, 0x1B8, 0x1BC, 0x4C3, 0x4C7, 0x4CB])
    shift(1, [*range(0x3E2, 0x3EF, 2), *range(0x460, 0x475, 2), *range(0x478, 0x481, 2), *range(0x490, 0x4BF, 2)])
    shift(205, [0x189, 0x18A])
    shift(217, [0x1B1, 0x1B2])
    singles = (
        "0181>0253 0186>0254 018E>01DD 018F>0259 0190>025B 0193>0260 0194>0263 0196>0269 0197>0268 019C>026F 019D>0272 "
        "019F>0275 01A9>0283 01AE>0288 01B7>0292 01C4>01C6 01C5>01C6 01C7>01C9 01C8>01C9 01CA>01CC 01CB>01CC "
        "01E4>01E5 01F1>01F3 01F2>01F3"
    )
    for single in singles.split():
        unit, _, replacement = single.partition(">")
        table[int(unit, 16)] = int(replacement, 16)
    return table


CASE_FOLDING_TABLE = _case_folding()


def fold(name: bytes) -> bytes:
    """UTF-16BE name → sort key of a volume that ignores case.

    The first test holds for ASCII without NUL: every high byte is 0 and no low byte is. (U+4100 has a zero byte too, but
    in the low place; NUL sorts last, so it must not take this way.)
    """
    if name.isascii() and name.count(0) * 2 == len(name) and 0 not in name[1::2]:
        return name.lower()
    return decode(name).translate(CASE_FOLDING_TABLE).encode("utf-16-be", "surrogatepass")


def exact(name: bytes) -> bytes:
    """UTF-16BE name → sort key of an HFSX volume that tells case apart: the units as they are."""
    return name


Folding = Callable[[bytes], bytes]


def decode(name: bytes) -> str:
    """UTF-16BE → str; lone surrogates stay what they are."""
    return codecs.utf_16_be_decode(name, "surrogatepass", True)[0]


def encode(name: str) -> bytes:
    """str → UTF-16BE; the inverse of `decode`."""
    return name.encode("utf-16-be", "surrogatepass")


# Apple leaves U+2000-2FFF, U+F900-FAFF and U+2F800-2FAFF as they are. The combining marks among them (U+20D0-20EA) are
# still put in canonical order with their neighbours; all others begin a new sequence, so a name may be cut at them.
_LEFT_ALONE = re.compile("([\u2000-\u20cf\u20eb-\u2fff\uf900-\ufaff\U0002f800-\U0002faff]+)")


def _normalize(form: Literal["NFC", "NFD"], name: str) -> str:
    pieces = _LEFT_ALONE.split(name)
    pieces[::2] = [ucd_3_2_0.normalize(form, piece) for piece in pieces[::2]]
    return "".join(pieces)


def decompose(name: str) -> str:
    """The form in which the volume stores a name: Apple's canonical decomposition."""
    return name if name.isascii() else _normalize("NFD", name)


def compose(name: str) -> str:
    """The form that people type: the canonical composition, undone exactly by `decompose` for well-formed names."""
    return name if name.isascii() else _normalize("NFC", name)
