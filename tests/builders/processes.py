"""Another user for a moment: runs a function in a child process with other credentials and brings back what it returned
or which errno it met. Rules: the function must not rely on threads, and its result must survive pickling."""

import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

NOBODY = 65534


class ChildFailed(AssertionError):
    """The function raised something that is no OSError."""


def as_user(
    uid: int, gid: int, function: Callable[..., Any], *arguments: Any, groups: Iterable[int] = (), umask: int = 0
) -> Any:
    """function(*arguments) as that user. Raises the same OSError as the function did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.umask(umask)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            try:
                answer: tuple[str, Any] = ("value", function(*arguments))
            except OSError as error:
                answer = ("errno", error.errno)
            except BaseException as error:
                answer = ("failure", repr(error))
            data = pickle.dumps(answer)
            os.write(writing, struct.pack("<I", len(data)) + data)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writing)
    data = b""
    while block := os.read(reading, 65536):
        data += block
    os.close(reading)
    os.waitpid(child, 0)
    if len(data) < 4:
        raise ChildFailed("the child process died before it could answer")
    kind, value = pickle.loads(data[4:])
    if kind == "errno":
        raise OSError(value, os.strerror(value))
    if kind == "failure":
        raise ChildFailed(value)
    return value


def errno_of(function: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    """The errno that the call ends in, 0 if it succeeds."""
    try:
        function(*arguments, **options)
    except OSError as error:
        return error.errno or -1
    return 0
