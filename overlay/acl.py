"""POSIX access control lists as arithmetic: how a list and a file's permission bits follow each other, and what a new
object inherits. Lists have the form of the kernel's extended attributes (version 2, then tag, permissions and id of each
entry, little-endian; linux/posix_acl_xattr.h). Enforcing them is the kernel's work.

Rules that hold here: bytes in, bytes out, nothing is stored; a list that makes no sense is OSError(EINVAL).
"""

import errno
import os
import struct
from typing import Final, NamedTuple

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
NAMES: Final = frozenset((ACCESS, DEFAULT))

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_SHIFT: Final = {USER_OBJ: 6, GROUP_OBJ: 3, MASK: 3, OTHER: 0}


class Rule(NamedTuple):
    """One entry of a list: for whom, rwx bits, and the user or group where the tag says one."""

    tag: int
    permissions: int
    id: int


def parse(value: bytes) -> list[Rule]:
    """The entries. Each of owner, group and others exactly once, a mask at most once and always with named entries."""
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        raise _invalid()
    if _VERSION.unpack_from(value)[0] != 2:
        raise _invalid()
    rules = [Rule(*row) for row in _ENTRY.iter_unpack(value[_VERSION.size :])]
    tags = [rule.tag for rule in rules]
    named = tags.count(USER) + tags.count(GROUP)
    if any(tags.count(tag) != 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)):
        raise _invalid()
    if tags.count(MASK) > 1 or (named and MASK not in tags) or len(tags) != 3 + named + tags.count(MASK):
        raise _invalid()
    if any(rule.permissions > 7 for rule in rules):
        raise _invalid()
    return rules


def pack(rules: list[Rule]) -> bytes:
    return _VERSION.pack(2) + b"".join(_ENTRY.pack(*rule) for rule in rules)


def is_plain(rules: list[Rule]) -> bool:
    """Whether permission bits say all of it."""
    return len(rules) == 3


def bits(rules: list[Rule]) -> int:
    """The permission bits that go with a list: the group's show the mask where there is one."""
    mode = 0
    masked = any(rule.tag == MASK for rule in rules)
    for rule in rules:
        if rule.tag in _SHIFT and not (masked and rule.tag == GROUP_OBJ):
            mode |= rule.permissions << _SHIFT[rule.tag]
    return mode


def after_chmod(rules: list[Rule], mode: int) -> list[Rule]:
    """The list after chmod: owner, others, and the mask (without one the group) follow the bits."""
    masked = any(rule.tag == MASK for rule in rules)
    return [
        rule._replace(permissions=mode >> _SHIFT[rule.tag] & 7)
        if rule.tag in _SHIFT and not (masked and rule.tag == GROUP_OBJ)
        else rule
        for rule in rules
    ]


def inherited(default: list[Rule], mode: int) -> tuple[list[Rule], int]:
    """List and permission bits of a new object in a directory with this default list: what the list and `mode` both
    allow."""
    masked = any(rule.tag == MASK for rule in default)
    rules = [
        rule._replace(permissions=rule.permissions & mode >> _SHIFT[rule.tag])
        if rule.tag in _SHIFT and not (masked and rule.tag == GROUP_OBJ)
        else rule
        for rule in default
    ]
    return rules, mode & ~0o777 | bits(rules)


def _invalid() -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))
