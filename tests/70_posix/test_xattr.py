"""Extended attributes: all namespaces, sizes, flags, and POSIX ACLs that grant and deny."""

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest
from builders.processes import NOBODY, as_user, errno_of
from place import Place


@pytest.mark.parametrize("kind", ["file", "dir"])
@pytest.mark.parametrize("namespace", ["user", "trusted", "security"])
def test_set_get_list_remove(place: Place, kind: str, namespace: str, tick) -> None:
    path = place.make(kind, "x")
    name, before = f"{namespace}.name", os.stat(path)
    present = set(os.listxattr(path))
    tick()
    os.setxattr(path, name, b"value\0with zero")
    assert os.getxattr(path, name) == b"value\0with zero"
    assert set(os.listxattr(path)) - present == {name}
    assert os.stat(path).st_ctime_ns > before.st_ctime_ns
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    os.removexattr(path, name)
    assert errno_of(os.getxattr, path, name) == errno.ENODATA
    assert errno_of(os.removexattr, path, name) == errno.ENODATA
    assert set(os.listxattr(path)) == present


def test_flags(place: Place) -> None:
    path = place.make("file", "x")
    assert errno_of(os.setxattr, path, "user.a", b"1", os.XATTR_REPLACE) == errno.ENODATA
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    assert errno_of(os.setxattr, path, "user.a", b"2", os.XATTR_CREATE) == errno.EEXIST
    assert os.getxattr(path, "user.a") == b"1"
    os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"3"


@pytest.mark.parametrize("size", [0, 1, 255, 4096, 65536])
@pytest.mark.parametrize("namespace", ["user", "security"])
def test_sizes(place: Place, namespace: str, size: int) -> None:
    path = place.make("file", "x")
    value = bytes(n % 251 for n in range(size))
    name = f"{namespace}.size"
    os.setxattr(path, name, value)
    assert os.getxattr(path, name) == value
    assert _get_into(path, name, 0) == size
    assert _get_into(path, name, size + 1) == size
    if size > 1:
        assert errno_of(_get_into, path, name, size - 1) == errno.ERANGE
    assert errno_of(os.setxattr, path, f"{namespace}." + "n" * (255 - len(namespace)), b"") == errno.ERANGE
    os.setxattr(path, f"{namespace}." + "n" * (254 - len(namespace)), b"")


def _get_into(path: Path, name: str, room: int) -> int:
    """What getxattr(2) says about a value with `room` bytes for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.getxattr(os.fsencode(path), name.encode(), ctypes.create_string_buffer(room), room)
    if found < 0:
        raise OSError(ctypes.get_errno(), "getxattr")
    return found


def test_a_write_takes_capabilities_away(place: Place) -> None:
    path = place.write("x", b"data")
    capabilities = struct.pack(
        "<IIIII", 0x02000001, 1 << 10, 0, 0, 0
    )  # cap_net_bind_service, permitted and effective
    os.setxattr(path, "security.capability", capabilities)
    assert os.getxattr(path, "security.capability") == capabilities
    with open(path, "r+b") as file:
        file.write(b"D")
    assert errno_of(os.getxattr, path, "security.capability") == errno.ENODATA


def test_they_follow_the_inode(place: Place) -> None:
    path = place.write("x", b"data")
    os.setxattr(path, "user.a", b"1")
    os.link(path, place / "y")
    os.rename(path, place / "z")
    os.setxattr(place / "z", "user.b", b"2")
    assert os.getxattr(place / "y", "user.b") == b"2"
    with open(place / "z", "r+b") as file:
        file.write(b"D")
    assert os.getxattr(place / "y", "user.a") == b"1"


def test_permission(place: Place) -> None:
    path = place.make("file", "x", 0o644, 1000, 1000)
    assert errno_of(as_user, 1000, 1000, os.setxattr, path, "user.a", b"1") == 0
    assert errno_of(as_user, NOBODY, NOBODY, os.setxattr, path, "user.a", b"2") == errno.EACCES
    assert errno_of(as_user, 1000, 1000, os.setxattr, path, "trusted.a", b"1") == errno.EPERM
    assert errno_of(os.setxattr, place.make("fifo", "fifo"), "user.a", b"1") == errno.EPERM


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
NO_ID = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The kernel's form of an ACL: version 2, then (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


GRANT_NOBODY = acl(
    (USER_OBJ, 6, NO_ID), (USER, 4, NOBODY), (GROUP_OBJ, 0, NO_ID), (MASK, 4, NO_ID), (OTHER, 0, NO_ID)
)


def test_an_acl_grants(place: Place) -> None:
    path = place.write("x", b"secret", 0o600)
    assert errno_of(as_user, NOBODY, NOBODY, open, path, "rb") == errno.EACCES
    os.setxattr(path, "system.posix_acl_access", GRANT_NOBODY)
    assert errno_of(as_user, NOBODY, NOBODY, lambda: open(path, "rb").close()) == 0
    assert errno_of(as_user, 1234, 1234, lambda: open(path, "rb").close()) == errno.EACCES
    assert os.stat(path).st_mode & 0o777 == 0o640  # the group bits show the mask
    os.chmod(path, 0o600)
    assert errno_of(as_user, NOBODY, NOBODY, lambda: open(path, "rb").close()) == errno.EACCES
    os.removexattr(path, "system.posix_acl_access")
    assert "system.posix_acl_access" not in os.listxattr(path)


def test_an_acl_that_says_no_more_than_the_mode_is_the_mode(place: Place) -> None:
    path = place.make("file", "x", 0o600)
    os.setxattr(path, "system.posix_acl_access", acl((USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 1, NO_ID)))
    assert os.stat(path).st_mode & 0o777 == 0o751
    assert "system.posix_acl_access" not in os.listxattr(path)


def test_default_acls_are_inherited(place: Place) -> None:
    folder = place.make("dir", "d", 0o755)
    default = acl((USER_OBJ, 7, NO_ID), (USER, 6, NOBODY), (GROUP_OBJ, 5, NO_ID), (MASK, 7, NO_ID), (OTHER, 0, NO_ID))
    os.setxattr(folder, "system.posix_acl_default", default)
    # A umask would not count here on tmpfs. Through pyfuse3 the kernel applies it before it asks us (README, limits).
    os.close(os.open(f"{folder}/file", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir(f"{folder}/sub", 0o777)
    assert os.stat(f"{folder}/file").st_mode & 0o777 == 0o660
    assert errno_of(as_user, NOBODY, NOBODY, lambda: open(f"{folder}/file", "r+b").close()) == 0
    assert os.getxattr(f"{folder}/sub", "system.posix_acl_default") == default
    assert os.stat(f"{folder}/sub").st_mode & 0o777 == 0o770
