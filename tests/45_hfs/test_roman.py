"""Names of HFS standard: nothing lost between bytes and text, and the ROM's order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.hfs import roman

# Everything from the space on, in the order of the ROM, equal characters in brackets. The same in Apple's FastRelString
# and in the readers of two others; control characters keep their order in front.
ORDER = (
    "( \N{NO-BREAK SPACE})!\"“”«»#$%&'‘’()*+,-./0123456789:;<=>?@[Aa][àÀ][Ää][ãÃ][Åå][Ææ]`áâª[Bb][Cc][Çç][Dd][Ee][Éé]èêë"
    "[Ff][Gg][Hh][Ii]íìîï[Jj][Kk][Ll][Mm][Nn][Ññ][Oo][Öö][õÕ][Øø][Œœ]óòôº[Pp][Qq][Rr][Ss]ß[Tt][Uu][Üü]úùû[Vv][Ww][Xx]"
    "[Yy]ÿ[Zz]"
)


def classes() -> list[str]:
    found = [ORDER[1:3]]
    rest = iter(ORDER[4:])
    for character in rest:
        if character != "[":
            found.append(character)
            continue
        group = ""
        for member in rest:
            if member == "]":
                break
            group += member
        found.append(group)
    return found


def one(character: str) -> bytes:
    return roman.key(character.encode("mac_roman"))


def test_order_of_the_rom() -> None:
    groups = [*classes(), *"[\\]^_{|}~\x7f†°¢£§•¶®©™´¨≠∞±"]
    for group in groups:
        assert len({one(character) for character in group}) == 1, group
    keys = [one(group[0]) for group in groups]
    assert keys == sorted(set(keys))
    assert [one(chr(code)) for code in range(32)] == sorted(one(chr(code)) for code in range(32))
    assert one("\x1f") < one(" ")
    assert one("~") < one("ˇ")


def test_prefixes_come_first() -> None:
    assert roman.key(b"ab") < roman.key(b"ABC") < roman.key(b"abd")


@pytest.mark.parametrize(("left", "right"), [("é", "É"), ("œuvre", "ŒUVRE"), ("a b", "A\N{NO-BREAK SPACE}B")])
def test_names_that_are_one(left: str, right: str) -> None:
    assert roman.fold(left) == roman.fold(right)


@pytest.mark.parametrize(("left", "right"), [("ê", "Ê"), ("ÿ", "Ÿ"), ("e", "é"), ("ß", "SS"), ("Ж", "ж"), ("Ж", "Z")])
def test_names_that_are_two(left: str, right: str) -> None:
    assert roman.fold(left) != roman.fold(right)


def test_names_typed_decomposed() -> None:
    assert roman.encode("A\N{COMBINING RING ABOVE}ngstro\N{COMBINING DIAERESIS}m") == "Ångström".encode("mac_roman")
    assert roman.encode("Ж") is None
    assert roman.encode("\ud800") is None
    assert roman.fold("\ud800") == roman.fold("\ud800")


@given(st.binary(max_size=31))
def test_every_name_on_disk_survives(name: bytes) -> None:
    text = roman.decode(name)
    assert roman.encode(text) == name
    assert roman.fold(text) == roman.key(name)
