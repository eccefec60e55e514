"""Names between the volume and Linux: every stored name has one shown spelling, which is valid, and finds it again."""

import unicodedata

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmgfs.cache import ChunkCache
from dmgfs.hfsplus.volume import open_volume
from dmgfs.lower import View, VolumeLower
from dmgfs.source import MemorySource


def lower_of(builder: HfsPlusBuilder, **view: object) -> VolumeLower:
    volume = open_volume(MemorySource(bytes(builder.build().data)), cache=ChunkCache(1 << 20))
    return VolumeLower(volume, View(**view))  # type: ignore[arg-type]


def listed(lower: VolumeLower, ino: int = ROOT) -> dict[bytes, int]:
    entries = lower.readdir(ino, None, 10_000).entries
    assert len({entry.name for entry in entries}) == len(entries), "two entries have one name"
    return {entry.name: entry.ino for entry in entries}


def nfc(name: str) -> bytes:
    return unicodedata.normalize("NFC", name).encode()


def nfd(name: str) -> bytes:
    return unicodedata.normalize("NFD", name).encode()


@pytest.fixture(params=["H+", "HFSX"])
def builder(request):
    return HfsPlusBuilder(hfsx=request.param == "HFSX", binary=request.param == "HFSX")


def test_names_are_shown_composed_and_found_in_both_forms(builder):
    ino = builder.file(ROOT, "Übergröße")
    lower = lower_of(builder)
    assert listed(lower) == {nfc("Übergröße"): ino}
    for typed in (nfc("Übergröße"), nfd("Übergröße")):
        entry = lower.lookup(ROOT, typed)
        assert entry is not None
        assert (entry.ino, entry.name) == (ino, nfc("Übergröße"))
        assert lower.fold(typed) == lower.fold(nfc("Übergröße"))


def test_names_are_shown_as_stored_on_request(builder):
    builder.file(ROOT, "Übergröße")
    assert list(listed(lower_of(builder, names="nfd"))) == [nfd("Übergröße")]


def test_slash_and_colon_change_places(builder):
    ino = builder.file(ROOT, "1/2 off")
    lower = lower_of(builder)
    assert listed(lower) == {b"1:2 off": ino}
    entry = lower.lookup(ROOT, b"1:2 off")
    assert entry is not None
    assert entry.ino == ino


def test_nul_is_shown_as_its_symbol(builder):
    ino = builder.file(ROOT, "a\0b")
    lower = lower_of(builder)
    assert listed(lower) == {"a\u2400b".encode(): ino}
    entry = lower.lookup(ROOT, "a\u2400b".encode())
    assert entry is not None


def test_lone_surrogates_survive(builder):
    ino = builder.file(ROOT, "x\udc80y", stored=True)
    lower = lower_of(builder)
    (name,) = listed(lower)
    entry = lower.lookup(ROOT, name)
    assert entry is not None
    assert entry.ino == ino


@pytest.mark.parametrize("stored", [".", "..", "a:b", ":", "::"])
def test_names_that_linux_cannot_show_are_changed_and_found(builder, stored):
    ino = builder.file(ROOT, stored, stored=True)
    other = builder.file(ROOT, "zz")
    lower = lower_of(builder)
    shown = listed(lower)
    assert set(shown.values()) == {ino, other}
    name = next(name for name, number in shown.items() if number == ino)
    assert name not in (b"", b".", b"..")
    assert b"/" not in name
    entry = lower.lookup(ROOT, name)
    assert entry is not None
    assert entry.ino == ino


def test_a_number_sign_does_not_open_a_back_door(builder):
    folder = builder.folder(ROOT, "folder")
    ino = builder.file(folder, "file")
    lower = lower_of(builder)
    assert lower.lookup(ROOT, b"file#%X" % ino) is None, "not in this directory"
    assert lower.lookup(folder, b"file#%X" % ino) is None, "not the name it is shown under"
    assert lower.lookup(folder, b"x#FFFFFFFF") is None


def test_both_forms_of_one_name_side_by_side_stay_apart(builder):
    decomposed = builder.file(ROOT, "e\u0301", stored=True)
    composed = builder.file(ROOT, "\u00e9", stored=True)
    lower = lower_of(builder)
    assert listed(lower) == {"e\u0301".encode(): decomposed, "\u00e9".encode(): composed}
    for name, ino in listed(lower).items():
        entry = lower.lookup(ROOT, name)
        assert entry is not None
        assert entry.ino == ino


def test_bytes_that_are_no_text_name_nothing(builder):
    builder.file(ROOT, "a")
    lower = lower_of(builder)
    assert lower.lookup(ROOT, b"\xff\xfe") is None
    assert lower.fold(b"\xff") != lower.fold(b"\xfe")


def test_case_is_the_volumes_business():
    for binary in (False, True):
        builder = HfsPlusBuilder(hfsx=binary, binary=binary)
        ino = builder.file(ROOT, "ReadMe")
        lower = lower_of(builder)
        entry = lower.lookup(ROOT, b"README")
        assert (entry is None) is binary
        if entry is not None:
            assert (entry.ino, entry.name) == (ino, b"ReadMe")
        assert (lower.fold(b"README") == lower.fold(b"ReadMe")) is not binary


def test_only_spelling_is_said_of_names_without_any_twin():
    sensitive = lower_of(HfsPlusBuilder(hfsx=True, binary=True))
    assert sensitive.only_spelling(b"lib64")
    assert not sensitive.only_spelling("é".encode())
    assert not sensitive.only_spelling(b"a;b"), "U+037E is stored as a semicolon"
    assert sensitive.fold("a\u037eb".encode()) == sensitive.fold(b"a;b")
    assert not lower_of(HfsPlusBuilder()).only_spelling(b"lib64")


SENSITIVE = lower_of(HfsPlusBuilder(hfsx=True, binary=True))


@given(st.text(max_size=40), st.text(max_size=40))
def test_only_spelling_is_true(one, other):
    first, second = (text.replace("/", ":").encode("utf-8", "surrogatepass") for text in (one, other))
    if first != second and SENSITIVE.only_spelling(first):
        assert SENSITIVE.fold(first) != SENSITIVE.fold(second)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sets(st.text(st.characters(codec=None), min_size=1, max_size=12), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(["nfc", "nfd"]),
)
def test_whatever_is_stored_is_listed_once_and_found(names, binary, form):
    """Also for lone surrogates, controls, ignorable and not yet composed characters."""
    builder = HfsPlusBuilder(hfsx=binary, binary=binary)
    seen = set()
    numbers = set()
    for name in names:
        stored = name.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
        key = builder.sort_name(stored.encode("utf-16-be", "surrogatepass"))
        if key and key not in seen:
            seen.add(key)
            numbers.add(builder.file(ROOT, stored, stored=True))
    lower = lower_of(builder, names=form)
    shown = listed(lower)
    assert set(shown.values()) == numbers
    for name, ino in shown.items():
        assert name not in (b"", b".", b"..")
        assert not {0, ord("/")} & set(name)
        entry = lower.lookup(ROOT, name)
        assert entry is not None, f"{name!r} is listed and not found"
        assert entry.ino == ino, f"{name!r} finds another object"
        assert entry.name == name
