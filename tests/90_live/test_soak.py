"""The rule by which `scripts/test-soak` calls a daemon's needs flat passes what wavers and refuses what grows."""

import random
from collections.abc import Callable

import pytest
from exercise.flatness import Sample, judged

HOUR = 3600.0


def two_hours(change: Callable[[Sample], Sample], file: int = 0) -> list[str]:
    """What is wrong with two hours of samples that waver by some MiB, each changed by `change`."""
    chance = random.Random(1)
    samples = []
    for minute in range(120):
        anonymous = (30 << 20) + chance.randrange(3 << 20)
        sample = Sample(
            60.0 * minute, "m", 7, minute % 2 == 0, anonymous + (10 << 20), anonymous, 0, 0, file, 13, 5, minute
        )
        samples.append(change(sample))
    return judged(samples, 2 * HOUR)[1]


def test_what_wavers_is_flat():
    assert two_hours(lambda sample: sample) == []
    assert two_hours(lambda sample: sample, file=7 << 20) == []


def test_what_grows_in_the_warm_up_only_is_flat():
    assert two_hours(lambda sample: sample._replace(anonymous=min(sample.anonymous, int(sample.seconds) << 15))) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            lambda sample: sample._replace(anonymous=sample.anonymous + int(sample.seconds * (3 << 20) / HOUR)),
            "grows",
        ),
        (lambda sample: sample._replace(anonymous=sample.anonymous + (sample.seconds > 6600) * (9 << 20)), "rose"),
        (lambda sample: sample._replace(fds=13 + (sample.seconds > 7000)), "fds"),
        (lambda sample: sample._replace(threads=5 + (sample.seconds > 7000)), "threads"),
        (lambda sample: sample._replace(used=sample.requests), "empty shadow"),
        (lambda sample: sample._replace(file=int(sample.seconds) << 12), "shadow file"),
    ],
)
def test_what_grows_is_noticed(change, word):
    assert any(word in problem for problem in two_hours(change))
