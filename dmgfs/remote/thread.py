"""fsspec's event loop, with the manners that a daemon needs.

Rules that hold here:
- its thread takes no signals: those are for the thread that serves;
- names of hosts are looked up in threads that nobody waits for at the end: a resolver that hangs must not hold up an exit.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_lock = threading.Lock()


class Unwaited(ThreadPoolExecutor):
    """A thread per call, which the interpreter does not wait for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                answer = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

        threading.Thread(target=run, name="dmgfs-network-call", daemon=True).start()
        return future


def network_loop() -> asyncio.AbstractEventLoop:
    """Runs in a thread of its own, one for the process. Raises ImportError without fsspec."""
    from fsspec.asyn import get_loop

    with _lock:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            loop: asyncio.AbstractEventLoop = get_loop()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not isinstance(getattr(loop, "_default_executor", None), Unwaited):
            loop.set_default_executor(Unwaited())
    return loop
