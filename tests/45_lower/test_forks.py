"""Resource forks as unlisted objects beside their files, without a mount."""

import errno

import pytest
from builders.hfsplus import ROOT, HfsPlusBuilder
from builders.walk import opened

from dmgfs.errors import CorruptImage
from dmgfs.forks import FILE, FIRST, FOLDER, FORK, WithForks, number, split
from dmgfs.lower import VolumeLower


@pytest.fixture
def forks() -> WithForks:
    builder = HfsPlusBuilder()
    builder.file(ROOT, "forked", b"data", resource=b"resource", mode=0o100604)
    builder.file(ROOT, "plain", b"data")
    builder.folder(ROOT, "folder")
    builder.file_link(ROOT, "broken", 4711)
    return WithForks(VolumeLower(opened(builder.build().data)))


def found(forks: WithForks, *path: bytes) -> int:
    ino = forks.root
    for part in path:
        entry = forks.lookup(ino, part)
        assert entry is not None, part
        assert forks.getattr(entry.ino) == entry.attr
        ino = entry.ino
    return ino


def test_the_way_there_and_back(forks):
    file = found(forks, b"forked")
    folder = found(forks, b"..namedfork")
    beside = found(forks, b"..namedfork", b"FORKED")
    fork = found(forks, b"..namedfork", b"forked", b"rsrc")
    assert [split(ino) for ino in (folder, beside, fork)] == [(FOLDER, ROOT), (FILE, file), (FORK, file)]
    assert [forks.parent(ino) for ino in (fork, beside, folder)] == [beside, folder, ROOT]
    assert bytes(forks.open(fork).read(0, 8)) == b"resource"
    assert forks.getattr(fork).size == forks.open(fork).size == 8
    assert forks.getattr(fork).mode == 0o100404
    assert forks.getattr(beside).mode == 0o040505


def test_listings(forks):
    names = [entry.name for entry in forks.readdir(forks.root, None, 100).entries]
    assert b"..namedfork" not in names
    assert [entry.name for entry in forks.readdir(number(FOLDER, ROOT), None, 100).entries] == [b"forked"]
    assert [entry.name for entry in forks.readdir(found(forks, b"..namedfork", b"plain"), None, 9).entries] == [
        b"rsrc"
    ]


def test_a_listing_in_parts(forks):
    entries, after = [], None
    while True:
        part = forks.readdir(number(FOLDER, ROOT), after, 1)
        entries += part.entries
        after = part.next
        if after is None:
            break
    assert [entry.name for entry in entries] == [b"forked"]


@pytest.mark.parametrize("name", [b"folder", b"nothing", b"broken"])
def test_what_has_none(forks, name):
    folder = number(FOLDER, ROOT)
    if name == b"broken":
        with pytest.raises(CorruptImage):
            forks.lookup(folder, name)
    else:
        assert forks.lookup(folder, name) is None


def test_they_have_no_attributes_and_are_no_links(forks):
    fork = found(forks, b"..namedfork", b"forked", b"rsrc")
    assert forks.listxattr(fork) == ()
    assert forks.getxattr(fork, b"user.com.apple.ResourceFork") is None
    assert forks.getxattr(found(forks, b"forked"), b"user.com.apple.ResourceFork") == b"resource"
    for ask in (forks.readlink, lambda ino: forks.open(number(FOLDER, ROOT))):
        with pytest.raises(OSError, match=r".") as caught:
            ask(fork)
        assert caught.value.errno in (errno.EINVAL, errno.EISDIR)


def test_a_volumes_own_object_comes_first():
    builder = HfsPlusBuilder()
    ino = builder.file(ROOT, "..namedfork", b"mine")
    forks = WithForks(VolumeLower(opened(builder.build().data)))
    entry = forks.lookup(ROOT, b"..namedfork")
    assert entry is not None
    assert entry.ino == ino < FIRST
