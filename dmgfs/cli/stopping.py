"""How a verb that writes a file is stopped: SIGTERM and SIGHUP end it as an exception does, so that what was begun is taken
away."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the verb as an exception does, so that what was begun is taken away."""
    former: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    for number in _SIGNALS:
        former[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for other in _SIGNALS:  # a terminal that is closed tells it twice; what is being taken away is not left half done
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)
