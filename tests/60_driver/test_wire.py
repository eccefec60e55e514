"""The kernel's structures: sizes as in linux/fuse.h, fields where they belong."""

import stat
import struct

from hypothesis import given
from hypothesis import strategies as st

from dmgfs.fuse import wire
from overlay.vfs import Attr

SECOND = 10**9

times = st.integers(-(2**33) * SECOND, 2**36 * SECOND)
attrs = st.builds(
    Attr,
    ino=st.integers(1, 2**60),
    mode=st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR]).map(lambda kind: kind | 0o755),
    nlink=st.integers(0, 2**32 - 1),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    rdev=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**63 - 1),
    blocks=st.integers(0, 2**54),
    atime_ns=times,
    mtime_ns=times,
    ctime_ns=times,
    btime_ns=times,
)


def test_sizes():
    """As sizeof says in C."""
    attr = Attr(2, stat.S_IFDIR, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert wire.IN_HEADER.size == 40
    assert wire.OUT_HEADER.size == 16
    assert len(wire.attr_out(2, attr)) == 104
    assert len(wire.entry_out(2, attr, 0)) == len(wire.ABSENT) == 128
    assert len(wire.direntplus(b"", 2, attr, 0, 1)) == 128 + 24
    assert len(wire.dirent(b"", 2, stat.S_IFDIR, 1)) == 24
    assert wire.OPEN_OUT.size == 16


@given(attrs)
def test_an_attribute_answer_says_what_the_attributes_are(attr):
    body = wire.attr_out(attr.ino, attr)
    ino, size, blocks = struct.unpack_from("=QQQ", body, 16)
    seconds = struct.unpack_from("=qqq", body, 16 + 24)
    rests = struct.unpack_from("=III", body, 16 + 48)
    mode, nlink, uid, gid, rdev, _, flags = struct.unpack_from("=7I", body, 16 + 60)
    assert (ino, size, blocks) == (attr.ino, attr.size, attr.blocks)
    assert [second * SECOND + rest for second, rest in zip(seconds, rests, strict=True)] == [
        attr.atime_ns,
        attr.mtime_ns,
        attr.ctime_ns,
    ]
    assert all(rest < SECOND for rest in rests)
    assert (mode, nlink, uid, gid, rdev, flags) == (attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, 0)


@given(attrs, st.binary(min_size=1, max_size=255))
def test_lines_of_a_listing_are_padded_and_can_be_walked(attr, name):
    for line, head in (
        (wire.direntplus(name, attr.ino, attr, 5, 7), 128),
        (wire.direntplus_bare(name, attr.ino, attr.mode, 7), 128),
        (wire.dirent(name, attr.ino, attr.mode, 7), 0),
    ):
        ino, cookie, length, kind = struct.unpack_from("=QQII", line, head)
        assert (ino, cookie, length, kind << 12) == (attr.ino, 7, len(name), stat.S_IFMT(attr.mode))
        assert line[head + 24 :].rstrip(b"\0") == name.rstrip(b"\0")
        assert len(line) % 8 == 0
        assert len(line) < head + 24 + len(name) + 8


def test_only_a_full_line_names_an_inode_that_the_kernel_counts():
    attr = Attr(9, stat.S_IFREG, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert struct.unpack_from("=Q", wire.direntplus(b"x", 9, attr, 0, 1))[0] == 9
    assert struct.unpack_from("=Q", wire.direntplus_bare(b"x", 9, attr.mode, 1))[0] == 0


def test_notices_have_no_unique_number_and_their_own_length():
    for notice, code in ((wire.inval_inode(7), 2), (wire.inval_entry(7, b"name"), 3)):
        assert wire.OUT_HEADER.unpack_from(notice) == (len(notice), code, 0)
    assert wire.inval_entry(7, b"name").endswith(b"name\0")
