"""Waiting for facts, not for time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.02


def wait_until(fact: Callable[[], T], timeout_s: float, what: str) -> T:
    """The first true result of `fact()`; raises TimeoutError that says `what` never came within `timeout_s` seconds.

    What `fact` raises goes through: a fact that cannot be asked yet has to say False.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = fact()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for this, and it never came: {what}")
        time.sleep(_PAUSE_S)
