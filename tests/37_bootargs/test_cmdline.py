"""The kernel's command line: every form of naming an image, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.bootargs.cmdline import DEFAULT_WAIT, BootPlan, Place, parse, split
from dmgfs.bootargs.rootpath import file_path
from dmgfs.errors import WrongBootArgument


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("ro quiet", [("ro", None), ("quiet", None)]),
        ("a=1  b=\t c", [("a", "1"), ("b", ""), ("c", None)]),
        ('name="two words" x', [("name", "two words"), ("x", None)]),
        ('"name=two words" x', [("name", "two words"), ("x", None)]),
        ("a=b=c", [("a", "b=c")]),
        ("a=1 -- b=2", [("a", "1")]),
        ('a="open end', [("a", "open end")]),
        ("console=ttyS0\n", [("console", "ttyS0")]),
    ],
)
def test_words_as_the_kernel_takes_them(text, words):
    assert list(split(text)) == words


@pytest.mark.parametrize(
    ("text", "image", "inner"),
    [
        ("dmgfs.image=/dev/vda", Place("/dev/vda", ""), ()),
        ("dmgfs.image=/dev/vda1:/boot/root.dmg", Place("/dev/vda1", "/boot/root.dmg"), ()),
        ("dmgfs.image=LABEL=LIVE:/root.dmg", Place("LABEL=LIVE", "/root.dmg"), ()),
        ("dmgfs.image=UUID=12-34:/a//inner/b.dmg", Place("UUID=12-34", "/a"), ("/inner/b.dmg",)),
        ("dmgfs.image=/live/root.dmg", Place("", "/live/root.dmg"), ()),
        ("root=LABEL=LIVE dmgfs.image=/live/root.dmg", Place("LABEL=LIVE", "/live/root.dmg"), ()),
        ('dmgfs.image="/live/my root.dmg"', Place("", "/live/my root.dmg"), ()),
        ("root=dmgfs:/dev/vda", Place("/dev/vda", ""), ()),
        ("root=dmgfs:LABEL=X:/r.dmg", Place("LABEL=X", "/r.dmg"), ()),
        ("-v rp=file:///puredarwin.iso", Place("", "/puredarwin.iso"), ()),
        ("root=/dev/sda2 rp=file:///puredarwin.iso", Place("/dev/sda2", "/puredarwin.iso"), ()),
        ("rp=file:///with%20blank.dmg", Place("", "/with blank.dmg"), ()),
        ("rp0=file:///outer.dmg", Place("", "/outer.dmg"), ()),
        ("rp0=file:///outer.dmg rp1=file:///a/inner.dmg", Place("", "/outer.dmg"), ("/a/inner.dmg",)),
        ("root-dmg=file:///r.dmg", Place("", "/r.dmg"), ()),
        ("root-dmg=file:///r.dmg container-dmg=file:///c.dmg", Place("", "/c.dmg"), ("/r.dmg",)),
        ("root_dmg=/r.dmg", Place("", "/r.dmg"), ()),
        ("rp=file:///old.dmg rp0=file:///new.dmg", Place("", "/new.dmg"), ()),
        ("rp0=file:///old.dmg root-dmg=file:///new.dmg", Place("", "/new.dmg"), ()),
        ("root-dmg=file:///old.dmg dmgfs.image=/ours.dmg", Place("", "/ours.dmg"), ()),
        ("dmgfs.image=/first.dmg dmgfs.image=/last.dmg", Place("", "/last.dmg"), ()),
    ],
)
def test_an_image_is_named(text, image, inner):
    plan = parse(text)
    assert plan is not None
    assert (plan.image, plan.inner) == (image, inner)
    assert plan.shadow == "ram"
    assert plan.wait == DEFAULT_WAIT


@pytest.mark.parametrize("text", ["", "ro quiet root=/dev/sda1", "dmgfs.toram", "init=/bin/sh -- rp=file:///x.dmg"])
def test_no_image_is_named(text):
    assert parse(text) is None


def test_all_words():
    plan = parse(
        "quiet root=/dev/sda1 dmgfs.image=/live.dmg dmgfs.shadow=/dev/sdb1:/changes dmgfs.toram dmgfs.verify=full "
        "dmgfs.playlist=auto dmgfs.partition=2 dmgfs.on_error=ram dmgfs.wait=5 dmgfs.options=noatime,acl"
    )
    changes = Place("/dev/sdb1", "/changes")
    image = Place("/dev/sda1", "/live.dmg")
    assert plan == BootPlan(image, (), changes, True, "full", "auto", "2", "ram", 5.0, "noatime,acl")


def test_shadow_in_memory_and_none():
    for word in ("none", "ram", "ram:1G", "ram:25%"):
        plan = parse(f"dmgfs.image=/a.dmg dmgfs.shadow={word}")
        assert plan is not None
        assert plan.shadow == word


def test_darwins_word_for_moving_the_image_into_memory():
    plan = parse("rp=file:///a.dmg -rootdmg-ramdisk")
    assert plan is not None
    assert plan.toram


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dmgfs.shadwo=ram", "dmgfs.shadow"),
        ("dmgfs.xyzzy=1", "image, shadow"),
        ("dmgfs.image", "takes a value"),
        ("dmgfs.image=", "takes a value"),
        ("dmgfs.toram=yes", "no value"),
        ("dmgfs.image=relative.dmg", "file:///"),
        ("dmgfs.image=/folder/", "folder"),
        ("dmgfs.image=/", "folder"),
        ("dmgfs.image=/a dmgfs.verify=maybe", "none or full"),
        ("dmgfs.image=/a dmgfs.on-error=reboot", "fail or ro or ram"),
        ("dmgfs.image=/a dmgfs.wait=long", "seconds"),
        ("dmgfs.image=/a dmgfs.wait=nan", "seconds"),
        ("dmgfs.image=/a dmgfs.shadow=/dev/sdb", "a shadow is a file"),
        ("rp=file://localhost/a.dmg", "no host"),
        ("rp=ftp://host/a.dmg", "file:///"),
        ("rp=file:///a%00.dmg", "%00"),
        ("arp0=file:///a.dmg", "signatures"),
        ("container-dmg=file:///c.dmg", "root-dmg= is missing"),
    ],
)
def test_refused_by_name(text, named):
    with pytest.raises(WrongBootArgument) as refusal:
        parse(text)
    assert named in str(refusal.value)


WORDS = ("dmgfs.image=", "dmgfs.shadow=ram", "rp=file:///a", "root-dmg=/", "root=dmgfs:", '"', "--", "LABEL=a:/b//c")


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=20)), max_size=6).map(" ".join))
def test_any_text_is_a_plan_or_nothing_or_refused(text):
    try:
        plan = parse(text)
    except WrongBootArgument:
        return
    assert plan is None or plan.image.path.startswith("/") or plan.image.disk


@given(st.text(alphabet="/%20af.é\udc80:", max_size=30))
def test_a_path_is_absolute_and_without_empty_parts(text):
    try:
        path = file_path("file://" + text)
    except WrongBootArgument:
        return
    assert path.startswith("/")
    assert "//" not in path
    assert not path.endswith("/")
