"""The FUSE requests, one short method each: translate the arguments, run the overlay's operation, translate the answer.

Rules that hold here:
- no errno is chosen here but by raising OSError; everything raised is turned into an errno by `boundary`;
- FUSE's root is 1, the overlay's is the lower's; all other numbers are the same on both sides;
- the kernel may keep what it is told for ever, because every change goes through it. Except names that have other
  spellings: it keeps each spelling apart, so after `rm README` it would still show `readme`. Such names are asked again
  each time, unless the object is a directory (of which the kernel keeps one name only), or the mount is frozen: nothing can
  change in it before it gets a late shadow. Then the kernel drops what it does not use, and what it does use has
  the one name under which it is listed, so that `thaw` can take that back;
- flush, access and poll stay pyfuse3's: the kernel then answers them itself.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from dmgfs.fuse.driver import Driver
from dmgfs.fuse.handles import Handles
from dmgfs.fuse.prefetch import ReadAhead
from dmgfs.fuse.respelling import Respelling
from overlay import acl
from overlay.overlay import Overlay
from overlay.vfs import FIRST_NEW_INODE, Ask, Attr, Buffer, Entry, Steps

FOREVER = 1e9
"""Seconds; thirty years."""

BATCH = 32
"""Entries asked for at once: about what the kernel's readdir buffer takes."""

BLOCK_SIZE = 4096

PROCESS_ATTRIBUTE = b"user.dmgfs.pid"
"""Unlisted attribute of the root: the daemon's process number. `dmgfs unmount` waits for that process."""


CONTROL_ATTRIBUTE = b"user.dmgfs.control"
"""Unlisted attribute of every object: the name of the daemon's control socket, for root and the daemon's user."""


class DmgOperations(pyfuse3.Operations):
    """`overlay` behind FUSE. frozen: nothing changes in it until `thaw`, so the kernel may keep nearly every answer.
    access_lists: POSIX ACLs are kept and obeyed, for which the kernel asks about every object that another user uses.
    only_spelling: tells of a name whether no other bytes could mean the same. respelling: where names have spellings.
    control: the name of the control socket, for that user."""

    supports_dot_lookup = True
    enable_writeback_cache = False

    def __init__(
        self,
        overlay: Overlay,
        driver: Driver,
        ahead: ReadAhead,
        *,
        frozen: bool,
        access_lists: bool,
        only_spelling: Callable[[bytes], bool],
        control: Callable[[int], bytes],
        respelling: Respelling | None = None,
    ) -> None:
        super().__init__()
        self.enable_acl = access_lists
        self._overlay = overlay
        self._driver = driver
        self._ahead = ahead
        self._frozen = frozen
        self._only_spelling = only_spelling
        self._control = control
        self.respelling = respelling
        self._root = overlay.root
        self.handles = Handles(lambda file: ahead.close(file.streams), overlay.releasedir)

    @property
    def frozen(self) -> bool:
        """Whether nothing can change, as it is now."""
        return self._frozen

    def thaw(self) -> None:
        """From now on things may change. What the kernel was told before is the caller's business."""
        self._frozen = False

    # -- translation -----------------------------------------------------------------------------------------------------

    def _ino(self, inode: InodeT) -> int:
        return self._root if inode == pyfuse3.ROOT_INODE else inode

    def _attributes(self, attr: Attr) -> EntryAttributes:
        answer = EntryAttributes()
        answer.st_ino = pyfuse3.ROOT_INODE if attr.ino == self._root else attr.ino
        answer.st_mode = attr.mode
        answer.st_nlink = attr.nlink
        answer.st_uid = attr.uid
        answer.st_gid = attr.gid
        answer.st_rdev = attr.rdev
        answer.st_size = attr.size
        answer.st_blksize = BLOCK_SIZE
        answer.st_blocks = attr.blocks
        answer.st_atime_ns = attr.atime_ns
        answer.st_mtime_ns = attr.mtime_ns
        answer.st_ctime_ns = attr.ctime_ns
        answer.attr_timeout = FOREVER
        return answer

    def _entry(self, name: bytes, attr: Attr, listed: bytes | None = None) -> EntryAttributes:
        """listed: the name that readdir shows for what was asked as `name`."""
        answer = self._attributes(attr)
        answer.entry_timeout = FOREVER if self.is_lasting(name, attr, listed) else 0
        return answer

    def is_lasting(self, name: bytes, attr: Attr, listed: bytes | None = None) -> bool:
        """Whether the kernel may keep what it was told of `name`."""
        frozen = self._frozen and attr.nlink == 1 and listed in (name, None)
        return frozen or stat.S_ISDIR(attr.mode) or self._only_spelling(name)

    def is_lasting_absence(self, name: bytes) -> bool:
        """Whether the kernel may remember that there is no such name."""
        return self._frozen or self._only_spelling(name)

    def unless_respelled(self, entry: Entry, parent: int, name: bytes, thread: int) -> Steps[Entry]:
        """For a name that is not spelled as `entry`, which it found, is listed: the entry, held; FileNotFoundError if the
        thread is about to spell it so."""
        respelling = self.respelling
        if respelling is None or self._frozen or name in (b".", b"..") or not respelling.may_be(thread):
            return entry
        self._overlay.forget(entry.ino)
        if (yield Ask(respelling.is_target, (thread, name), slow=True)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return (yield from self._overlay.lookup(parent, name))

    def _damaged(self, ino: int, kind: int) -> EntryAttributes:
        """A name whose object cannot be had: listed, and asked about again, which then fails."""
        answer = EntryAttributes()
        answer.st_ino = ino
        answer.st_mode = kind or stat.S_IFREG
        answer.entry_timeout = answer.attr_timeout = 0
        return answer

    def _handle(self, ino: int) -> FileInfo:
        return FileInfo(fh=self.handles.open(ino), keep_cache=True)

    # -- finding and attributes ----------------------------------------------------------------------------------------

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if name == b".":
            return await self._again(parent_inode)
        try:
            parent = self._ino(parent_inode)
            entry = await self._driver.run(self._overlay.lookup(parent, name))
            if entry.name != name and self.respelling is not None:
                entry = await self._driver.run(self.unless_respelled(entry, parent, name, ctx.pid))
        except FileNotFoundError:
            if not self.is_lasting_absence(name):
                raise
            absent = EntryAttributes()  # inode 0: there is no such name, and the kernel may remember that
            absent.entry_timeout = FOREVER
            return absent
        if name == b"..":
            self._overlay.hold(entry.ino)  # not held by the look-up, and counted by the kernel
        if entry.attr is not None:
            return self._entry(name, entry.attr, entry.name)
        try:
            return self._entry(name, await self._driver.run(self._overlay.getattr(entry.ino)), entry.name)
        except BaseException:
            self._overlay.forget(entry.ino)
            raise

    async def _again(self, inode: InodeT) -> EntryAttributes:
        """An object of any type that the kernel had forgotten, by the number in a file handle (NFS, open_by_handle_at).
        Where things can be removed, nobody remembers of an object of the image whether it was: its handle is stale."""
        ino = self._ino(inode)
        attr = await self._driver.run(self._overlay.getattr(ino))
        forgotten = ino != self._root and self._overlay.is_lower(ino) and not await self._is_known(ino)
        if forgotten or attr.nlink == 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        self._overlay.hold(ino)
        return self._entry(b".", attr)

    async def _is_known(self, ino: int) -> bool:
        """Whether an object from below that nobody holds is certainly still there. Read-only layers may have removed it;
        of one with several names they do not say."""
        if not self._frozen:
            return False
        lower = self._overlay.lower
        return lower.end_ino == FIRST_NEW_INODE or await self._driver.ask(lower.place, ino) is not None

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for inode, count in inode_list:
            self._overlay.forget(self._ino(inode), count)

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(await self._driver.run(self._overlay.getattr(self._ino(inode))))

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        steps = self._overlay.setattr(
            self._ino(inode),
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._attributes(await self._driver.run(steps))

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return await self._driver.run(self._overlay.readlink(self._ino(inode)))

    # -- names -----------------------------------------------------------------------------------------------------------

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        steps = self._overlay.mknod(self._ino(parent_inode), name, mode, rdev, ctx)
        return self._entry(name, await self._driver.run(steps))

    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        steps = self._overlay.mkdir(self._ino(parent_inode), name, mode, ctx)
        return self._entry(name, await self._driver.run(steps))

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        steps = self._overlay.symlink(self._ino(parent_inode), name, target, ctx)
        return self._entry(name, await self._driver.run(steps))

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        steps = self._overlay.link(self._ino(inode), self._ino(new_parent_inode), new_name)
        return self._entry(new_name, await self._driver.run(steps))

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._driver.run(self._overlay.unlink(self._ino(parent_inode), name))

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._driver.run(self._overlay.rmdir(self._ino(parent_inode), name))

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        parents = self._ino(parent_inode_old), self._ino(parent_inode_new)
        await self._driver.run(self._overlay.rename(parents[0], name_old, parents[1], name_new, flags))

    # -- directories -----------------------------------------------------------------------------------------------------

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return await self._driver.run(self._overlay.opendir(self._ino(inode)))

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        while entries := await self._driver.run(self._overlay.readdir(fh, start_id, BATCH)):
            for entry in entries:
                if entry.attr is None:
                    attributes = self._damaged(entry.ino, entry.type)
                else:
                    attributes = self._entry(entry.name, entry.attr)
                if not pyfuse3.readdir_reply(token, entry.name, attributes, entry.next):
                    return
                if entry.name not in (b".", b".."):
                    self._overlay.hold(entry.ino)
            start_id = entries[-1].next

    async def releasedir(self, fh: FileHandleT) -> None:
        self._overlay.releasedir(fh)

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._driver.run(self._overlay.fsync())

    # -- contents ----------------------------------------------------------------------------------------------------

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        ino = self._ino(inode)
        await self._driver.run(self._overlay.open(ino, flags))
        return self._handle(ino)

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        attr = await self._driver.run(self._overlay.create(self._ino(parent_inode), name, mode, flags, ctx))
        return self._handle(attr.ino), self._entry(name, attr)

    async def read(self, fh: FileHandleT, off: int, size: int) -> Buffer:  # type: ignore[override]  # any buffer will do
        file = self.handles.file(fh, 0)
        content = self._overlay.plain(file.ino)
        if content is None:
            return await self._driver.run(self._overlay.read(file.ino, off, size))
        length = min(size, content.size - off)
        if length <= 0:
            return b""
        self._ahead.note(file.streams, content, off, length)
        return await self._driver.ask(content.read, off, length)

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._driver.run(self._overlay.write(self.handles.file(fh, 0).ino, off, buf))

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._driver.run(self._overlay.fsync())

    async def release(self, fh: FileHandleT) -> None:
        self._overlay.release(self.handles.close(fh).ino)

    # -- extended attributes ---------------------------------------------------------------------------------------------

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[pyfuse3.XAttrNameT]:
        return await self._driver.run(self._overlay.listxattr(self._ino(inode)))

    async def getxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> bytes:
        self._refuse_list(name)
        if name == PROCESS_ATTRIBUTE and inode == pyfuse3.ROOT_INODE:
            return b"%d" % os.getpid()
        if name == CONTROL_ATTRIBUTE:
            return self._control(ctx.uid)
        return await self._driver.run(self._overlay.getxattr(self._ino(inode), name))

    async def setxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        self._refuse_list(name)
        await self._driver.run(self._overlay.setxattr(self._ino(inode), name, value, caller=ctx))

    async def removexattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> None:
        self._refuse_list(name)
        await self._driver.run(self._overlay.removexattr(self._ino(inode), name))

    def _refuse_list(self, name: bytes) -> None:
        """Without `acl` access control lists would be stored and not obeyed, so there are none."""
        if name.startswith(b"system.") and not (self.enable_acl and name in acl.NAMES):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    # -- space -----------------------------------------------------------------------------------------------------------

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        usage = await self._driver.run(self._overlay.statfs())
        answer = StatvfsData()
        answer.f_bsize = answer.f_frsize = usage.block_size
        answer.f_blocks = usage.blocks
        answer.f_bfree = answer.f_bavail = usage.free_blocks
        answer.f_files = usage.files
        answer.f_ffree = answer.f_favail = usage.free_files
        answer.f_namemax = usage.name_max
        return answer
