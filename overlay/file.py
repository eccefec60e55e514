"""The store in a file: dmgfs's own format, **not Apple's shadow format**. It survives unmounting, crashes and power cuts.

The file is slots of 4096 bytes: two superblocks, then pages and segments of the log in any order. We measured SQLite
against a log of our own before choosing: the log takes 1.2 µs of CPU per small operation where SQLite (WAL) takes 27 to
32, and a third of the time for 1 MiB.

Rules that hold here:
- a slot that a record refers to is never written: new bytes go to new slots, then one record says so. When a freed slot may
  be used again is the business of `overlay.space`;
- every operation is one record. After a crash the records up to the first bad one count, and of those not known to be
  synced only as many as have their pages' checksums right: so the state is always that after some operation, and never
  older than the last sync;
- a checkpoint writes the whole tree as a new log and then the other superblock, waiting for nothing: until the next sync
  the old log stays, and a new one that did not make it to the medium whole does not count;
- when the medium fails a sync, nothing it holds is known any more: the store refuses changes from then on;
- a page that is not what was written (a damaged medium) is EIO, never other bytes: each has its checksum in the log;
- room for the log is reserved ahead, so that what frees space never fails for want of it.
"""

import errno
import os
import secrets
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence

from overlay.change import Change, Drop
from overlay.disk import Disk, FileDisk
from overlay.errors import NotAShadow
from overlay.history import History, stored
from overlay.log import CHANGE, RESUMED, SEGMENT_MAX, START, STARTED, SYNCED, Log, Segment
from overlay.pages import PAGE, Run
from overlay.placing import pages_of, write_pages
from overlay.records import encode, encode_placed
from overlay.recovery import COUNT, FIRST_SLOT, dump, recover
from overlay.slots import Extent
from overlay.space import MARGIN, Space
from overlay.store import Sync
from overlay.superblock import (
    VERSION,
    Base,
    Superblock,
    encode_base,
    encode_superblock,
    first_ino,
    require_same,
    superblocks,
)
from overlay.tree import Tree
from overlay.verify import require_written, wrong_pages
from overlay.vfs import Buffer

SEGMENT_SLOTS = 64

_CHECKPOINT_MIN = 4 << 20
_QUICK = 20_000
"""Objects whose tree is written in a fraction of a second."""

_TRIM_MIN = 1 << 18
"""Free bytes at the end of the file that are worth a checkpoint when it is closed."""

_FIRST_SIZE = (FIRST_SLOT + 2 * SEGMENT_SLOTS) * PAGE
_CHANGE = bytes([CHANGE])


class FileStore:
    """A store on `disk`. budget: bytes that the file may take, None for what the medium has. base: what identifies the
    image; another one than the file's raises ShadowBase unless `force_base` (which does not help over another number
    of layers); None takes the file's. recycle: begin afresh.
    Raises ShadowError."""

    def __init__(
        self,
        disk: Disk,
        base: Base | None,
        *,
        budget: int | None = None,
        read_only: bool = False,
        force_base: bool = False,
        recycle: bool = False,
        preallocate: int = 0,
    ) -> None:
        self._base: Base = base or {}
        encode_base(self._base)
        self._disk = disk
        self._read_only = read_only
        self._preallocate = preallocate
        self._tree = Tree()
        self._history = History(self._tree)
        self._space = Space(disk, budget)
        self._dirty = False  # something was committed since the last sync began
        self._begun: dict[int, tuple[Log, int]] = {}  # syncs under way: log and its records when they began
        self._failed = False
        self._loaded = False
        self._spare: Segment | None = None
        self._dump_size = 0
        self._lonely = 0  # epoch of a checkpoint whose superblock has no copy yet
        self._place = 0  # which of the two superblocks is ours
        self._reach = 1 << 32  # slots from here on the log does not tell of
        self._log: Log
        self._superblock = Superblock(0, 0, 0, 0, self._base)
        self._found = self._open(base is None, force_base, recycle)

    @classmethod
    def open_file(
        cls,
        path: str | os.PathLike[str],
        base: Base | None,
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

    def _open(self, any_base: bool, force_base: bool, recycle: bool) -> list[tuple[int, Superblock]]:
        """The superblocks and their places, the newer one first; none if the file is to be begun."""
        found = superblocks(self._disk.read(0, min(FIRST_SLOT * PAGE, self._disk.size)))
        if not found:
            unfinished = self._disk.size == _FIRST_SIZE and not any(
                self._disk.read(0, PAGE)
            )  # cut off while it was made
            if self._disk.size and not unfinished:
                raise NotAShadow("its first bytes are not those of a shadow file of dmgfs, so it is left alone")
            if self._read_only or any_base:
                raise NotAShadow("it is empty")
            return []
        if recycle:
            return []
        theirs = found[0][1].base
        if any_base:
            self._base = theirs
        if not (force_base and first_ino(theirs) == first_ino(self._base)):
            require_same(theirs, self._base)
        return found

    def load(self, tree: Tree) -> None:
        assert tree.first_ino == first_ino(self._base), "another number of layers"
        self._tree = tree
        self._history = History(tree)
        if self._found:
            self._resume()
        else:
            self._begin()
        self._loaded = True
        if not self._read_only:
            self._disk.grow(self._preallocate)
            self._space.stretch()
            self._reserve()

    def history(self) -> History:
        return self._history

    def _begin(self) -> None:
        """A new file. Its superblocks are written last, so a file that was not begun whole is empty or zeros."""
        self._disk.shrink(0)
        self._disk.grow(_FIRST_SIZE)
        self._space.begin(array("I", [0]) * FIRST_SLOT, ())
        self._space.stretch()
        self._checkpoint(before_superblock=self._disk.sync)
        self._sync_now()

    def _resume(self) -> None:
        recovered = recover(self._disk, self._found, self._tree)
        self._place, self._superblock, self._log = recovered.place, recovered.superblock, recovered.log
        self._dump_size = recovered.dump_size
        self._history = recovered.history
        self._space.begin(recovered.sums, recovered.free)
        if self._read_only:
            return
        self._flush()  # what a killed process left in memory must not be built on before it is safe
        if recovered.shortened or self._superblock.base != self._base or self._superblock.version != VERSION:
            highest = max(block.generation for _, block in self._found)
            self._superblock = self._superblock._replace(generation=highest, base=self._base)
            self._checkpoint()
        self._reserve()
        self._append(COUNT.pack(RESUMED, secrets.randbits(64)), removing=True)
        self._lonely = self._space.epoch
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
            self.free(self._history.apply(change))

    # -- room --------------------------------------------------------------------------------------------------------

    @property
    def base(self) -> Base:
        """What identifies the image that the shadow belongs to."""
        return self._base

    @property
    def sums(self) -> Sequence[int]:
        """CRC-32 of what each slot holds."""
        return self._space.sums

    @property
    def budget(self) -> int:
        if self._space.budget is not None:
            return self._space.budget
        held = min(self._disk.size, max(self._disk.allocated(), self.used))  # holes are nobody's
        return held + self._disk.room()

    @property
    def used(self) -> int:
        return self._space.used

    def resize(self, budget: int) -> None:
        if budget < self.used:
            raise OSError(errno.ENOSPC, f"{self.used} bytes are in use")
        self._space.budget = budget

    def _make_room(self, count: int) -> None:
        """Lets `count` slots be free, if need be by a sync that sets freed ones free. ENOSPC."""
        if self._space.has(count):
            return
        if self._space.waiting:
            self._sync_now()
        if not self._space.has(count):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _new_segment(self, length: int) -> Segment:
        segment = self._space.segment(length)
        if segment is None and self._space.waiting:
            self._sync_now()
            segment = self._space.segment(length)
        if segment is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return segment

    def _reserve(self) -> None:
        """A segment for the log, kept for when there is no other room."""
        if self._spare is None and (segment := self._space.segment(SEGMENT_SLOTS)) is not None:
            try:
                self._disk.secure(segment.slot * PAGE, segment.length * PAGE)  # it may be a hole
            except OSError:
                self._space.give_unused([Extent(*segment)])
            else:
                self._spare = segment

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
            pages = pages_of(change)
            if pages:
                self._make_room(pages + (0 if change.removing else MARGIN))
            placed = write_pages(self._disk, self._space, self._tree, change, taken)
            self._append(b"".join((_CHANGE, *encode(change.items), *map(encode_placed, placed))), change.removing)
        except OSError as error:
            self._space.give_unused(taken)
            if error.errno == errno.EDQUOT:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        for place, sums, _ in placed:
            self._space.filled(place.run.slot, sums)
            change.placed.append(place)
            self._reach = max(self._reach, place.run.slot + place.run.length)
        self._dirty = True

    def _require_sound(self) -> None:
        if self._failed:
            raise OSError(errno.EIO, "the medium of the shadow failed a sync; nothing is changed from now on")

    def free(self, runs: Sequence[Run]) -> None:
        self._space.free(runs)

    # -- reading -----------------------------------------------------------------------------------------------------

    def view(self, slot: int, count: int) -> Buffer:
        return self._written(self._disk.read(slot * PAGE, count * PAGE), slot)

    def _written(self, data: Buffer, slot: int) -> Buffer:
        return require_written(data, slot, self._space.sums, self._disk.path)

    copy = view

    def view_now(self, slot: int, count: int) -> Buffer | None:
        data = self._disk.read_now(slot * PAGE, count * PAGE)
        return None if data is None else self._written(data, slot)

    def warm(self, slot: int, count: int) -> None:
        self._disk.read(slot * PAGE, count * PAGE)

    def verify(self) -> list[str]:
        """Reads every page that is in use; one sentence per inode whose bytes are not those that were written."""
        return wrong_pages(self._disk, self._space.sums, self._history)

    # -- syncing and checkpoints -------------------------------------------------------------------------------------

    def begin_sync(self) -> Sync | None:
        self._require_sound()
        if self._read_only or (not self._dirty and self._space.durable == self._space.epoch - 1):
            return None
        sync = Sync(self._flush, self._space.epoch)
        self._begun[sync.number] = self._log, self._log.count
        self._space.epoch += 1
        self._dirty = False
        return sync

    def _flush(self) -> None:
        try:
            self._disk.sync()
        except BaseException:
            self._failed = True
            raise

    def end_sync(self, sync: Sync) -> None:
        self._space.synced(sync.number)
        log, count = self._begun.pop(sync.number)
        try:
            if self._lonely and self._lonely <= self._space.durable:
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
            bodies = dump(self._history, self._space.sums, self._space.born, self._space.durable)
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
                self._space.give_later(*segment)
            if not self._superblock.generation:
                raise
            self._dump_size = max(self._log.size // 2, 1)  # not again at once
            return
        if self._superblock.generation:
            for segment in self._log.segments:
                self._space.give_later(*segment)
        self._place = 1 - self._place
        self._superblock, self._log = superblock, log
        self._dump_size = log.size
        self._reach = max(
            (sum(run[1:]) for tree in self._history.trees() for run in stored(tree)), default=FIRST_SLOT
        )
        self._lonely = self._space.epoch
        self._dirty = True

    # -- giving back to the medium -----------------------------------------------------------------------------------

    def litter(self) -> int:
        return 0 if self._read_only or self._failed else self._space.litter()

    def reclaim(self, everything: bool) -> Generator[Callable[[], None], None, None]:
        """everything: also from free slots that seem to be holes; the file is cut off, and where that takes no long time
        the log is written anew for it."""
        if self._read_only:
            return
        yield from self._synced()
        if everything and sum(len(tree.nodes) for tree in self._history.trees()) <= _QUICK:
            self._checkpoint()
            yield from self._synced()
        yield from self._space.reclaim(self._preallocate // PAGE, everything=everything)
        if everything:
            self._trim()

    def _synced(self) -> Iterator[Callable[[], None]]:
        sync = self.begin_sync()
        if sync is not None:
            yield sync.flush
            self.end_sync(sync)

    def _trim(self) -> None:
        """Cuts off the free end of the file, as far as no record of a log that may still count tells of pages there."""
        if not self._lonely:
            end = max(self._disk.size - self._space.tail(), self._reach * PAGE, self._preallocate)
            if end < self._disk.size:
                self._disk.shrink(end)
                self._space.cut()

    def close(self) -> None:
        try:
            if self._loaded and not self._read_only and not self._failed:
                self._sync_now()
                much = self._space.tail() >= _TRIM_MIN and self._disk.size > self._preallocate
                if much or self._log.size > max(_CHECKPOINT_MIN // 4, 2 * self._dump_size):
                    if self._spare is not None:
                        self._space.give_unused([Extent(*self._spare)])
                        self._spare = None
                    self._checkpoint()
                    self._sync_now()
                self._trim()
        finally:
            self._disk.close()
