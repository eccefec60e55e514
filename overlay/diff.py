"""What differs between the lower and the overlay, in the words of `git status`.

    added      a new object, or one more name of an old one
    deleted    a name of the lower that is gone; of a directory that is gone, the directory alone
    renamed    an object of the lower under another name (`source`: the old one)
    changed    content is not the lower's, or another object has the name
    metadata   mode, owner, times or attributes differ, content does not

One line per name, in the order of the directories' paths. A directory is not listed for changes inside of it.
"""

from collections.abc import Iterator
from stat import S_IFDIR, S_IFMT, S_ISDIR
from typing import NamedTuple

from overlay.survey import Name, Survey, join
from overlay.tree import Directory, File, Node
from overlay.vfs import Attr


class Difference(NamedTuple):
    """path: now; of what is deleted, that in the lower. source: of what is renamed, its path in the lower. what: which
    parts differ, of "content", "replaced", "link", "mode", "owner", "times", "xattrs"."""

    kind: str
    path: bytes
    ino: int
    type: int
    source: bytes | None
    what: tuple[str, ...]


def differences(survey: Survey) -> Iterator[Difference]:
    """Raises what the lower raises."""
    lines: dict[int, list[Difference]] = {}  # by directory
    lost: dict[int, list[tuple[int, bytes]]] = {}
    removed: dict[tuple[int, bytes], tuple[int, int]] = {}
    own: list[Name] = []
    for ino, node in survey.living():
        if isinstance(node.body, Directory):
            if survey.path(ino) is None:
                continue
            for entry in survey.hidden(ino):
                lost.setdefault(entry.ino, []).append((ino, entry.name))
                removed[ino, entry.name] = entry.ino, entry.type
            own += [Name(ino, one.name, one.ino, True) for one in node.body.added.values()]
        parts = _parts(survey, ino, node) if survey.state.is_lower(ino) else ()
        if parts and ino == survey.lower.root:
            lines.setdefault(ino, []).append(Difference("metadata", b"", ino, S_IFDIR, None, parts))
        for name in survey.names(ino) if parts else ():
            if not name.own:
                _add(survey, lines, name, "changed" if "content" in parts else "metadata", None, parts)
    for name in own:
        _own_name(survey, lines, lost, removed, name)
    for (parent, spelling), (ino, kind) in removed.items():
        path = survey.lower_path(parent, spelling)
        lines.setdefault(parent, []).append(Difference("deleted", path, ino, kind, None, ()))
    for directory in sorted(lines, key=lambda ino: survey.path(ino) or b""):
        yield from sorted(lines[directory], key=lambda line: line.path)


def _own_name(
    survey: Survey,
    lines: dict[int, list[Difference]],
    lost: dict[int, list[tuple[int, bytes]]],
    removed: dict[tuple[int, bytes], tuple[int, int]],
    name: Name,
) -> None:
    """The line for an entry of the overlay: takes what it explains out of `removed`."""
    node = survey.tree.nodes.get(name.ino)
    covered = removed.get((name.parent, name.name))
    parts = _parts(survey, name.ino, node) if node is not None and survey.state.is_lower(name.ino) else ()
    if covered is not None and covered[0] == name.ino:  # back where it was
        del removed[name.parent, name.name]
        if parts:
            _add(survey, lines, name, "changed" if "content" in parts else "metadata", None, parts)
        return
    source = _source(survey, lost, removed, name.ino)
    if source is not None:
        removed.pop(source, None)
        if covered is not None:
            removed.pop((name.parent, name.name), None)
            parts = ("replaced", *parts)
        _add(survey, lines, name, "renamed", survey.lower_path(*source), parts)
    elif covered is not None:
        del removed[name.parent, name.name]
        _add(survey, lines, name, "changed", None, ("replaced",))
    else:
        _add(survey, lines, name, "added", None, ("link", *parts) if survey.state.is_lower(name.ino) else ())


def _source(
    survey: Survey,
    lost: dict[int, list[tuple[int, bytes]]],
    removed: dict[tuple[int, bytes], tuple[int, int]],
    ino: int,
) -> tuple[int, bytes] | None:
    """The name that the lower has for an object and that does not show any more: it was renamed from there."""
    if not survey.state.is_lower(ino):
        return None
    while lost.get(ino):
        place = lost[ino].pop()
        if place in removed:
            return place
    places = survey.lower_names(ino)
    if len(places) == 1 and survey.path(places[0][0]) is None:
        return places[0]
    return None


def _add(
    survey: Survey,
    lines: dict[int, list[Difference]],
    name: Name,
    kind: str,
    source: bytes | None,
    parts: tuple[str, ...],
) -> None:
    path = join(survey.path(name.parent) or b"", name.name)
    mode = survey.attr(name.ino).mode
    lines.setdefault(name.parent, []).append(Difference(kind, path, name.ino, S_IFMT(mode), source, parts))


def _parts(survey: Survey, ino: int, node: Node) -> tuple[str, ...]:
    """In what an object of the lower differs from what it was. Times of directories follow from what is in them, and a
    change time alone is no difference."""
    old: Attr = survey.lower.getattr(ino)
    new = node.attr
    parts = []
    if isinstance(node.body, File):
        parts.append("content")
    if new.mode != old.mode:
        parts.append("mode")
    if (new.uid, new.gid) != (old.uid, old.gid):
        parts.append("owner")
    if not S_ISDIR(new.mode) and (new.mtime_ns, new.atime_ns) != (old.mtime_ns, old.atime_ns):
        parts.append("times")
    if any(survey.lower.getxattr(ino, name) != value for name, value in (node.xattrs or {}).items()):
        parts.append("xattrs")
    return tuple(parts)
