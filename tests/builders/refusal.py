"""What a test expects to be refused, and with which errno."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(number: int) -> Iterator[None]:
    """The block must raise OSError(number)."""
    with pytest.raises(OSError, check=lambda failure: failure.errno == number):
        yield
