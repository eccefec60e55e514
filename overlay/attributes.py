"""Operations on attributes and extended attributes. Plain functions of a State and Facts (see `overlay.facts`)."""

import errno
from stat import S_ISDIR, S_ISGID, S_ISLNK

from overlay import acl
from overlay.change import Change, Xattr
from overlay.contents import cleared_setid, truncate
from overlay.facts import Facts
from overlay.state import NAME_MAX, State, changed, error
from overlay.tree import XATTR, XATTRS
from overlay.vfs import Ask, Attr, Caller, Steps

XATTR_CREATE = 1
XATTR_REPLACE = 2
XATTR_VALUE_MAX = 65536


def setattr(
    state: State,
    facts: Facts,
    ino: int,
    *,
    mode: int | None,
    uid: int | None,
    gid: int | None,
    size: int | None,
    atime_ns: int | None,
    mtime_ns: int | None,
    now: bool,
) -> Attr:
    state.require_writable()
    attr = state.attr(facts, ino)
    time = state.clock()
    change = Change(removing=size is not None and size < attr.size)
    new_mode = attr.mode
    blocks = attr.blocks
    modified = attr.mtime_ns
    access: bytes | None = None
    if size is not None:
        blocks = truncate(state, attr, size, change)
        modified = time
    if mode is not None:
        new_mode = (attr.mode & ~0o7777) | (mode & 0o7777)
        access = access_list(state, ino, acl.ACCESS)
    elif (uid is not None or gid is not None) and not S_ISDIR(attr.mode):
        new_mode = cleared_setid(attr.mode)
    if mtime_ns is not None:
        modified = time if now else mtime_ns
    accessed = attr.atime_ns
    if atime_ns is not None:
        accessed = time if now else atime_ns
    attr = Attr(
        ino,
        new_mode,
        attr.nlink,
        attr.uid if uid is None else uid,
        attr.gid if gid is None else gid,
        attr.rdev,
        attr.size if size is None else size,
        blocks,
        accessed,
        modified,
        time,
        attr.btime_ns,
    )
    state.put(change, attr)
    if access is not None and mode is not None:
        put_xattr(state, change, ino, acl.ACCESS, acl.pack(acl.after_chmod(acl.parse(access), mode)))
    state.commit(change)
    return attr


def readlink(state: State, facts: Facts, ino: int) -> bytes:
    if not S_ISLNK(state.attr(facts, ino).mode):
        raise error(errno.EINVAL)
    node = state.tree.nodes.get(ino)
    if node is not None and isinstance(node.body, bytes):
        return node.body
    return facts.readlink(ino)


# -- extended attributes -----------------------------------------------------------------------------------------------


def access_list(state: State, ino: int, name: bytes) -> bytes | None:
    """An access control list (`acl.ACCESS`, `acl.DEFAULT`). Only overlays have them, so no operation has to wait."""
    node = state.tree.nodes.get(ino)
    if node is not None and node.xattrs is not None and name in node.xattrs:
        return node.xattrs[name]
    return state.lower.access_list(ino, name) if state.is_lower(ino) else None


def find_value(state: State, facts: Facts, ino: int, name: bytes) -> bytes | None:
    if name in acl.NAMES:
        return access_list(state, ino, name)
    node = state.tree.nodes.get(ino)
    if node is not None and node.xattrs is not None and name in node.xattrs:
        return node.xattrs[name]
    return facts.getxattr(ino, name) if state.is_lower(ino) else None


def getxattr(state: State, ino: int, name: bytes) -> Steps[bytes]:
    """Steps of its own: Linux asks for a file's capabilities at every write and exec, and there are none nearly always."""
    if name not in acl.NAMES and ino not in state.tree.nodes and state.is_lower(ino):
        below: bytes | None = yield Ask(state.lower.getxattr, (ino, name))
        if ino not in state.tree.nodes:
            if below is None:
                raise error(errno.ENODATA)
            return below
    return (yield from state.steps(_getxattr, ino, name))


def _getxattr(state: State, facts: Facts, ino: int, name: bytes) -> bytes:
    value = find_value(state, facts, ino, name)
    if value is None:
        if not state.is_lower(ino) and ino not in state.tree.nodes:
            raise error(errno.ESTALE)
        raise error(errno.ENODATA)
    return value


def listxattr(state: State, facts: Facts, ino: int) -> list[bytes]:
    node = state.tree.nodes.get(ino)
    ours = (node.xattrs if node is not None else None) or {}
    names = [name for name in facts.listxattr(ino) if name not in ours] if state.is_lower(ino) else []
    return names + [name for name, value in ours.items() if value is not None]


def setxattr(
    state: State, facts: Facts, ino: int, name: bytes, value: bytes, flags: int, caller: Caller | None
) -> None:
    state.require_writable()
    attr = state.attr(facts, ino)
    if not name or len(name) > NAME_MAX:
        raise error(errno.ERANGE)
    if len(value) > XATTR_VALUE_MAX:
        raise error(errno.E2BIG)
    if flags not in (0, XATTR_CREATE, XATTR_REPLACE):
        raise error(errno.EINVAL)
    if flags:
        exists = find_value(state, facts, ino, name) is not None
        if flags == XATTR_CREATE and exists:
            raise error(errno.EEXIST)
        if flags == XATTR_REPLACE and not exists:
            raise error(errno.ENODATA)
    change = Change()
    if name in acl.NAMES:
        _set_list(state, change, attr, name, value, caller)
    else:
        state.put(change, changed(attr, state.clock()))
        put_xattr(state, change, ino, name, value)
    state.commit(change)


def put_xattr(state: State, change: Change, ino: int, name: bytes, value: bytes) -> None:
    node = state.tree.nodes.get(ino)
    old = node.xattrs.get(name) if node is not None and node.xattrs is not None else None
    change.weight += XATTRS + XATTR + len(name) + len(value) - len(old or b"")
    change.items.append(Xattr(ino, name, value))


def _set_list(state: State, change: Change, attr: Attr, name: bytes, value: bytes, caller: Caller | None) -> None:
    """Permission bits follow an access list; one that says no more than they do is not kept. A caller outside of the
    file's group loses its set-group-id bit (we do not see supplementary groups, so membership in one does not count)."""
    rules = acl.parse(value)
    mode = attr.mode
    if name == acl.DEFAULT:
        if not S_ISDIR(attr.mode):
            raise error(errno.EACCES)
        kept = True
    else:
        kept = not acl.is_plain(rules)
        mode = mode & ~0o777 | acl.bits(rules)
        if caller is not None and caller.uid and caller.gid != attr.gid:
            mode &= ~S_ISGID
    state.put(change, changed(attr, state.clock(), mode=mode))
    if kept:
        put_xattr(state, change, attr.ino, name, value)
    elif access_list(state, attr.ino, name) is not None:
        if state.is_lower(attr.ino):
            change.weight += XATTRS + XATTR + len(name)
        change.items.append(Xattr(attr.ino, name, None))


def removexattr(state: State, facts: Facts, ino: int, name: bytes) -> None:
    state.require_writable()
    attr = state.attr(facts, ino)
    if find_value(state, facts, ino, name) is None:
        raise error(errno.ENODATA)
    change = Change(removing=True)
    state.put(change, changed(attr, state.clock()))
    if state.is_lower(ino):
        change.weight += XATTRS + XATTR + len(name)
    change.items.append(Xattr(ino, name, None))
    state.commit(change)
