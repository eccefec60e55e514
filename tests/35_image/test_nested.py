"""Images in images: `outer.dmg//folder/inner.dmg`."""

import os
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.udif import Piece, Table, build

from dmgfs.errors import DmgError, NotAnImage, PassphraseNeeded, Unsupported
from dmgfs.image import open_image


def udif(volume: bytes) -> bytes:
    volume += bytes(-len(volume) % 512)
    return build([Table("whole disk (Apple_HFS : 0)", [Piece("zlib", volume)])]).bytes


def volume_with(name: str, files: dict[str, bytes]) -> bytes:
    builder = HfsPlusBuilder(name=name)
    folder = builder.folder(ROOT, "a/b")  # Linux shows a:b
    for file, data in files.items():
        builder.file(folder, file, data)
    builder.symlink(ROOT, "link", b"a:b")
    return bytes(builder.build().data)


@pytest.fixture
def outer(tmp_path: Path) -> Path:
    innermost = volume_with("Innermost", {"end": b"the end"})
    inner = volume_with("Inner", {"deeper.dmg": udif(innermost), "text": b"no image", "x.img": bytes(4096)})
    outermost = volume_with("Outer", {"inner.dmg": udif(inner), "secret.dmg": encrypt_v2(udif(innermost))})
    path = tmp_path / "outer.dmg"
    path.write_bytes(udif(outermost))
    return path


def test_the_inner_volume_is_opened(outer: Path) -> None:
    with open_image(f"{outer}//a:b/inner.dmg") as image:
        assert image.volume().info.name == "Inner"
        assert image.container.kind == "UDIF"
        assert image.outer is not None
        assert image.outer.volume().info.name == "Outer"
        assert image.path == f"{outer}//a:b/inner.dmg"


def test_more_than_two_deep_must_be_allowed(outer: Path) -> None:
    path = f"{outer}//a:b/inner.dmg//a:b/deeper.dmg"
    with pytest.raises(Unsupported, match="2 images deep"):
        open_image(path)
    with open_image(path, depth=3) as image:
        assert image.volume().info.name == "Innermost"
        volume = image.volume()
        folder = volume.find(2, "a/b")
        assert folder is not None
        file = volume.find(folder.cnid, "end")
        assert file is not None
        assert bytes(volume.data(file).read(0, 7)) == b"the end"


def test_an_encrypted_inner_image_asks_for_its_passphrase(outer: Path) -> None:
    with pytest.raises(PassphraseNeeded):
        open_image(f"{outer}//a:b/secret.dmg")
    with open_image(f"{outer}//a:b/secret.dmg", passphrase=PASSPHRASE) as image:
        assert image.volume().info.name == "Innermost"


@pytest.mark.parametrize(
    "inner", ["nothing", "a:b/nothing", "a:b/inner.dmg/below", "link/inner.dmg", "a/b/inner.dmg"]
)
def test_an_inner_file_that_is_not_there(outer: Path, inner: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_image(f"{outer}//{inner}")
    assert caught.value.filename == f"{outer}//{inner}"


def test_what_is_no_file_is_refused(outer: Path) -> None:
    with pytest.raises(Unsupported, match="folder"):
        open_image(f"{outer}//a:b")
    with pytest.raises(NotAnImage, match="no regular file"):
        open_image(f"{outer}//link")


def test_an_inner_file_that_is_no_image(outer: Path) -> None:
    with pytest.raises(NotAnImage):
        open_image(f"{outer}//a:b/inner.dmg//a:b/text", depth=3)


def test_a_path_with_two_slashes_that_exists_is_taken_as_it_is(outer: Path) -> None:
    with open_image(f"{outer.parent}//{outer.name}") as image:
        assert image.outer is None


def test_nothing_stays_open(outer: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    open_image(f"{outer}//a:b/inner.dmg").close()
    for path in (f"{outer}//nothing", f"{outer}//a:b/inner.dmg//a:b/text", f"{outer}//a:b/secret.dmg"):
        with pytest.raises((DmgError, FileNotFoundError)):
            open_image(path, depth=3)
    assert len(os.listdir("/proc/self/fd")) == before
