"""All forms of root paths that Darwin's netboot and imageboot take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmgfs.bootargs.cmdline import parse
from dmgfs.bootargs.netboot import RootPath, parse_root_path, parse_root_paths
from dmgfs.errors import WrongBootArgument

PATHS = {
    "file:///puredarwin.iso": RootPath("file", image="/puredarwin.iso"),
    "file:///a%20b/%C3%A9.dmg": RootPath("file", image="/a b/é.dmg"),
    "file:///a%25b.dmg": RootPath("file", image="/a%b.dmg"),
    "file:////a//b.dmg": RootPath("file", image="/a/b.dmg"),
    "/plain.dmg": RootPath("file", image="/plain.dmg"),
    "nfs:17.202.16.17:/release/.images/Image9": RootPath("nfs", "17.202.16.17", "", "/release/.images/Image9"),
    "nfs:10.0.0.1:/exports:NetBoot/Tiger.dmg": RootPath("nfs", "10.0.0.1", "", "/exports", "NetBoot/Tiger.dmg"),
    "nfs:10.0.0.1:/exports:/NetBoot//Tiger.dmg": RootPath("nfs", "10.0.0.1", "", "/exports", "NetBoot/Tiger.dmg"),
    r"nfs:10.0.0.1:/with\:colon:a\:b.dmg": RootPath("nfs", "10.0.0.1", "", "/with:colon", "a:b.dmg"),
    r"nfs:10.0.0.1:/back\slash": RootPath("nfs", "10.0.0.1", "", r"/back\slash"),
    "17.202.16.17:seaport:/release": RootPath("nfs", "17.202.16.17", "seaport", "/release"),
    "17.202.16.17:seaport:/release:i.dmg": RootPath("nfs", "17.202.16.17", "seaport", "/release", "i.dmg"),
    "17.202.16.17::/release:i.dmg": RootPath("nfs", "17.202.16.17", "", "/release", "i.dmg"),
    "http://17.1.1.1/NetBoot/x.dmg": RootPath("http", image="http://17.1.1.1/NetBoot/x.dmg"),
    "https://host:8443/x%20y.dmg?k=v": RootPath("http", image="https://host:8443/x%20y.dmg?k=v"),
    "HTTP://host/x.dmg": RootPath("http", image="HTTP://host/x.dmg"),
}


@pytest.mark.parametrize(("text", "path"), PATHS.items())
def test_forms(text, path):
    assert parse_root_path(text) == path


REFUSED = {
    "": "1 to 4096",
    "x" * 5000: "1 to 4096",
    "file:/x.dmg": "file:///path",
    "file://localhost/x.dmg": "no host",
    "file://": "file:///path",
    "file:///": "folder",
    "file:///dir/": "folder",
    "file:///a%00b": "%00",
    "nfs:": "nfs:IP:FOLDER",
    "nfs:10.0.0.1": "nfs:IP:FOLDER",
    "nfs:host:/exports": "no IPv4 address",
    "nfs:10.0.0.256:/exports": "no IPv4 address",
    "nfs:10.0.0.1:exports": "no absolute path",
    "nfs:10.0.0.1:/exports:": "image is missing",
    "nfs:10.0.0.1:/exports:/": "image is missing",
    "nfs:10.0.0.1:/exports:a:b": "nfs:IP:FOLDER",
    "nfs:10.0.0.1:/exports/../etc": "leads out",
    "nfs:10.0.0.1:/exports:../x.dmg": "leads out",
    "10.0.0.1:/exports": "IP:HOST:FOLDER",
    "10.0.0.1:host:/exports:a:b": "IP:HOST:FOLDER",
    "10.0.0.1": "IP:HOST:FOLDER",
    "http:": "http://HOST",
    "http:///x.dmg": "http://HOST",
    "http:x.dmg": "http://HOST",
    "http://host/a b": "http://HOST",
    "afp://host/x.dmg": "write file:///PATH",
    "x.dmg": "write file:///PATH",
    "/a\nb": "end of line",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=[text[:40] for text in REFUSED])
def test_refusals(text, said):
    with pytest.raises(WrongBootArgument, match=said):
        parse_root_path(text)


def test_an_image_in_an_image_and_no_more():
    assert [path.image for path in parse_root_paths(["file:///outer.dmg", "file:///in/inner.dmg"])] == [
        "/outer.dmg",
        "/in/inner.dmg",
    ]
    assert parse_root_paths(["nfs:10.0.0.1:/e:outer.dmg", "file:///inner.dmg"])[0].kind == "nfs"
    for texts in ([], ["/a"] * 3, ["/a", "http://h/x"], ["nfs:10.0.0.1:/e", "/inner.dmg"]):
        with pytest.raises(WrongBootArgument):
            parse_root_paths(texts)


names = st.text(st.characters(exclude_characters="/\0\n", exclude_categories=("Cs",)), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and not name.endswith("\\")
)


@given(st.ip_addresses(v=4), st.none() | names, st.lists(names, min_size=1, max_size=3), st.lists(names, max_size=3))
def test_what_is_written_is_read(address, host, folder, image):
    def escaped(text: str) -> str:
        return text.replace(":", "\\:")

    words = [str(address), escaped("/" + "/".join(folder))] if host is None else [
        str(address), escaped(host), escaped("/" + "/".join(folder))
    ]  # fmt: skip
    text = ("nfs:" if host is None else "") + ":".join([*words, *([escaped("/".join(image))] if image else [])])
    assert parse_root_path(text) == RootPath("nfs", str(address), host or "", "/" + "/".join(folder), "/".join(image))


@given(st.text(alphabet="nfs:htp/\\.%20 10a\0\n", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_root_path_or_a_wrong_argument(text):
    try:
        path = parse_root_path(text)
    except WrongBootArgument:
        return
    else:
        assert path.kind in ("file", "nfs", "http")
        assert path.kind != "nfs" or (path.server and path.folder.startswith("/"))


@pytest.mark.parametrize("path", ["nfs:10.0.0.1:/e:x.dmg", "http://host/x.dmg"])
def test_the_command_line_names_what_it_cannot_reach(path):
    with pytest.raises(WrongBootArgument, match=r"on a server; mount it first"):
        parse(f"rp={path}")


def test_a_choice_of_shadows_is_passed_on():
    plan = parse("dmgfs.image=/image.dmg dmgfs.shadow=auto:-LOCAL-,/disk/shadow,ram")
    assert plan is not None
    assert plan.shadow == "auto:-LOCAL-,/disk/shadow,ram"
