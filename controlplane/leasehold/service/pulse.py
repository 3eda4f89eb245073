"""Whether the loops of this process turn: whoever supervises it is told through `/healthz`."""

import threading
from collections.abc import Callable


class Pulse:
    """The loops that should turn, each with a function that says what is wrong with it, or None."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Callable[[], str | None]] = {}

    def watch(self, loop: object, trouble: Callable[[], str | None]) -> None:
        """From now on the loop should turn."""
        with self._lock:
            self._watched[id(loop)] = trouble

    def unwatch(self, loop: object) -> None:
        """It came to its end as it should."""
        with self._lock:
            self._watched.pop(id(loop), None)

    def troubles(self) -> list[str]:
        """What is wrong with those that should turn, a sentence each."""
        with self._lock:
            watched = list(self._watched.values())
        return sorted(trouble for ask in watched if (trouble := ask()) is not None)


pulse = Pulse()
"""This process's."""
