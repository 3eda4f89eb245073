"""Lists that are read in pages."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Value = TypeVar("Value")
AT_ONCE = 1000


class Read(Protocol[Value]):
    """A list of the service layer, in its order."""

    def __call__(self, *, limit: int, after: Any) -> list[Value]:
        """Up to `limit` values behind the one with the key `after`; from the first one if that is None."""


def all_of(read: Read[Value], key: Callable[[Value], object]) -> list[Value]:
    """Every page together; `key` says of a value what the next page begins behind."""
    found: list[Value] = []
    while page := read(limit=AT_ONCE, after=key(found[-1]) if found else None):
        found += page
    return found
