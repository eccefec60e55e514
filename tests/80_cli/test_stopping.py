"""A verb that writes is stopped by a signal once, whatever comes after it."""

import os
import signal

import pytest

from dmgfs.cli.stopping import stopped_by_signals

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def stopped(number: signal.Signals, done: list[str]) -> None:
    """A verb that gets a signal, and more of them while it takes away what it began."""
    with stopped_by_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            for each in SIGNALS:
                os.kill(os.getpid(), each)
            done.append("taken away")


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_taken_away_is_not_interrupted_by_a_second_signal(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    done: list[str] = []
    with pytest.raises(SystemExit) as caught:
        stopped(number, done)
    assert caught.value.code == 128 + number
    assert done == ["taken away"]
    assert [signal.getsignal(each) for each in SIGNALS] == before
