"""The volume as Linux sees it: stat fields, owners, links, extended attributes, damage."""

import errno
import os
import stat

import pytest
from builders.hfsplus import CREATED, ROOT, HfsPlusBuilder

from dmgfs.cache import ChunkCache
from dmgfs.errors import CorruptImage, DmgError
from dmgfs.hfsplus.volume import open_volume
from dmgfs.lower import View, VolumeLower
from dmgfs.source import MemorySource

EPOCH = 2082844800


@pytest.fixture
def builder():
    return HfsPlusBuilder()


def lower_of(builder: HfsPlusBuilder, **view: object) -> VolumeLower:
    volume = open_volume(MemorySource(bytes(builder.build().data)), cache=ChunkCache(1 << 20))
    return VolumeLower(volume, View(**view))  # type: ignore[arg-type]


def test_a_file(builder):
    ino = builder.file(ROOT, "file", b"x" * 1000, mode=0o104751, uid=7, gid=8)
    attr = lower_of(builder).getattr(ino)
    assert attr.ino == ino
    assert attr.mode == stat.S_IFREG | 0o4751
    assert (attr.nlink, attr.uid, attr.gid, attr.size, attr.blocks) == (1, 7, 8, 1000, 2)
    assert attr.mtime_ns == (CREATED - EPOCH) * 10**9


def test_the_root(builder):
    lower = lower_of(builder)
    attr = lower.getattr(lower.root)
    assert lower.root == 2
    assert stat.S_ISDIR(attr.mode)
    assert lower.parent(2) == 2


def test_dates_that_are_not_set_fall_back(builder):
    modified = CREATED + 100
    ino = builder.file(ROOT, "file", dates=(CREATED, modified, 0, 0, 0))
    attr = lower_of(builder).getattr(ino)
    assert attr.mtime_ns == attr.ctime_ns == attr.atime_ns == (modified - EPOCH) * 10**9
    assert attr.btime_ns == (CREATED - EPOCH) * 10**9


def test_the_parent_of_a_folder(builder):
    outer = builder.folder(ROOT, "outer")
    inner = builder.folder(outer, "inner")
    lower = lower_of(builder)
    assert lower.parent(inner) == outer
    assert lower.parent(outer) == ROOT


def test_a_folder_has_one_link_where_subfolders_are_not_counted(builder):
    plain = builder.folder(ROOT, "plain")
    counted = builder.folder(ROOT, "counted", record_flags=0x10, folders=3)
    lower = lower_of(builder)
    assert lower.getattr(plain).nlink == 1
    assert lower.getattr(counted).nlink == 5


def test_hard_links_are_one_inode(builder):
    builder.inode(77, b"shared", 2)
    builder.file_link(ROOT, "a", 77)
    builder.file_link(ROOT, "b", 77)
    lower = lower_of(builder)
    one, two = lower.lookup(ROOT, b"a"), lower.lookup(ROOT, b"b")
    assert one is not None
    assert two is not None
    assert one.ino == two.ino
    assert one.attr == two.attr
    assert one.attr is not None
    assert one.attr.nlink == 2
    assert bytes(lower.open(one.ino).read(0, 6)) == b"shared"


def test_a_link_without_target_is_listed_and_cannot_be_had(builder):
    builder.private_folder()
    builder.file_link(ROOT, "broken", 99)
    builder.file(ROOT, "sound")
    lower = lower_of(builder)
    entries = {entry.name: entry for entry in lower.readdir(ROOT, None, 100).entries}
    assert set(entries) == {b"broken", b"sound"}
    assert entries[b"broken"].attr is None
    with pytest.raises(CorruptImage):
        lower.getattr(entries[b"broken"].ino)


def test_private_items_are_not_listed(builder):
    builder.inode(77, b"", 1)
    assert lower_of(builder).readdir(ROOT, None, 100).entries == []


def test_permissions_that_were_never_set(builder):
    file = builder.file(ROOT, "file", mode=0)
    folder = builder.folder(ROOT, "folder", mode=0)
    lower = lower_of(builder, uid=12, gid=34, umask=0o027)
    assert lower.getattr(file)[1:5] == (stat.S_IFREG | 0o640, 1, 12, 34)
    assert lower.getattr(folder)[1:5] == (stat.S_IFDIR | 0o750, 1, 12, 34)


def test_the_unknown_owner_is_whoever_mounts(builder):
    ino = builder.file(ROOT, "file", uid=99, gid=99)
    assert lower_of(builder, uid=12, gid=34).getattr(ino)[3:5] == (12, 34)


def test_all_belongs_to_the_mounter_on_request(builder):
    ino = builder.file(ROOT, "file", mode=0o100600, uid=501, gid=20)
    attr = lower_of(builder, owners="mounter", uid=12, gid=34).getattr(ino)
    assert (attr.uid, attr.gid, stat.S_IMODE(attr.mode)) == (12, 34, 0o600)


def test_devices_change_their_numbering(builder):
    ino = builder.file(ROOT, "device", mode=0o020644, special=(3 << 24) | 0x000102)
    pipe = builder.file(ROOT, "pipe", mode=0o010644, special=5)
    lower = lower_of(builder)
    assert lower.getattr(ino).rdev == os.makedev(3, 0x102)
    assert stat.S_ISCHR(lower.getattr(ino).mode)
    assert lower.getattr(pipe).rdev == 0


def test_a_symbolic_link(builder):
    ino = builder.symlink(ROOT, "link", b"/Applications/\xc3\xa9:x")
    lower = lower_of(builder)
    assert lower.readlink(ino) == b"/Applications/\xc3\xa9:x", "targets are taken as they are"
    assert lower.getattr(ino).size == len(b"/Applications/\xc3\xa9:x")
    assert lower.listxattr(ino) == []


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 4096])
def test_a_target_that_cannot_be_one(builder, target):
    ino = builder.symlink(ROOT, "link", target)
    with pytest.raises(CorruptImage):
        lower_of(builder).readlink(ino)


def test_the_longest_target(builder):
    ino = builder.symlink(ROOT, "link", b"x" * 4095)
    assert lower_of(builder).readlink(ino) == b"x" * 4095


def test_what_has_no_contents(builder):
    folder = builder.folder(ROOT, "folder")
    file = builder.file(ROOT, "file")
    lower = lower_of(builder)
    with pytest.raises(OSError, match="regular") as caught:
        lower.open(folder)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="symbolic") as caught:
        lower.readlink(file)
    assert caught.value.errno == errno.EINVAL


def test_contents_have_the_size_that_stat_shows(builder):
    ino = builder.file(ROOT, "file", bytes(range(256)) * 5)
    lower = lower_of(builder)
    content = lower.open(ino)
    assert content.size == lower.getattr(ino).size == 1280
    assert bytes(content.read(250, 10)) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])


def test_no_such_object(builder):
    with pytest.raises(DmgError):
        lower_of(builder).getattr(4711)


# -- extended attributes ---------------------------------------------------------------------------------------------------


def test_attributes_have_the_users_prefix(builder):
    ino = builder.file(ROOT, "file", attributes={"com.apple.quarantine": b"q", "x": b""})
    lower = lower_of(builder)
    assert sorted(lower.listxattr(ino)) == [b"user.com.apple.quarantine", b"user.x"]
    assert lower.getxattr(ino, b"user.com.apple.quarantine") == b"q"
    assert lower.getxattr(ino, b"user.x") == b""
    assert lower.getxattr(ino, b"com.apple.quarantine") is None
    assert lower.getxattr(ino, b"user.y") is None
    assert lower.getxattr(ino, b"security.capability") is None
    assert lower.getxattr(ino, b"user.\xff") is None


def test_attributes_as_they_are_or_not_at_all(builder):
    ino = builder.file(ROOT, "file", attributes={"x": b"1"})
    raw, none = lower_of(builder, xattrs="raw"), lower_of(builder, xattrs="none")
    assert raw.listxattr(ino) == [b"x"]
    assert raw.getxattr(ino, b"x") == b"1"
    assert none.listxattr(ino) == ()
    assert none.getxattr(ino, b"user.x") is None


def test_names_of_linux_stay_and_win_over_their_twins(builder):
    values = {"user.x": b"linux", "x": b"mac", "trusted.y": b"t", "security.z": b"s", "system.w": b"w"}
    file = builder.file(ROOT, "file", attributes=values)
    link = builder.symlink(ROOT, "link", b"file")
    builder.attribute(link, "trusted.y", b"t")
    builder.attribute(link, "user.x", b"l")
    lower = lower_of(builder)
    assert sorted(lower.listxattr(file)) == [b"security.z", b"trusted.y", b"user.system.w", b"user.x"]
    assert lower.getxattr(file, b"user.x") == b"linux"
    assert lower.getxattr(file, b"user.user.x") is None
    assert lower.getxattr(file, b"trusted.y") == b"t"
    assert lower.getxattr(file, b"user.trusted.y") is None
    assert lower.getxattr(file, b"system.w") is None
    assert lower.getxattr(file, b"user.system.w") == b"w"
    assert lower.listxattr(link) == [b"trusted.y"]
    assert lower.getxattr(link, b"user.x") is None


def test_flags_and_date_of_creation(builder):
    file = builder.file(ROOT, "file", flags=0x2 | 0x20000)
    plain = builder.file(ROOT, "plain", dates=(0,) * 5)
    lower = lower_of(builder)
    assert lower.getxattr(file, b"user.dmgfs.flags") == b"uchg,schg"
    assert lower.getxattr(file, b"user.dmgfs.created") == b"%d" % (CREATED - EPOCH)
    assert lower.getxattr(plain, b"user.dmgfs.flags") == b"-"
    assert lower.getxattr(plain, b"user.dmgfs.created") is None
    assert lower.listxattr(file) == []
    assert lower_of(builder, xattrs="none").getxattr(file, b"user.dmgfs.flags") is None


def test_the_systems_own_attributes_are_hidden(builder):
    ino = builder.file(ROOT, "file", attributes={"com.apple.system.Security": b"acl"})
    lower = lower_of(builder)
    assert lower.listxattr(ino) == []
    assert lower.getxattr(ino, b"user.com.apple.system.Security") is None


def test_finder_info_without_what_macos_keeps_to_itself(builder):
    info = bytes(range(1, 33))
    ino = builder.file(ROOT, "file", finder=info)
    lower = lower_of(builder)
    assert lower.listxattr(ino) == [b"user.com.apple.FinderInfo"]
    shown = lower.getxattr(ino, b"user.com.apple.FinderInfo")
    assert shown == info[:16] + bytes(8) + info[24:28] + bytes(4)


def test_empty_finder_info_is_none(builder):
    ino = builder.file(ROOT, "file", finder=bytes(16) + b"\1" * 8 + bytes(4) + b"\1" * 4)
    lower = lower_of(builder)
    assert lower.listxattr(ino) == []
    assert lower.getxattr(ino, b"user.com.apple.FinderInfo") is None


def test_resource_fork(builder):
    ino = builder.file(ROOT, "file", b"data", resource=b"fork")
    lower = lower_of(builder)
    assert lower.listxattr(ino) == [b"user.com.apple.ResourceFork"]
    assert lower.getxattr(ino, b"user.com.apple.ResourceFork") == b"fork"
    assert lower.getattr(ino).size == 4


def test_a_value_beyond_linux_is_not_listed_and_too_big(builder):
    ino = builder.file(ROOT, "file", resource=bytes((64 << 10) + 1))
    exact = builder.file(ROOT, "exact", resource=bytes(64 << 10))
    lower = lower_of(builder)
    assert lower.listxattr(ino) == []
    with pytest.raises(OSError, match="64 KiB") as caught:
        lower.getxattr(ino, b"user.com.apple.ResourceFork")
    assert caught.value.errno == errno.E2BIG
    assert lower.listxattr(exact) == [b"user.com.apple.ResourceFork"]


def test_a_name_beyond_linux_is_not_listed(builder):
    ino = builder.file(ROOT, "file", attributes={"\u4e00" * 127: b"1", "a\0b": b"2", "ok": b"3"})
    assert lower_of(builder).listxattr(ino) == [b"user.ok"]


def test_the_list_stays_in_64_kib(builder):
    ino = builder.file(ROOT, "file", attributes={f"{number:0127d}": b"" for number in range(600)})
    names = lower_of(builder).listxattr(ino)
    assert 400 < len(names) < 600
    assert sum(len(name) + 1 for name in names) <= 64 << 10


# -- listing and space ------------------------------------------------------------------------------------------


def test_a_listing_in_parts_is_the_listing(builder):
    for number in range(50):
        builder.file(ROOT, f"file {number}")
    lower = lower_of(builder)
    whole = lower.readdir(ROOT, None, 1000)
    assert whole.next is None
    parts, after = [], None
    while True:
        part = lower.readdir(ROOT, after, 7)
        parts += part.entries
        after = part.next
        if after is None:
            break
    assert parts == list(whole.entries)
    assert all(entry.attr == lower.getattr(entry.ino) for entry in parts)


def test_space_is_that_of_the_volume(builder):
    builder.file(ROOT, "file", bytes(10_000))
    usage = lower_of(builder).statfs()
    assert usage.block_size == builder.block_size
    assert 0 < usage.free_blocks < usage.blocks
    assert usage.files >= 2
