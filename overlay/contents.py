"""The bytes of files: read, write, truncate. Plain functions of a State and Facts (see `overlay.facts`) but for `read`.

Rules that hold here:
- a byte below `limit` in a page that was never written is the lower's, every other unwritten byte is zero;
- bytes of a stored page beyond the end of the file are zero, so growing a file costs nothing;
- a page of zeros is not stored: it is a HOLE, or ZERO where the lower would show through (but for one that truncating or a
  write of other bytes made so, and in a file one that is not in memory);
- small files that the lower has no part in are kept as `bytes` (inline) and take no page.
"""

import errno
import os
from stat import S_ISDIR, S_ISGID, S_ISLNK, S_ISREG, S_ISUID, S_IXGRP

from overlay.change import Change, Cutoff, Fill, Inline, Limit, Mark, Patch
from overlay.facts import Facts
from overlay.pages import HOLE, PAGE, PAGE_BITS, ZERO, PageMap, Run, cut_range, is_stored, pages_in
from overlay.state import Open, State, changed, error
from overlay.tree import BLOCK, FILE, PAGES, File
from overlay.vfs import Ask, Attr, Buffer, Content, Steps

INLINE_MAX = 3072
MAX_SIZE = (1 << 63) - 1 - PAGE

_ZEROS = bytes(PAGE)
_BLOCKS = PAGE // 512
_NO_PAGES = PageMap()


def cleared_setid(mode: int) -> int:
    """What is left of a file's mode when somebody changed its bytes or owner."""
    mode &= ~S_ISUID
    return mode & ~S_ISGID if mode & S_IXGRP else mode


# -- opening -----------------------------------------------------------------------------------------------------------


def open(state: State, facts: Facts, ino: int, flags: int) -> None:
    attr = state.attr(facts, ino)
    if S_ISDIR(attr.mode) and flags & os.O_ACCMODE != os.O_RDONLY:
        raise error(errno.EISDIR)
    if S_ISLNK(attr.mode):
        raise error(errno.ELOOP)
    if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
        state.require_writable()
    content = None
    if S_ISREG(attr.mode) and not state.is_changed(ino) and not flags & os.O_TRUNC:
        content = _content(state, facts, ino)
    if flags & os.O_TRUNC and S_ISREG(attr.mode):
        change = Change(removing=True)
        blocks = truncate(state, attr, 0, change)
        # Set-id bits: whether they go depends on who asks, which the kernel knows; it sends a chmod if they must.
        state.put(change, changed(attr, state.clock(), modified=True, size=0, blocks=blocks))
        state.commit(change)
    opened = state.opened.setdefault(ino, Open())
    opened.count += 1
    opened.content = opened.content or content


def open_soon(state: State, ino: int, flags: int) -> Steps[None]:
    """`open` as Steps; of its own for a file that is the lower's, because that is what is opened most."""
    if ino not in state.tree.nodes and state.is_lower(ino) and not flags & os.O_TRUNC:
        attr: Attr = yield Ask(state.lower.getattr, (ino,))
        if S_ISREG(attr.mode):
            if flags & os.O_ACCMODE != os.O_RDONLY:
                state.require_writable()
            opened = state.opened.get(ino)
            content = opened.content if opened is not None else None
            if content is None:
                content = yield Ask(state.lower.open, (ino,))
            opened = state.opened.setdefault(ino, Open())
            opened.count += 1
            opened.content = opened.content or content
            return
    yield from state.steps(open, ino, flags)


def release(state: State, ino: int) -> None:
    opened = state.opened[ino]
    opened.count -= 1
    if not opened.count:
        del state.opened[ino]


# -- reading -----------------------------------------------------------------------------------------------------------


def read(state: State, ino: int, offset: int, length: int) -> Steps[Buffer]:
    """Bytes of any file: a generator of its own, because most reads are of unchanged files and need one fact."""
    content: Content | None = None
    while not state.is_changed(ino):
        opened = state.opened.get(ino)
        if opened is not None:
            content = opened.content = opened.content or content
        if content is None:
            content = yield Ask(state.lower.open, (ino,))
            continue
        there = min(length, content.size - offset)
        if there <= 0:
            return b""
        data: Buffer = yield Ask(content.read, (offset, there))
        if not state.is_changed(ino):
            return data
    return (yield from state.steps(read_changed, ino, offset, length))


def content(state: State, ino: int) -> Steps[Content]:
    opened = state.opened.get(ino)
    if opened is not None and opened.content is not None:
        return opened.content
    below: Content = yield Ask(state.lower.open, (ino,))
    return below


def _content(state: State, facts: Facts, ino: int) -> Content:
    opened = state.opened.get(ino)
    if opened is None:
        return facts.open(ino)
    if opened.content is None:
        opened.content = facts.open(ino)
    return opened.content


def read_changed(state: State, facts: Facts, ino: int, offset: int, length: int) -> Buffer:
    attr = state.attr(facts, ino)
    if not S_ISREG(attr.mode):
        raise error(errno.EISDIR if S_ISDIR(attr.mode) else errno.EINVAL)
    length = min(length, attr.size - offset)
    if length <= 0:
        return b""
    file = state.tree.file(ino)
    if file is None:
        return bytes(length)  # a new file that was only ever truncated
    if file.inline is not None:
        data = file.inline[offset : offset + length]
        return data if len(data) == length else data.ljust(length, b"\0")
    assert state.store is not None
    pages = file.pages if file.pages is not None else _NO_PAGES
    end = offset + length
    first = offset >> PAGE_BITS
    parts: list[Buffer] = []
    for run in pages.runs(first, pages_in(end) - first):
        start = max(offset, run.page << PAGE_BITS)
        stop = min(end, (run.page + run.length) << PAGE_BITS)
        if is_stored(run.slot):
            skip = start - (run.page << PAGE_BITS)
            view = state.store.view_now(run.slot, run.length)
            if view is None:
                facts.warm(state.store.warm, run.slot, run.length)
                view = state.store.view(run.slot, run.length)
            parts.append(view[skip : skip + stop - start])
            continue
        if run.slot == HOLE and start < file.limit:
            below = min(stop, file.limit)
            parts.append(facts.read(_content(state, facts, ino), start, below - start))
            start = below
        if start < stop:
            parts.append(bytes(stop - start))
    return parts[0] if len(parts) == 1 else b"".join(parts)


# -- writing -----------------------------------------------------------------------------------------------------------


def write(state: State, facts: Facts, ino: int, offset: int, data: bytes, clear_setid: bool) -> int:
    state.require_writable()
    attr = state.attr(facts, ino)
    if not S_ISREG(attr.mode):
        raise error(errno.EISDIR if S_ISDIR(attr.mode) else errno.EINVAL)
    if not data:
        return 0
    end = offset + len(data)
    if end > MAX_SIZE:
        raise error(errno.EFBIG)
    size = max(attr.size, end)
    file = state.tree.file(ino)
    change = Change()
    mode = cleared_setid(attr.mode) if clear_setid else None
    limit = file.limit if file is not None else attr.size if state.is_lower(ino) else 0
    pages = _NO_PAGES if file is None or file.pages is None else file.pages
    inline = file.inline if file is not None else None
    if not limit and size <= INLINE_MAX and not pages.blocks:
        old = inline or b""
        new = b"".join((old[:offset].ljust(offset, b"\0"), data, old[end:]))
        _begin(state, change, ino, attr, file, limit)
        change.weight += max(0, len(new) - len(old))
        change.items.append(Inline(ino, new))
        blocks = (len(new) + 511) // 512
    else:
        writing = _Writing(state, facts, ino, change, file, limit, pages)
        if inline is not None:
            change.items.append(Inline(ino, None))
            if offset >= PAGE:
                writing.page(0, b"")
                change.weight += BLOCK
        writing.data(offset, data)
        _begin(state, change, ino, attr, file, limit)
        before = attr.blocks if inline is None else 0
        blocks = _blocks(size, limit, pages.stored + writing.gained, before, writing.gained)
    state.put(change, changed(attr, state.clock(), mode=mode, modified=True, size=size, blocks=blocks))
    state.commit(change)
    return len(data)


def _begin(state: State, change: Change, ino: int, attr: Attr, file: File | None, limit: int) -> None:
    """The items that must come first when a file's content becomes ours."""
    if file is not None:
        return
    change.weight += FILE
    change.items.insert(0, Limit(ino, limit))
    if ino not in state.tree.nodes:
        first = Change()
        state.put(first, attr)
        change.weight += first.weight
        change.items[:0] = first.items


def _blocks(size: int, limit: int, stored: int, before: int, gained: int) -> int:
    """512-byte blocks: what is stored, and of the lower what still counts, as far as that is known: never more than the
    size, nor than there were before and `gained` pages. (Files of a lower may be full of holes, too.)"""
    most = min(pages_in(limit) + stored, pages_in(size)) * _BLOCKS
    return max(0, min(most, before + gained * _BLOCKS))


class _Writing:
    """Turns written bytes into items. gained: stored pages more than before."""

    def __init__(
        self, state: State, facts: Facts, ino: int, change: Change, file: File | None, limit: int, pages: PageMap
    ) -> None:
        self.state = state
        self.facts = facts
        self.ino = ino
        self.change = change
        self.file = file
        self.limit = limit
        self.pages = pages
        self.gained = 0

    def data(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        done = 0
        for page, start, length in cut_range(offset, len(data)):
            if length < PAGE:
                self.page(page, data if length == len(data) else bytes(view[done : done + length]), start)
            else:
                self.whole(page, data, view, done, length)
            done += length
        if self.file is None or self.file.pages is None:
            self.change.weight += PAGES
        count = pages_in(offset + len(data)) - (offset >> PAGE_BITS)
        self.change.weight += BLOCK * self.pages.new_blocks(offset >> PAGE_BITS, count)

    def page(self, page: int, data: bytes, start: int = 0) -> None:
        """A part of one page."""
        slot = self.pages[page]
        if is_stored(slot):
            if data.count(0) == len(data) and self.is_zero_besides(slot, start, start + len(data)):
                self.zeros(page, 1)
            else:
                self.change.items.append(Patch(self.ino, page, start, data))
            return
        base = self.base(page, slot)
        if base is None and data.count(0) == len(data):
            return
        old = base if base is not None else b""
        new = b"".join((bytes(old[:start]).ljust(start, b"\0"), data, old[start + len(data) :])).ljust(PAGE, b"\0")
        if new == _ZEROS:
            self.zeros(page, 1)
        else:
            self.fill(page, 1, new)

    def is_zero_besides(self, slot: int, start: int, stop: int) -> bool:
        """Whether a stored page is zeros outside of this part of it. False where a disk would have to be asked."""
        store = self.state.store
        view = store.view_now(slot, 1) if store is not None else None
        return view is not None and not any(view[:start]) and not any(view[stop:])

    def base(self, page: int, slot: int) -> Buffer | None:
        """What shows in a page that is not stored, perhaps shorter than a page; None: zeros."""
        if slot == ZERO:
            return None
        if self.file is not None and self.file.inline is not None:
            return self.file.inline if page == 0 else None
        offset = page << PAGE_BITS
        length = min(self.limit - offset, PAGE)
        if length <= 0:
            return None
        return self.facts.read(_content(self.state, self.facts, self.ino), offset, length)

    def whole(self, page: int, data: bytes, view: memoryview, done: int, length: int) -> None:
        """Whole pages: stretches of zeros and of anything else."""
        count = length >> PAGE_BITS
        first = 0
        firsts = data[done : done + length : PAGE]
        index = firsts.find(0)
        while index >= 0:
            if data.startswith(_ZEROS, done + (index << PAGE_BITS)):
                if first < index:
                    self.fill(
                        page + first, index - first, view[done + (first << PAGE_BITS) : done + (index << PAGE_BITS)]
                    )
                stop = index + 1
                while stop < count and not firsts[stop] and data.startswith(_ZEROS, done + (stop << PAGE_BITS)):
                    stop += 1
                self.zeros(page + index, stop - index)
                first = stop
                index = stop - 1
            index = firsts.find(0, index + 1)
        if first < count:
            self.fill(page + first, count - first, view[done + (first << PAGE_BITS) : done + length])

    def fill(self, page: int, count: int, data: Buffer) -> None:
        new = count - sum(run.length for run in self.pages.runs(page, count) if is_stored(run.slot))
        self.gained += new
        self.change.new_pages += new
        self.change.items.append(Fill(self.ino, page, count, data))

    def zeros(self, page: int, count: int) -> None:
        """These pages are zeros from now on: holes, or ZERO where the lower would show."""
        below = max(0, min(count, pages_in(self.limit) - page))
        for first, number, slot in ((page, below, ZERO), (page + below, count - below, HOLE)):
            if number:
                self.gained -= sum(run.length for run in self.pages.runs(first, number) if is_stored(run.slot))
                self.change.items.append(Mark(self.ino, Run(first, slot, number)))


def truncate(state: State, attr: Attr, size: int, change: Change) -> int:
    """Adds to `change` what a new size takes; the blocks the file has then. Attributes are the caller's."""
    if not S_ISREG(attr.mode):
        raise error(errno.EISDIR if S_ISDIR(attr.mode) else errno.EINVAL)
    if size > MAX_SIZE:
        raise error(errno.EFBIG)
    ino = attr.ino
    file = state.tree.file(ino)
    if size == attr.size:
        return attr.blocks
    old_limit = file.limit if file is not None else attr.size if state.is_lower(ino) else 0
    limit = min(old_limit, size)
    _begin(state, change, ino, attr, file, limit)
    stored = gained = 0
    if file is not None:
        if limit < old_limit:
            change.items.append(Limit(ino, limit))
        if file.inline is not None:
            if size < len(file.inline):
                change.items.append(Inline(ino, file.inline[:size]))
            return (min(size, len(file.inline)) + 511) // 512
        if file.pages is not None:
            stored = file.pages.stored
            if size < attr.size:
                last = pages_in(size)
                gained = -file.pages.stored_from(last)
                stored += gained
                change.items.append(Cutoff(ino, last))
                rest = size & (PAGE - 1)
                if rest and is_stored(file.pages[last - 1]):
                    change.items.append(Patch(ino, last - 1, rest, _ZEROS[rest:]))
    return _blocks(size, limit, stored, attr.blocks, gained)
