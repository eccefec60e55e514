"""The error boundary: whatever happens inside a handler, the kernel gets an errno and the mount goes on.

pyfuse3 ends the whole mount for any exception other than FUSEError, and for any answer of the wrong type, so the rules are:
- every public method of the operations passes through here (`guard` wraps the class, not the single method: none can be
  forgotten);
- not even cancellation passes: when pyfuse3's loop ends, requests under way are answered all the same (a request without
  an answer holds its caller for ever, not even killable), and the task ends at its next wait;
- ENOSYS is never said by accident: the kernel would not send that request again for as long as the mount lives;
- an error that is our fault leaves one traceback in the log, not one per request. It is made without reading source files:
  they may lie in the mount that is just failing.
"""

import errno
import functools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, Operations, StatvfsData

from dmgfs.errors import DmgError, Unsupported

log = logging.getLogger(__name__)

CHANGING = frozenset(
    {"setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create"}
    | {"write", "setxattr", "removexattr", "fsync", "fsyncdir"}
)
"""Requests that store something: for them no memory means no space."""

DEFAULTS = frozenset(["init", "stacktrace", "access", "flush", "fsyncdir", "poll"])
"""Methods that are left as pyfuse3 has them when the operations do not define them (ENOSYS on purpose: the kernel then
answers these itself for good)."""

Handler = Callable[..., Awaitable[Any]]


def _is_count(answer: object) -> bool:
    return isinstance(answer, int) and 0 <= answer < 1 << 64


def _is_buffer(answer: object) -> bool:
    return isinstance(answer, (bytes, bytearray)) or (isinstance(answer, memoryview) and answer.c_contiguous)


def _is_byte_names(answer: object) -> bool:
    return isinstance(answer, (list, tuple)) and all(isinstance(name, bytes) for name in answer)


def _is_created(answer: object) -> bool:
    return (
        isinstance(answer, tuple)
        and len(answer) == 2
        and isinstance(answer[0], FileInfo)
        and isinstance(answer[1], EntryAttributes)
    )


def _is(kind: type) -> Callable[[object], bool]:
    return lambda answer: isinstance(answer, kind)


ANSWERS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(["lookup", "getattr", "setattr", "mknod", "mkdir", "symlink", "link"], _is(EntryAttributes)),
    **dict.fromkeys(["readlink", "getxattr"], _is(bytes)),
    **dict.fromkeys(["write", "opendir"], _is_count),
    "open": _is(FileInfo),
    "create": _is_created,
    "read": _is_buffer,
    "listxattr": _is_byte_names,
    "statfs": _is(StatvfsData),
}
"""What pyfuse3 will convert; it does so outside of its own error handling."""


class OncePerMinute:
    """Lets a message of one kind pass once a minute, few kinds in all, and counts what it held back: a hostile image has
    a thousand different faults."""

    SECONDS = 60.0
    KINDS = 64

    def __init__(self) -> None:
        self._last: dict[object, tuple[float, int]] = {}

    def admit(self, kind: object) -> int | None:
        """How many of this kind were held back since the last one that passed; None if this one is to be held back."""
        now = time.monotonic()
        if kind not in self._last and len(self._last) >= self.KINDS:
            for old in [old for old, (last, _) in self._last.items() if now - last >= self.SECONDS]:
                del self._last[old]
            if len(self._last) >= self.KINDS:
                return None
        last, held = self._last.get(kind, (now - self.SECONDS, 0))
        if now - last < self.SECONDS:
            self._last[kind] = (last, held + 1)
            return None
        self._last[kind] = (now, 0)
        return held


class Boundary:
    """Turns exceptions into errno, and counts: `requests`, and `failures` by request and kind."""

    def __init__(self) -> None:
        self.requests = 0
        self.failures: Counter[str] = Counter()
        self._gate = OncePerMinute()

    def errno_of(self, request: str, error: BaseException) -> int:
        """The errno for `error`. Damage and our own faults are also put in the log. Never raises."""
        if isinstance(error, FUSEError):
            number = error.errno
        elif isinstance(error, OSError):
            number = error.errno or errno.EIO
            if number == errno.EIO:
                self._note(request, error)  # the disk, not the caller
        elif isinstance(error, trio.Cancelled):
            number = errno.EIO
        elif isinstance(error, Unsupported):
            self._note(request, error)
            number = errno.ENOTSUP
        elif isinstance(error, DmgError):
            self._note(request, error)
            number = errno.EIO
        elif isinstance(error, MemoryError):
            self._note(request, error)
            number = errno.ENOSPC if request in CHANGING else errno.ENOMEM
        else:
            self._note(request, error, with_traceback=True)
            number = errno.EIO
        if number == errno.ENOSYS and not isinstance(error, FUSEError):
            return errno.ENOTSUP
        return number if 0 < number < 4096 else errno.EIO

    def _note(self, request: str, error: BaseException, *, with_traceback: bool = False) -> None:
        try:
            kind = type(error).__name__
            self.failures[f"{request}:{kind}"] += 1
            text = ascii(str(error))[1:-1]
            held = self._gate.admit((request, kind, text))
            if held is None:
                return
            repeated = f" ({held} more since the last report)" if held else ""
            if with_traceback:
                log.error("%s failed, it gets EIO: %s: %s%s\n%s", request, kind, text, repeated, trace(error))
            else:
                log.warning("%s: %s%s", request, text or kind, repeated)
        except Exception:  # the report of a failure must not become one
            pass


def trace(error: BaseException) -> str:
    """One line per frame, the innermost 30 at most, without the source text; then the same for the parts of a group."""
    lines = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        lines.append(f"  {code.co_filename}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    lines = lines[-30:]
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            lines += [f"  {type(part).__name__}: {ascii(str(part))[1:-1]}", trace(part)]
    return "\n".join(lines)


def _is_sweeping(error: BaseException) -> bool:
    """The interpreter sweeps up a handler after the loop has ended. A GeneratorExit inside of it is somebody's mistake."""
    return isinstance(error, GeneratorExit) and not trio.lowlevel.in_trio_task()


def guard(operations: Operations, boundary: Boundary) -> Operations:
    """Puts the boundary around every handler of `operations`, which is returned."""
    for name in dir(Operations):
        if name.startswith("_") or not callable(getattr(Operations, name)):
            continue
        if name in DEFAULTS and getattr(type(operations), name) is getattr(Operations, name):
            continue
        handler = getattr(operations, name)
        setattr(
            operations, name, _forgiving(handler, boundary) if name == "forget" else _total(name, handler, boundary)
        )
    return operations


def _total(request: str, handler: Handler, boundary: Boundary) -> Handler:
    valid = ANSWERS.get(request, _is(object))

    @functools.wraps(handler)
    async def guarded(*arguments: Any) -> Any:
        boundary.requests += 1
        try:
            answer = await handler(*arguments)
            if not valid(answer):
                raise TypeError(f"{request} answered with {type(answer).__name__}")
            return answer
        except FUSEError:
            raise
        except BaseException as error:
            if _is_sweeping(error):
                raise
            number = boundary.errno_of(request, error)
            raise FUSEError(number) from None

    return guarded


def _forgiving(handler: Handler, boundary: Boundary) -> Handler:
    """For forget, which has no answer: pyfuse3 takes not even FUSEError from it."""

    @functools.wraps(handler)
    async def guarded(*arguments: Any) -> None:
        try:
            await handler(*arguments)
        except BaseException as error:
            if _is_sweeping(error):
                raise
            boundary.errno_of("forget", error)

    return guarded
