"""Wakes whoever waits for a commit, in this process."""

import threading


class Bell:
    """A counter that threads wait on. Ring it after the commit: who wakes then sees what was committed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    @property
    def count(self) -> int:
        """How often it rang. Read it before looking at the database, so that no ring between look and wait is lost."""
        with self._condition:
            return self._count

    def ring(self) -> None:
        """Wakes all who wait."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Returns the count as soon as it differs from `seen`, else after `timeout_s` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen, timeout_s)
            return self._count
