"""The store in a file: dmgfs's own format, **not Apple's shadow format**. It survives unmounting, crashes and power cuts.

The file is slots of 4096 bytes: two superblocks, then pages and segments of the log in any order. We measured SQLite
against a log of our own before choosing: the log takes 1.2 µs of CPU per small operation where SQLite (WAL) takes 27 to
32, and a third of the time for 1 MiB.

Rules that hold here:
- a slot that a durable record refers to is never written: new bytes go to new slots, then one record says so. A slot that
  was freed is used again after a sync only, or at once if it was both filled and freed since the last one began;
- every operation is one record. After a crash the records up to the first bad one count, and of those not known to be
  synced only as many as have their pages' checksums right: so the state is always that after some operation, and never
  older than the last sync;
- a checkpoint writes the whole tree as a new log and then the other superblock, waiting for nothing: until the next sync
  the old log stays, and a new one that did not make it to the medium whole does not count;
- when the medium fails a sync, nothing it holds is known any more: the store refuses changes from then on;
- room for the log is reserved ahead, so that what frees space never fails for want of it.
"""

import errno
import os
import secrets
import zlib
from array import array
from collections.abc import Callable, Sequence

from overlay.change import Change, Drop, Fill, Patch, Place
from overlay.disk import Disk, FileDisk
from overlay.errors import NotAShadow, ShadowBase
from overlay.log import CHANGE, SEGMENT_MAX, START, STARTED, SYNCED, Log, Segment
from overlay.pages import HOLE, PAGE, PageMap, Run, is_stored
from overlay.records import Placed, encode, encode_placed
from overlay.recovery import COUNT, FIRST_SLOT, dump, recover
from overlay.slots import Extent, Slots
from overlay.store import Sync
from overlay.superblock import Base, Superblock, decode_superblock, encode_base, encode_superblock
from overlay.tree import Tree
from overlay.vfs import Buffer

SEGMENT_SLOTS = 64
MARGIN = 8
"""Free slots that only changes which free something may take."""

_CHECKPOINT_MIN = 4 << 20
_GROW_MIN = 256
_GROW_MAX = 16384
_FIRST_SIZE = (FIRST_SLOT + 2 * SEGMENT_SLOTS) * PAGE
_CHANGE = bytes([CHANGE])
_EMPTY = PageMap()


class FileStore:
    """A store on `disk`. budget: bytes that the file may take, None for what the medium has. base: what identifies the
    image; another one than the file's raises ShadowBase unless `force_base`. recycle: begin afresh. Raises ShadowError."""

    def __init__(
        self,
        disk: Disk,
        base: Base,
        *,
        budget: int | None = None,
        read_only: bool = False,
        force_base: bool = False,
        recycle: bool = False,
        preallocate: int = 0,
    ) -> None:
        encode_base(base)
        self._disk = disk
        self._base = base
        self._budget = budget
        self._read_only = read_only
        self._preallocate = preallocate
        self._tree = Tree()
        self._slots = Slots()
        self._sums = array("I")  # by slot: CRC-32 of what it holds
        self._born = array("I")  # by slot: epoch in which it was filled
        self._epoch = 1  # of what is committed now; beginning a sync begins the next
        self._durable = 0  # everything up to this epoch is on the medium
        self._dirty = False
        self._pending: list[tuple[int, Run]] = []  # freed in that epoch, not to be used again before it is durable
        self._begun: dict[int, tuple[Log, int]] = {}  # syncs under way: log and its records when they began
        self._failed = False
        self._spare: Segment | None = None
        self._dump_size = 0
        self._lonely = 0  # epoch of a checkpoint whose superblock has no copy yet
        self._place = 0  # which of the two superblocks is ours
        self._log: Log
        self._superblock = Superblock(0, 0, 0, 0, base)
        self._found = self._open(force_base, recycle)

    @classmethod
    def open_file(
        cls,
        path: str | os.PathLike[str],
        base: Base,
        *,
        budget: int | None = None,
        read_only: bool = False,
        force_base: bool = False,
        recycle: bool = False,
        preallocate: int = 0,
    ) -> "FileStore":
        """The shadow file at `path`, made if there is none (not if `read_only`). Raises ShadowError, OSError."""
        disk = FileDisk(path, create=not read_only, read_only=read_only)
        try:
            return cls(
                disk,
                base,
                budget=budget,
                read_only=read_only,
                force_base=force_base,
                recycle=recycle,
                preallocate=preallocate,
            )
        except BaseException:
            disk.close()
            raise

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open(self, force_base: bool, recycle: bool) -> list[tuple[int, Superblock]]:
        """The superblocks and their places, the newer one first; none if the file is to be begun."""
        head = self._disk.read(0, min(FIRST_SLOT * PAGE, self._disk.size))
        found = [
            (place, block)
            for place in range(FIRST_SLOT)
            if (block := decode_superblock(head[place * PAGE : (place + 1) * PAGE])) is not None
        ]
        if not found:
            torn = self._disk.size == _FIRST_SIZE and not any(head[:PAGE])  # ended while it was made
            if any(head) and not torn:
                raise NotAShadow("its first bytes are not those of a shadow file of dmgfs, so it is left alone")
            if self._read_only:
                raise NotAShadow("it is empty")
            return []
        if recycle:
            return []
        found.sort(key=lambda pair: pair[1].generation, reverse=True)
        theirs = found[0][1].base
        if theirs != self._base and not force_base:
            keys = [key for key in {*theirs, *self._base} if theirs.get(key) != self._base.get(key)]
            raise ShadowBase({key: (theirs.get(key), self._base.get(key)) for key in keys})
        return found

    def load(self, tree: Tree) -> None:
        self._tree = tree
        if self._found:
            self._resume()
        else:
            self._begin()
        if not self._read_only:
            self._disk.grow(self._preallocate)
            self._stretch()
            self._reserve()

    def _begin(self) -> None:
        """A new file. Its superblocks are written last, so a file that was not begun whole is empty or zeros."""
        self._disk.shrink(0)
        self._disk.grow(_FIRST_SIZE)
        self._sums = array("I", [0]) * FIRST_SLOT
        self._born = array("I", [0]) * FIRST_SLOT
        self._stretch()
        self._checkpoint(before_superblock=self._disk.sync)
        self._sync_now()

    def _resume(self) -> None:
        recovered = recover(self._disk, self._found, self._tree)
        self._place, self._superblock, self._log = recovered.place, recovered.superblock, recovered.log
        self._dump_size = recovered.dump_size
        self._sums = recovered.sums
        self._born = array("I", [0]) * len(self._sums)
        for slot, length in recovered.free:
            self._slots.give(slot, length)
        if self._read_only:
            return
        self._flush()  # what a killed process left in memory must not be built on before it is safe
        if recovered.shortened or self._superblock.base != self._base:
            highest = max(block.generation for _, block in self._found)
            self._superblock = self._superblock._replace(generation=highest, base=self._base)
            self._checkpoint()
        self._lonely = self._epoch
        self._dirty = True
        self._sync_now()
        self._drop_orphans()

    def _drop_orphans(self) -> None:
        """Objects that were open without a name when the last user ended."""
        change = Change(removing=True)
        change.items += [Drop(ino) for ino, node in self._tree.nodes.items() if not node.attr.nlink]
        if change.items:
            try:
                self.commit(change)
            except OSError:
                return  # they take space and do no harm
            self._tree.apply(change.items)
            self.free(self._tree.freed)
            self._tree.freed = []

    # -- room --------------------------------------------------------------------------------------------------------

    @property
    def budget(self) -> int:
        return self._budget if self._budget is not None else self._disk.size + self._disk.room()

    @property
    def used(self) -> int:
        return self._disk.size - (self._slots.free + self._waiting) * PAGE

    @property
    def _waiting(self) -> int:
        return sum(run.length for _, run in self._pending)

    def resize(self, budget: int) -> None:
        if budget < self.used:
            raise OSError(errno.ENOSPC, f"{self.used} bytes are in use")
        self._budget = budget

    def _stretch(self) -> None:
        """Whatever the file has grown by is free."""
        first, end = len(self._sums), self._disk.size // PAGE
        if end > first:
            self._sums.extend(array("I", [0]) * (end - first))
            self._born.extend(array("I", [0]) * (end - first))
            self._slots.give(first, end - first)

    def _grow(self, count: int) -> bool:
        """At least `count` more slots at the end of the file, or False."""
        size = self._disk.size // PAGE
        for more in (count + min(max(_GROW_MIN, size // 8), _GROW_MAX), count):
            if self._budget is not None and (size + more) * PAGE > self._budget:
                continue
            try:
                self._disk.grow((size + more) * PAGE)
            except OSError:
                continue
            self._stretch()
            return True
        return False

    def _make_room(self, count: int) -> None:
        """Lets `count` slots be free: by growing the file, else by a sync that sets freed ones free. ENOSPC."""
        if count <= self._slots.free or self._grow(count - self._slots.free):
            return
        if self._slots.free + self._waiting >= count:
            self._sync_now()
        if count > self._slots.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _new_segment(self, length: int) -> Segment:
        for attempt in (lambda: True, lambda: self._grow(length), self._sync_now):
            attempt()
            extent = self._slots.take_whole(length)
            if extent is not None:
                return Segment(*extent)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _reserve(self) -> None:
        """A segment for the log, kept for when there is no other room."""
        if self._spare is None:
            extent = self._slots.take_whole(SEGMENT_SLOTS)
            if extent is None and self._grow(SEGMENT_SLOTS):
                extent = self._slots.take_whole(SEGMENT_SLOTS)
            self._spare = None if extent is None else Segment(*extent)

    def _append(self, body: bytes, removing: bool) -> None:
        if not self._log.room(len(body)):
            wanted = max(self._log.slots_for(len(body)), SEGMENT_SLOTS)
            if wanted > SEGMENT_MAX:
                raise OSError(errno.EFBIG, "more in one operation than a record holds")
            try:
                segment = self._new_segment(wanted)
            except OSError:
                if not removing or self._spare is None or wanted > SEGMENT_SLOTS:
                    raise
                segment, self._spare = self._spare, None
            self._log.extend(segment)
        self._log.append(body)

    # -- committing --------------------------------------------------------------------------------------------------

    def commit(self, change: Change) -> None:
        if self._read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._require_sound()
        if self._log.size > max(_CHECKPOINT_MIN, 4 * self._dump_size):
            self._checkpoint()
        taken: list[Extent] = []
        try:
            placed = self._write_pages(change, taken)
            self._append(b"".join((_CHANGE, *encode(change.items), *map(encode_placed, placed))), change.removing)
        except OSError as error:
            for extent in taken:
                self._slots.give(*extent)
            if error.errno == errno.EDQUOT:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        for place, sums, _ in placed:
            _, slot, length = place.run
            self._sums[slot : slot + length] = array("I", sums)
            self._born[slot : slot + length] = array("I", [self._epoch]) * length
            change.placed.append(place)
        self._dirty = True

    def _require_sound(self) -> None:
        if self._failed:
            raise OSError(errno.EIO, "the medium of the shadow failed a sync; nothing is changed from now on")

    def _write_pages(self, change: Change, taken: list[Extent]) -> list[Placed]:
        work = [item for item in change.items if isinstance(item, (Fill, Patch))]
        if not work:
            return []
        needed = sum(item.length if isinstance(item, Fill) else 1 for item in work)
        self._make_room(needed + (0 if change.removing else MARGIN))
        placed: list[Placed] = []
        for item in work:
            file = self._tree.file(item.ino)
            pages = _EMPTY if file is None or file.pages is None else file.pages
            near = pages[item.page - 1] if item.page else HOLE
            near = near + 1 if is_stored(near) else 0
            if isinstance(item, Fill):
                view = memoryview(item.data)
            else:
                page = bytearray(self._disk.read(pages[item.page] * PAGE, PAGE))
                page[item.start : item.start + len(item.data)] = item.data
                view = memoryview(page)
            number = item.page
            for extent in self._slots.take(len(view) // PAGE, near):
                taken.append(extent)
                part, view = view[: extent.length * PAGE], view[extent.length * PAGE :]
                self._disk.write(extent.slot * PAGE, [part])
                sums = [zlib.crc32(part[at : at + PAGE]) for at in range(0, len(part), PAGE)]
                placed.append(Placed(Place(item.ino, Run(number, extent.slot, extent.length)), sums, False))
                number += extent.length
        return placed

    def free(self, runs: Sequence[Run]) -> None:
        for run in runs:
            first = run.slot
            end = run.slot + run.length
            while first < end:
                young = self._born[first] == self._epoch
                stop = first + 1
                while stop < end and (self._born[stop] == self._epoch) == young:
                    stop += 1
                if young:
                    self._slots.give(first, stop - first)
                else:
                    self._pending.append((self._epoch, Run(0, first, stop - first)))
                first = stop

    # -- reading -----------------------------------------------------------------------------------------------------

    def view(self, slot: int, count: int) -> Buffer:
        return self._disk.read(slot * PAGE, count * PAGE)

    def view_now(self, slot: int, count: int) -> Buffer | None:
        return self._disk.read_now(slot * PAGE, count * PAGE)

    def verify(self) -> list[str]:
        """Reads every page that is in use; one sentence per inode whose bytes are not those that were written."""
        problems: list[str] = []
        for ino in sorted(self._tree.nodes):
            file = self._tree.file(ino)
            pages = file.pages.walk() if file is not None and file.pages is not None else ()
            bad = 0
            for run in pages:
                for slot in range(run.slot, run.slot + run.length) if is_stored(run.slot) else ():
                    bad += zlib.crc32(self._disk.read(slot * PAGE, PAGE)) != self._sums[slot]
            if bad:
                problems.append(f"inode {ino}: {bad} pages do not match their checksums")
        return problems

    # -- syncing and checkpoints -------------------------------------------------------------------------------------

    def begin_sync(self) -> Sync | None:
        self._require_sound()
        if self._read_only or (not self._dirty and self._durable == self._epoch - 1):
            return None
        sync = Sync(self._flush, self._epoch)
        self._begun[self._epoch] = self._log, self._log.count
        self._epoch += 1
        self._dirty = False
        return sync

    def _flush(self) -> None:
        try:
            self._disk.sync()
        except BaseException:
            self._failed = True
            raise

    def end_sync(self, sync: Sync) -> None:
        self._durable = max(self._durable, sync.number)
        waiting, self._pending = self._pending, []
        for epoch, run in waiting:
            if epoch <= self._durable:
                self._slots.give(run.slot, run.length)
            else:
                self._pending.append((epoch, run))
        log, count = self._begun.pop(sync.number)
        try:
            if self._lonely and self._lonely <= self._durable:
                self._disk.write((1 - self._place) * PAGE, [encode_superblock(self._superblock)])
                self._lonely = 0
            if log is self._log:
                self._append(COUNT.pack(SYNCED, count), removing=False)
        except OSError:
            pass  # without the marker the next load checks more than it must
        self._reserve()

    def _sync_now(self) -> None:
        sync = self.begin_sync()
        if sync is not None:
            sync.flush()
            self.end_sync(sync)

    def _checkpoint(self, before_superblock: Callable[[], None] | None = None) -> None:
        """The tree as a new log. Without room for it the old one goes on."""
        segments: list[Segment] = []
        log_id = secrets.randbits(64)
        try:
            segments.append(self._new_segment(SEGMENT_SLOTS))
            log = Log(self._disk, log_id, segments[0])
            bodies = dump(self._tree, self._sums, self._born, self._durable)
            for body in (COUNT.pack(START, self._tree.next_ino), *bodies, bytes([STARTED])):
                if not log.room(len(body)):
                    wanted = max(SEGMENT_SLOTS, min(log.size // PAGE, SEGMENT_MAX), log.slots_for(len(body)))
                    segments.append(self._new_segment(wanted))
                    log.extend(segments[-1])
                log.append(body)
            if before_superblock is not None:
                before_superblock()
            generation = self._superblock.generation + 1
            superblock = Superblock(generation, log_id, *segments[0], self._base)
            self._disk.write((1 - self._place) * PAGE, [encode_superblock(superblock)])
        except OSError:
            for segment in segments:
                self._pending.append((self._epoch, Run(0, *segment)))
            if not self._superblock.generation:
                raise
            self._dump_size = max(self._log.size // 2, 1)  # not again at once
            return
        if self._superblock.generation:
            self._pending += [(self._epoch, Run(0, *segment)) for segment in self._log.segments]
        self._place = 1 - self._place
        self._superblock, self._log = superblock, log
        self._dump_size = log.size
        self._lonely = self._epoch
        self._dirty = True

    def close(self) -> None:
        try:
            if not self._read_only and not self._failed:
                if self._log.size > max(_CHECKPOINT_MIN // 4, 2 * self._dump_size):
                    self._checkpoint()
                self._sync_now()
                self._trim()
        finally:
            self._disk.close()

    def _trim(self) -> None:
        """Gives free slots at the end of the file back."""
        extents = self._slots.extents()
        if extents and sum(extents[-1]) == self._disk.size // PAGE:
            self._disk.shrink(max(extents[-1].slot * PAGE, self._preallocate))
