"""Wakes whoever waits for a commit: in this process, and, over PostgreSQL, in all others on the same database."""

import logging
import threading
import uuid
from collections.abc import Callable

import psycopg
from sqlalchemy.exc import DBAPIError

from leasehold.store.database import Database
from leasehold.store.notices import Notices

log = logging.getLogger(__name__)

_POLL_S = 1.0
_AFTER_A_FAULT_S = 0.5


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

    def start(self) -> None:
        """From now on it also rings when a bell of another process does."""

    def stop(self) -> None:
        """No other process's rings come in or go out any more."""


class SharedBell(Bell):
    """A bell that rings in all processes on a PostgreSQL database, by NOTIFY.

    That is only a hint, which a broken connection loses; so each bell that was started also rings by itself every
    second. Rings that come close together go out as one. One that was not started, as in a command that ends soon,
    tells others before `ring` returns.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._name = str(uuid.uuid4())
        self._untold = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def ring(self) -> None:
        """Wakes all who wait, here and elsewhere."""
        super().ring()
        if self._threads:
            self._untold.set()
            return
        try:
            notices = Notices(self._database.engine)
            notices.tell(self._name)
            notices.close()
        except (psycopg.Error, DBAPIError) as error:
            log.info("Other processes hear of a change only when they look next: %s", error)

    def start(self) -> None:
        """See Bell."""
        self._stopping.clear()
        self._threads = [
            threading.Thread(target=self._repeat, args=(each,), name=name, daemon=True)
            for name, each in (("bell: tell", self._tell), ("bell: hear", self._hear))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """See Bell. What was rung before has gone out."""
        self._stopping.set()
        threads, self._threads = self._threads, []
        self._untold.set()
        super().ring()
        for thread in threads:
            thread.join(2 * _POLL_S)

    def _repeat(self, use: "Use") -> None:
        """Uses a connection until it breaks, and then another."""
        while not self._stopping.is_set():
            try:
                notices = Notices(self._database.engine)
                try:
                    use(notices)
                finally:
                    notices.close()
            except (psycopg.Error, DBAPIError) as error:
                log.warning("Changes by other processes are heard of by looking only, until this is over: %s", error)
                super().ring()
                self._stopping.wait(_AFTER_A_FAULT_S)

    def _tell(self, notices: Notices) -> None:
        while True:
            self._untold.wait()
            self._untold.clear()
            notices.tell(self._name)
            if self._stopping.is_set():
                return

    def _hear(self, notices: Notices) -> None:
        notices.listen()
        while not self._stopping.is_set():
            senders = set(notices.hear(_POLL_S))
            if senders != {self._name}:
                super().ring()


Use = Callable[[Notices], None]
