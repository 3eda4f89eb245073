"""What one process does for all: who has which duty, and what keeps a process that lost one from writing on.

A duty is held by a claim, which ends with the process that has it, and in the database by a term, which rises by one
whenever somebody takes the duty over. The claim decides who goes on; the term stops whoever has not heard of it.
"""

import fcntl
import hashlib
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from leasehold.errors import DatabaseUnavailable
from leasehold.store.database import Database, told_as_ours

_PRESENCE = "leasehold worker"
_LOCK_PATIENCE_S = 5
_LOCK_PAUSE_S = 0.05


class Claims(Protocol):
    """What this process claims for itself. One thread uses it. Raises DatabaseUnavailable when all is lost."""

    def take(self, names: Collection[str]) -> set[str]:
        """Claims what nobody has; returns the names that are this process's own now."""

    def give_back(self, names: Collection[str]) -> None:
        """Lets others have these."""

    def peers(self) -> int:
        """How many processes there are that would claim something, with this one. Asking it also shows others that
        this process lives; a claim is lost after `timeout_s` without."""

    def close(self) -> None:
        """Lets others have all."""


def claims(database: Database, timeout_s: float) -> Claims:
    """Raises DatabaseUnavailable on SQLite when another process has claims, and does not end."""
    if database.is_sqlite:
        return _FileClaims(database.engine.url.database)
    return _SessionClaims(database, timeout_s)


class _SessionClaims:
    """Advisory locks of one PostgreSQL session, which end with it: when its process is killed at once, and when the
    process stands still, or its machine is gone, after `idle_session_timeout`. Source: PostgreSQL 14 and later,
    "Advisory Locks" and "Client Connection Defaults".
    """

    def __init__(self, database: Database, timeout_s: float) -> None:
        with told_as_ours():
            self._connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            self._connection.detach()  # never another transaction's, and closed for good
            self._ask("SELECT set_config('idle_session_timeout', :most, false)", most=f"{round(timeout_s * 1000)}ms")
            self._ask("SELECT pg_advisory_lock_shared(:key)", key=_key(_PRESENCE))
        except BaseException:
            self.close()
            raise

    def take(self, names: Collection[str]) -> set[str]:
        """See Claims."""
        return {name for name in names if self._ask("SELECT pg_try_advisory_lock(:key)", key=_key(name))}

    def give_back(self, names: Collection[str]) -> None:
        """See Claims."""
        for name in names:
            self._ask("SELECT pg_advisory_unlock(:key)", key=_key(name))

    def peers(self) -> int:
        """See Claims."""
        count: int = self._ask(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND (classid::bigint << 32 | objid::bigint) = :key",
            key=_key(_PRESENCE),
        )
        return count

    def close(self) -> None:
        """See Claims."""
        # PostgreSQL ends the session a moment later only. One that is broken has no locks any more.
        with suppress(DBAPIError):
            if not self._connection.invalidated:
                self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
        self._connection.close()

    def _ask(self, statement: str, **parameters: object) -> Any:
        with told_as_ours():
            return self._connection.execute(text(statement), parameters).scalar_one()


class _FileClaims:
    """All there is, for the one process that has the lock beside the SQLite file. It ends with the process."""

    def __init__(self, path: str | None) -> None:
        self._lock = None if not path or path == ":memory:" else Path(f"{path}.lock").open("w")  # noqa: SIM115
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while self._lock is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._lock.close()
                    raise DatabaseUnavailable(
                        f"Another `leasehold serve` runs on the database {path}, and SQLite is for one. End it first, "
                        "or use PostgreSQL, where any number can run."
                    ) from None
                time.sleep(_LOCK_PAUSE_S)  # one that was killed a moment ago may not have ended yet

    def take(self, names: Collection[str]) -> set[str]:
        """See Claims."""
        return set(names)

    def give_back(self, names: Collection[str]) -> None:
        """See Claims."""

    def peers(self) -> int:
        """See Claims."""
        return 1

    def close(self) -> None:
        """See Claims."""
        if self._lock is not None:
            self._lock.close()


def _key(name: str) -> int:
    """An advisory lock's: 63 bits, of which two names share none in practice."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
