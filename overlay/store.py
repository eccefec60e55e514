"""Where changes live: the contract between the overlay and its stores (RAM, file)."""

from typing import Protocol


class Store(Protocol):
    """Budget in bytes; see `overlay.ram` for the one in memory."""

    budget: int

    @property
    def used(self) -> int: ...
