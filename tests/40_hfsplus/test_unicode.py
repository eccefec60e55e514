"""Names: the order of the volume, and the form in which it stores them."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dmgfs.hfsplus.unicode import CASE_FOLDING_TABLE, compose, decode, decompose, encode, exact, fold

UNITS = st.one_of(
    st.integers(0, 0xFFFF),
    st.integers(0, 0x7F),
    st.sampled_from(sorted(CASE_FOLDING_TABLE)),
    st.integers(0xD800, 0xDFFF),
)
RAW_NAMES = st.lists(UNITS, max_size=12).map(lambda units: b"".join(unit.to_bytes(2) for unit in units))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def fast_unicode_compare(first: bytes, second: bytes) -> int:
    """TN1150's procedure, step by step: -1, 0 or 1."""

    def next_unit(name: bytes, at: int) -> tuple[int, int]:
        while at < len(name):
            unit = int.from_bytes(name[at : at + 2])
            at += 2
            folded = CASE_FOLDING_TABLE.get(unit, unit)
            if folded:
                return folded, at
        return 0, at

    i = j = 0
    while True:
        a, i = next_unit(first, i)
        b, j = next_unit(second, j)
        if a != b:
            return -1 if a < b else 1
        if a == 0:
            return 0


@given(RAW_NAMES, RAW_NAMES)
@example(encode("\0\0\0\0HFS+ Private Data"), encode("zebra"))
@example(b"\x41\x00", b"\x61\x00")
@example(encode("A\u200cB"), encode("ab"))
@example(encode("\U0001f308"), encode("\uffee"))
def test_byte_order_of_keys_is_the_order_of_tn1150(first: bytes, second: bytes) -> None:
    a, b = fold(first), fold(second)
    assert (a > b) - (a < b) == fast_unicode_compare(first, second)


def test_every_unit_folds_as_the_table_says() -> None:
    for unit in range(0x10000):
        folded = CASE_FOLDING_TABLE.get(unit, unit)
        assert fold(unit.to_bytes(2)) == (b"" if folded is None else folded.to_bytes(2))


def test_the_table_has_the_size_of_the_published_one() -> None:
    ignored = [unit for unit, folded in CASE_FOLDING_TABLE.items() if folded is None]
    assert len(ignored) == 4 + 5 + 6 + 1
    folded = {folded for folded in CASE_FOLDING_TABLE.values() if folded is not None}
    assert not {target for target in folded if target in CASE_FOLDING_TABLE}, "folding once is folding for good"


@pytest.mark.parametrize(
    ("first", "second"),
    [("README", "readme"), ("Æon", "æon"), ("ΩMEGA", "ωmega"), ("ЖУК", "жук"), ("Ⅷ", "ⅷ"), ("a\u200db", "AB")],
)
def test_equal_names(first: str, second: str) -> None:
    assert fold(encode(first)) == fold(encode(second))
    assert exact(encode(first)) != exact(encode(second))


@pytest.mark.parametrize(("first", "second"), [("ß", "ss"), ("İ", "i"), ("ſ", "s"), ("Ⴀ", "Ა"), ("É", "é")])
def test_names_that_python_would_call_equal_or_that_decompose_first(first: str, second: str) -> None:
    assert fold(encode(first)) != fold(encode(second))


def test_surrogates_survive() -> None:
    for raw in (b"\xd8\x3d", b"\xde\x00\xd8\x3d", encode("🌈"), b"\x00a\xdc\x00"):
        assert encode(decode(raw)) == raw


def test_decomposition_is_unicode_3_2_except_in_the_ranges_apple_leaves_alone() -> None:
    for point in (*range(0xD800), *range(0xE000, 0x10000), *range(0x2F800, 0x2FA20), 0x1D15E):
        name = chr(point)
        alone = 0x2000 <= point <= 0x2FFF or 0xF900 <= point <= 0xFAFF or 0x2F800 <= point <= 0x2FAFF
        expected = name if alone else unicodedata.ucd_3_2_0.normalize("NFD", name)
        assert decompose(name) == expected, hex(point)


def test_decomposition_is_not_that_of_today() -> None:
    assert decompose("\u1b06") == "\u1b06" != unicodedata.normalize("NFD", "\u1b06")


def test_marks_are_put_in_order_even_beside_what_is_left_alone() -> None:
    assert decompose("a\u0301\u0323") == "a\u0323\u0301"
    assert decompose("a\u20d0\u0323") == "a\u0323\u20d0"
    assert decompose("\u212b\u0323\u0301") == "\u212b\u0323\u0301"
    assert decompose("한") == "\u1112\u1161\u11ab"


@given(NAMES)
def test_stored_form_is_stable_and_composition_loses_nothing(name: str) -> None:
    stored = decompose(name)
    assert decompose(stored) == stored
    assert decompose(compose(stored)) == stored
    assert compose(compose(name)) == compose(name)
