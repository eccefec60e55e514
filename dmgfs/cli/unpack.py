"""Writing extracted files into a folder.

Rules that hold here:
- nothing is written outside the folder: every step from it downwards is taken by descriptor and refuses links, whether the
  image made them or they were there before;
- a file that could not be read to its end does not stay behind half written;
- a folder gets its mode and dates after everything in it, so they last;
- what the file system below cannot hold (attributes, devices without the right to make them) is said, not passed over.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol

from dmgfs.cli.report import Progress
from dmgfs.cli.tree import Item, Tree
from dmgfs.source import Buffer
from overlay.vfs import Attr, Content

BLOCK = 1 << 20
HOLE = 1 << 15
"""Runs of zeros of this many bytes, aligned, become holes."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sink(Protocol):
    """Where extracted objects go."""

    def __enter__(self) -> "Sink": ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def put(self, item: Item, progress: Progress) -> None:
        """Writes one object; a folder before what it holds. Raises DmgError (it cannot be read), OSError."""
        ...

    def warnings(self) -> list[str]:
        """What was left out, in sentences."""
        ...


class FolderSink:
    """Into the folder `target`, which is made if it is not there. owners: give the files their owners. force: replace
    what is there."""

    def __init__(self, tree: Tree, target: str, *, owners: bool, xattrs: bool, force: bool) -> None:
        os.makedirs(target, exist_ok=True)
        self._tree = tree
        self._owners = owners
        self._xattrs = xattrs
        self._force = force
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._here: tuple[bytes, int] = (b"", os.dup(self._root))
        self._folders: dict[bytes, Item] = {}
        self._links: dict[int, bytes] = {}
        self._lost: dict[str, int] = {}

    def __enter__(self) -> "FolderSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for path, item in reversed(self._folders.items()):
                    self._finish_folder(path, item)
        finally:
            os.close(self._here[1])
            os.close(self._root)

    def warnings(self) -> list[str]:
        return [f"not extracted: {what}: {count}" for what, count in self._lost.items()]

    def put(self, item: Item, progress: Progress) -> None:
        if not item.path or item.path in self._folders:
            return
        parent, _, name = item.path.rpartition(b"/")
        folder = self._enter(parent)
        mode = item.attr.mode
        if stat.S_ISDIR(mode):
            self._make_folder(name, folder)
            self._folders[item.path] = item
            return
        first = self._links.get(item.ino)
        if self._force:
            _remove(name, folder)
        if first is not None:
            self._link(first, name, folder)
        elif stat.S_ISREG(mode):
            self._file(item, name, folder, progress)
        elif stat.S_ISLNK(mode):
            os.symlink(self._tree.lower.readlink(item.ino), name, dir_fd=folder)
            self._finish_name(item.attr, name, folder)
        else:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, item.attr.rdev, dir_fd=folder)
            self._finish_name(item.attr, name, folder)
        if item.attr.nlink > 1:
            self._links.setdefault(item.ino, item.path)

    # -- folders -------------------------------------------------------------------------------------------------------

    def _enter(self, path: bytes) -> int:
        """A descriptor of the folder at `path` below the target, valid until the next call."""
        if self._here[0] != path:
            folder = self._open(path)
            os.close(self._here[1])
            self._here = (path, folder)
        return self._here[1]

    def _open(self, path: bytes) -> int:
        folder = os.dup(self._root)
        try:
            for part in path.split(b"/") if path else ():
                below = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _make_folder(self, name: bytes, parent: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            # A folder that is there is filled; a link to one is not.
            os.close(os.open(name, _FOLDER, dir_fd=parent))

    def _finish_folder(self, path: bytes, item: Item) -> None:
        folder = self._open(path)
        try:
            self._finish(item, folder)
        finally:
            os.close(folder)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _file(self, item: Item, name: bytes, folder: int, progress: Progress) -> None:
        content = self._tree.lower.open(item.ino)
        file = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            try:
                for offset, block in blocks(content):
                    write_sparse(file, offset, block)
                    progress.advance(len(block), item.path)
                os.ftruncate(file, content.size)
                self._finish(item, file)
            finally:
                os.close(file)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise

    def _link(self, first: bytes, name: bytes, folder: int) -> None:
        parent, _, old = first.rpartition(b"/")
        source = self._open(parent)
        try:
            os.link(old, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    # -- attributes ----------------------------------------------------------------------------------------------------

    def _finish(self, item: Item, descriptor: int) -> None:
        """Attributes, owner, mode and dates of a file or folder, in the order in which they do not undo one another."""
        attr = item.attr
        if self._xattrs:
            self._set_xattrs(item, descriptor)
        if self._owners:
            self._attempt("owners", lambda: os.fchown(descriptor, attr.uid, attr.gid))
        self._attempt("modes", lambda: os.fchmod(descriptor, self._mode(attr)))
        self._attempt("dates", lambda: os.utime(descriptor, ns=(attr.atime_ns, attr.mtime_ns)))

    def _finish_name(self, attr: Attr, name: bytes, folder: int) -> None:
        """The same for what cannot be opened: links, devices, pipes."""
        times = (attr.atime_ns, attr.mtime_ns)
        if self._owners:
            self._attempt("owners", lambda: os.chown(name, attr.uid, attr.gid, dir_fd=folder, follow_symlinks=False))
        if not stat.S_ISLNK(attr.mode):
            # mknod made the name a moment ago and fails where there is one, so it is no link.
            self._attempt("modes", lambda: os.chmod(name, self._mode(attr), dir_fd=folder))
        self._attempt("dates", lambda: os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False))

    def _attempt(self, what: str, change: Callable[[], None]) -> None:
        """What the target's file system has no room for is no reason to give up the contents."""
        try:
            change()
        except OSError as error:
            self._lose(f"{what} that the target refused ({error.strerror})")

    def _mode(self, attr: Attr) -> int:
        """Without its owner a file must not run as somebody else."""
        return stat.S_IMODE(attr.mode) & (0o7777 if self._owners else 0o1777)

    def _set_xattrs(self, item: Item, descriptor: int) -> None:
        lower = self._tree.lower
        for name in lower.listxattr(item.ino):
            value = lower.getxattr(item.ino, name)
            if value is None:
                continue
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.ENOSPC, errno.ERANGE, errno.E2BIG, errno.EPERM):
                    raise
                self._lose(f"extended attributes that the target refused ({error.strerror})")
        if stat.S_ISREG(item.attr.mode) and self._tree.resource_is_large(item.ino):
            self._lose(
                "resource forks over 64 KiB, which are no attributes (`dmgfs cat IMAGE FILE/..namedfork/rsrc` has them)"
            )

    def _lose(self, what: str) -> None:
        self._lost[what] = self._lost.get(what, 0) + 1


def blocks(content: Content) -> Iterator[tuple[int, Buffer]]:
    """(offset, bytes) over the whole content."""
    for offset in range(0, content.size, BLOCK):
        yield offset, content.read(offset, min(BLOCK, content.size - offset))


def write_sparse(file: int, offset: int, block: Buffer) -> None:
    """Writes the block, leaving holes where it is zero."""
    view = memoryview(block)
    start = 0
    for end in range(HOLE, len(view) + HOLE, HOLE):
        piece = view[end - HOLE : end]
        if any(piece):
            continue
        _pwrite(file, view[start : end - HOLE], offset + start)
        start = min(end, len(view))
    _pwrite(file, view[start:], offset + start)


def _pwrite(file: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(file, data, offset)
        data = data[done:]
        offset += done


def _remove(name: bytes, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
