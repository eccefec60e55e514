"""What can be asked of a mount, without mounting: sizes, the shadow, -o."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.cli import options
from dmgfs.cli.mount import configure
from dmgfs.cli.options import (
    FSTAB,
    KERNEL,
    OURS,
    WrongUsage,
    merge,
    parse_owners,
    parse_shadow,
    parse_size,
    parse_words,
)

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _eight_gigabytes(monkeypatch):
    monkeypatch.setattr(options, "memory_size", lambda: 8 * GIB)


SIZES = {
    "0": 0,
    "512": 512,
    "100B": 100,
    "64K": 65536,
    "64k": 65536,
    " 7 m": 7 << 20,
    "1.5M": 3 << 19,
    "2G": 2 * GIB,
    "2GB": 2 * GIB,
    "2GiB": 2 * GIB,
    "1T": 1 << 40,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "M", "1X", "1e9", "0x10", "1 000", "12MM", "½G", "1K2"])
def test_no_sizes(text):
    with pytest.raises(WrongUsage):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_wrong_usage(text):
    try:
        assert parse_size(text) >= 0
    except WrongUsage:
        pass


@pytest.mark.parametrize(
    ("text", "kind", "budget"),
    [("none", "none", 0), ("ram", "ram", 4 * GIB), ("ram:1G", "ram", GIB), ("ram:25%", "ram", 2 * GIB)],
)
def test_shadows(text, kind, budget):
    shadow = parse_shadow(text)
    assert (shadow.kind, shadow.budget) == (kind, budget)


def words(*lists: str) -> tuple[dict[str, str], set[str]]:
    parsed = parse_words(list(lists))
    return dict(parsed.ours), set(parsed.kernel)


def test_ours_and_the_kernels_and_fstabs():
    text = "shadow=ram:1G,noatime,nofail,x-gvfs-hide,comment=hello,no_replay,allow_other"
    assert words(text) == ({"shadow": "ram:1G", "no-replay": ""}, {"noatime", "allow_other"})


def test_compression_of_what_is_in_memory():
    assert parse_shadow("ram").compress == "none"
    assert parse_shadow("ram,compress=none").compress == "none"
    shadow = parse_shadow("ram:1G,compress=zstd")
    assert (shadow.kind, shadow.budget, shadow.compress) == ("ram", 1 << 30, "zstd")
    assert parse_shadow("ram:25%", "zstd").compress == "zstd"
    assert words("shadow=ram:1G,compress=zstd")[0] == {"shadow": "ram:1G", "compress": "zstd"}
    for text, compress in (("ram,compress=lz4", None), ("ram,compress=", None), ("none", "zstd"), ("./file", "zstd")):
        with pytest.raises(WrongUsage, match="compress"):
            parse_shadow(text, compress)
    for text in ("ram,", "ram,zstd", "ram:1G,other=1"):
        with pytest.raises(WrongUsage):
            parse_shadow(text)
    assert parse_shadow("/a,compress=zstd").path == "/a,compress=zstd"


def test_layers_are_all_kept_and_in_order():
    parsed = parse_words([r"shadow-ro=/one,ro,shadow_ro=/t\,wo", "shadow-ro=/three,shadow=ram"])
    assert parsed.layers == ("/one", "/t,wo", "/three")
    assert (parsed.ours, parsed.kernel) == ({"shadow": "ram"}, ("ro",))
    assert arguments("--shadow-ro", "a", "--shadow-ro", "b").shadow_ro == ["a", "b"]


def test_an_escaped_comma_belongs_to_the_value():
    assert words(r"partition=a\,b,ro") == ({"partition": "a,b"}, {"ro"})
    assert words(r"fsname=a\,b") == ({}, {r"fsname=a\,b"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"shadow=/a\,b", "/a,b"),
        ('shadow="/a,b",ro', "/a,b"),
        (r"shadow=/a\040b\054c", "/a b,c"),
        (r"shadow=/a\\b", "/a\\b"),
        (r"shadow=/\303\244", "/ä"),
        ('shadow=/5"', '/5"'),
        ("shadow=/a=b", "/a=b"),
    ],
)
def test_values_may_be_quoted(text, value):
    assert words(text)[0] == {"shadow": value}


def test_quotes_of_the_kernels_words_become_libfuses():
    assert words('context="a:c1,c2",ro')[1] == {r"context=a:c1\,c2", "ro"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12))
def test_any_value_can_be_said(value):
    escaped = "".join(f"\\{letter}" if letter in ',\\"' else letter for letter in value)
    assert words(f"shadow={escaped},ro") == ({"shadow": value}, {"ro"})


def test_a_remount_repeats_what_the_kernel_tells():
    parsed = parse_words(["remount,ro,user_id=0,group_id=0,default_permissions"])
    assert parsed.remount
    assert set(parsed.kernel) == {"ro", "default_permissions"}
    with pytest.raises(WrongUsage, match="user_id"):
        parse_words(["ro,user_id=0"])


@pytest.mark.parametrize(
    ("lists", "kernel"),
    [(["ro,rw"], {"rw"}), (["rw", "ro"], {"ro"}), (["dev,nodev"], {"nodev"}), (["nosuid,suid"], {"suid"})],
)
def test_the_last_of_contradicting_words_counts(lists, kernel):
    assert words(*lists)[1] == kernel


@pytest.mark.parametrize(
    "text",
    ["nosuch", "ro=1", "shadow", "no-replay=1", "fsname", "subtype=x", "offset=512", "io_uring", "big_writes"],
)
def test_unknown_words_are_refused_by_name(text):
    with pytest.raises(WrongUsage, match=text.partition("=")[0]):
        parse_words([text])


def test_near_misses_get_a_suggestion():
    with pytest.raises(WrongUsage, match="allow_other"):
        parse_words(["allow_othr"])


def test_nothing_is_two_things():
    assert not OURS & KERNEL
    assert not OURS & FSTAB
    assert not KERNEL & FSTAB


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(["IMAGE", "PLACE", *words])


def test_every_word_of_ours_is_a_long_option():
    args = arguments()
    for name in OURS:
        assert hasattr(args, name.replace("-", "_")), name


def test_a_long_option_beats_the_word():
    args = arguments("--shadow", "none", "--cache", "1M")
    merge(args, {"shadow": "ram", "cache": "2M", "names": "nfd", "no-replay": "", "foreground": ""})
    assert (args.shadow, args.cache, args.names) == ("none", "1M", "nfd")
    assert args.no_replay is True
    assert args.foreground is True


@pytest.mark.parametrize("text", ["rom", "RAM", "rom:1G", "non", "disk"])
def test_a_bare_word_is_no_shadow_file(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongUsage, match=rf"\./{text}"):
        parse_shadow(text)
    assert parse_shadow(f"./{text}").path == str(tmp_path / text)
    (tmp_path / text).touch()
    assert parse_shadow(text).path == str(tmp_path / text)
    assert parse_shadow("changes.shadow").kind == "file"


def test_half_the_memory_is_what_this_machine_has(monkeypatch):
    monkeypatch.undo()
    assert 1 << 28 < options.memory_size() < 1 << 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("image", None)),
        ("on", ("image", None)),
        ("image", ("image", None)),
        ("off", ("mounter", None)),
        ("mounter", ("mounter", None)),
        ("501:20", ("mounter", (501, 20))),
        ("0:0", ("mounter", (0, 0))),
    ],
)
def test_owners(text: str | None, expected: tuple[str, tuple[int, int] | None]) -> None:
    assert parse_owners(text, "image") == expected


@pytest.mark.parametrize("text", ["", "yes", "501", "501:", ":20", "me:us", "-1:0", "1:2:3", "4294967296:0"])
def test_owners_that_make_no_sense(text: str) -> None:
    with pytest.raises(WrongUsage, match="on, off or UID:GID"):
        parse_owners(text, "image")


def test_owners_are_said_once(run, rich, tmp_path) -> None:
    said = run("mount", rich, tmp_path, "--owners", "1:2", "--uid", "3")
    assert said.code == 64
    assert "--owners 1:2 says all" in said.err


def test_a_slow_key_is_a_switch() -> None:
    assert parse_words(["slow_key"]).ours == {"slow-key": ""}
    with pytest.raises(WrongUsage):
        parse_words(["slow-key=1"])
