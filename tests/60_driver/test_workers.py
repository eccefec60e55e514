"""How many threads decode."""

import os

import pytest

from dmgfs.fuse.serve import MOST_WORKERS, WORKERS_VARIABLE, workers


@pytest.mark.parametrize(("processors", "threads"), [(1, 2), (2, 3), (4, 5), (64, 5)])
def test_one_for_each_processor_and_one_for_who_waits(monkeypatch, processors: int, threads: int) -> None:
    monkeypatch.delenv(WORKERS_VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert workers() == threads


@pytest.mark.parametrize(("told", "threads"), [("1", 1), ("8", 8), (str(MOST_WORKERS), MOST_WORKERS)])
def test_the_environment_may_say_it(monkeypatch, told: str, threads: int) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, told)
    assert workers() == threads


@pytest.mark.parametrize("told", ["", "0", "-1", "many", "²", str(MOST_WORKERS + 1), "9" * 5000])
def test_nonsense_in_the_environment_changes_nothing(monkeypatch, told: str) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert workers() == 3
