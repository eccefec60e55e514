"""Operations on names: make, link, remove, rename. Plain functions of a State and Facts that either raise and have
changed nothing, or commit one Change (see `overlay.facts`)."""

import errno
import os
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR, S_ISGID

from overlay import acl, contents
from overlay.attributes import access_list, put_xattr
from overlay.change import Change, Drop, Shut, Target
from overlay.facts import Facts
from overlay.state import NAME_MAX, Found, State, changed, error, touched
from overlay.tree import DIRECTORY, TARGET
from overlay.vfs import Attr, Caller

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
TARGET_MAX = 4095


def _check_new_name(name: bytes) -> None:
    if name in (b".", b".."):
        raise error(errno.EEXIST)
    if not name:
        raise error(errno.ENOENT)
    if len(name) > NAME_MAX:
        raise error(errno.ENAMETOOLONG)
    if b"/" in name or b"\0" in name:
        raise error(errno.EINVAL)


def _living_directory(state: State, facts: Facts, ino: int) -> Attr:
    attr = state.directory_attr(facts, ino)
    if not attr.nlink:
        raise error(errno.ENOENT)
    return attr


def make(
    state: State,
    facts: Facts,
    parent: int,
    name: bytes,
    mode: int,
    caller: Caller,
    rdev: int = 0,
    target: bytes | None = None,
) -> Attr:
    """A new object of the type in `mode`, with the umask and the rules of set-group-id directories applied."""
    state.require_writable()
    _check_new_name(name)
    above = _living_directory(state, facts, parent)
    if state.find(facts, parent, name) is not None:
        raise error(errno.EEXIST)
    if target is not None and len(target) > TARGET_MAX:
        raise error(errno.ENAMETOOLONG)
    kind = S_IFMT(mode) or S_IFREG
    is_directory = kind == S_IFDIR
    gid = caller.gid
    default = access_list(state, parent, acl.DEFAULT) if kind != S_IFLNK else None
    access: list[acl.Rule] = []
    if default is not None:
        access, mode = acl.inherited(acl.parse(default), mode)  # instead of the umask
    elif kind != S_IFLNK:
        mode &= ~caller.umask
    if above.mode & S_ISGID:
        gid = above.gid
        if is_directory:
            mode |= S_ISGID
    now = state.clock()
    ino = state.tree.next_ino
    size = len(target) if target is not None else 0
    attr = Attr(
        ino, kind | mode & 0o7777, 2 if is_directory else 1, caller.uid, gid, rdev, size, 0, now, now, now, now
    )
    change = Change()
    state.put(change, attr, parent if is_directory else 0)
    if target is not None:
        change.weight += TARGET + len(target)
        change.items.append(Target(ino, target))
    if default is not None and not acl.is_plain(access):
        put_xattr(state, change, ino, acl.ACCESS, acl.pack(access))
    if default is not None and is_directory:
        put_xattr(state, change, ino, acl.DEFAULT, default)
    state.put(change, touched(above, now, int(is_directory)))
    state.name(change, parent, state.lower.fold(name), name, ino)
    state.commit(change)
    state.holds.take(ino)
    return attr


def create(state: State, facts: Facts, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Attr:
    """open(O_CREAT): what is there, unless O_EXCL forbids, or a new regular file; opened and held."""
    if not flags & os.O_EXCL:
        state.directory_attr(facts, parent)
        found = state.find(facts, parent, name)
        if found is not None:
            contents.open(state, facts, found.ino, flags)
            state.holds.take(found.ino)
            return state.attr(facts, found.ino)
    attr = make(state, facts, parent, name, S_IFREG | mode & 0o7777, caller)
    contents.open(state, facts, attr.ino, flags & ~os.O_TRUNC)
    return attr


def link(state: State, facts: Facts, ino: int, parent: int, name: bytes) -> Attr:
    state.require_writable()
    _check_new_name(name)
    above = _living_directory(state, facts, parent)
    attr = state.attr(facts, ino)
    if S_ISDIR(attr.mode):
        raise error(errno.EPERM)
    if not attr.nlink:
        raise error(errno.ENOENT)
    if state.find(facts, parent, name) is not None:
        raise error(errno.EEXIST)
    now = state.clock()
    attr = changed(attr, now, links=1)
    change = Change()
    state.put(change, attr)
    state.put(change, touched(above, now))
    state.name(change, parent, state.lower.fold(name), name, ino)
    state.commit(change)
    state.holds.take(ino)
    return attr


def _find_to_remove(state: State, facts: Facts, parent: int, name: bytes) -> tuple[Attr, Found, Attr]:
    """The directory, the entry and the object behind it."""
    state.require_writable()
    above = state.directory_attr(facts, parent)
    found = state.find(facts, parent, name)
    if found is None:
        raise error(errno.ENOENT)
    return above, found, state.attr(facts, found.ino)


def _lose_name(state: State, change: Change, attr: Attr, now: int) -> None:
    """One name less for an object; without any it goes, unless somebody still holds it."""
    if S_ISDIR(attr.mode):
        gone = changed(attr, now, links=-attr.nlink)
    else:
        gone = changed(attr, now, links=-1 if attr.nlink else 0)
    if gone.nlink or state.holds[attr.ino]:
        state.put(change, gone)
        if S_ISDIR(attr.mode):
            change.weight += 0 if state.tree.directory(attr.ino) else DIRECTORY
            change.items.append(Shut(attr.ino))
    elif attr.ino in state.tree.nodes:
        change.items.append(Drop(attr.ino))


def unlink(state: State, facts: Facts, parent: int, name: bytes) -> None:
    above, found, attr = _find_to_remove(state, facts, parent, name)
    if S_ISDIR(attr.mode):
        raise error(errno.EISDIR)
    now = state.clock()
    change = Change(removing=True)
    state.put(change, touched(above, now))
    state.hide(change, parent, found)
    _lose_name(state, change, attr, now)
    state.commit(change)


def rmdir(state: State, facts: Facts, parent: int, name: bytes) -> None:
    if name == b".":
        raise error(errno.EINVAL)
    if name == b"..":
        raise error(errno.ENOTEMPTY)
    above, found, attr = _find_to_remove(state, facts, parent, name)
    if not S_ISDIR(attr.mode):
        raise error(errno.ENOTDIR)
    if not state.is_empty(facts, found.ino):
        raise error(errno.ENOTEMPTY)
    now = state.clock()
    change = Change(removing=True)
    state.put(change, touched(above, now, -1))
    state.hide(change, parent, found)
    _lose_name(state, change, attr, now)
    state.commit(change)


def rename(
    state: State, facts: Facts, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
) -> None:
    state.require_writable()
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise error(errno.EINVAL)
    if name in (b".", b"..") or new_name in (b".", b".."):
        raise error(errno.EBUSY)
    above = state.directory_attr(facts, parent)
    new_above = _living_directory(state, facts, new_parent)
    source = state.find(facts, parent, name)
    if source is None:
        raise error(errno.ENOENT)
    attr = state.attr(facts, source.ino)
    _check_new_name(new_name)
    target = state.find(facts, new_parent, new_name)
    is_directory = S_ISDIR(attr.mode)
    if flags == RENAME_EXCHANGE:
        if target is None:
            raise error(errno.ENOENT)
        _exchange(state, facts, parent, source, attr, new_parent, target)
        return
    same_entry = target is not None and parent == new_parent and target.key == source.key
    if same_entry and new_name != source.name:
        target = None  # another spelling of the name itself
    if target is not None:
        if flags == RENAME_NOREPLACE:
            raise error(errno.EEXIST)
        if target.ino == source.ino:
            return  # two names of one object: POSIX wants nothing to happen
    moves = is_directory and parent != new_parent
    if is_directory and state.is_inside(facts, new_parent, source.ino):
        raise error(errno.EINVAL)
    replaced: Attr | None = None
    if target is not None:
        replaced = state.attr(facts, target.ino)
        if is_directory and not S_ISDIR(replaced.mode):
            raise error(errno.ENOTDIR)
        if S_ISDIR(replaced.mode):
            if not is_directory:
                raise error(errno.EISDIR)
            if not state.is_empty(facts, target.ino):
                raise error(errno.ENOTEMPTY)

    now = state.clock()
    change = Change(removing=replaced is not None)
    lost = int(replaced is not None and S_ISDIR(replaced.mode))
    if parent == new_parent:
        state.put(change, touched(above, now, -lost))
    else:
        state.put(change, touched(above, now, -int(is_directory)))
        state.put(change, touched(new_above, now, int(is_directory) - lost))
    state.put(change, changed(attr, now), new_parent if moves else 0)
    state.hide(change, parent, source)
    if target is not None and replaced is not None:
        if not target.own:
            state.hide(change, new_parent, target)
        _lose_name(state, change, replaced, now)
    state.name(change, new_parent, state.lower.fold(new_name), new_name, source.ino)
    state.commit(change)


def _exchange(
    state: State, facts: Facts, parent: int, source: Found, attr: Attr, new_parent: int, target: Found
) -> None:
    other = state.attr(facts, target.ino)
    if source.ino == target.ino:
        return
    if S_ISDIR(attr.mode) and state.is_inside(facts, new_parent, source.ino):
        raise error(errno.EINVAL)
    if S_ISDIR(other.mode) and state.is_inside(facts, parent, target.ino):
        raise error(errno.EINVAL)
    now = state.clock()
    change = Change()
    across = parent != new_parent
    state.put(change, changed(attr, now), new_parent if across and S_ISDIR(attr.mode) else 0)
    state.put(change, changed(other, now), parent if across and S_ISDIR(other.mode) else 0)
    moved = int(S_ISDIR(attr.mode)) - int(S_ISDIR(other.mode)) if across else 0
    state.put(change, touched(state.attr(facts, parent), now, -moved))
    if across:
        state.put(change, touched(state.attr(facts, new_parent), now, moved))
    for directory, entry, ino in ((parent, source, target.ino), (new_parent, target, source.ino)):
        if not entry.own:
            state.hide(change, directory, entry)
        state.name(change, directory, entry.key, entry.name, ino)
    state.commit(change)
