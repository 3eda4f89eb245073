"""One door to the database: transactions that read, and transactions that write."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

from sqlalchemy import (
    Connection,
    Engine,
    PrimaryKeyConstraint,
    Row,
    UniqueConstraint,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from leasehold.errors import DatabaseBusy
from leasehold.store.tables import metadata

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of a query, its columns as attributes."""

_BUSY_TIMEOUT_MS = 10_000
_WRITES = "leasehold_writes"


class Violation(Exception):
    """A write broke the named constraint; the transaction is rolled back, and the caller knows what it means."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class Database:
    """SQLite or PostgreSQL behind two context managers.

    SQLite runs in WAL with `synchronous=FULL`: what is committed survives a loss of power. Writers of one process queue
    on a lock instead of SQLite's busy handler, which sleeps and is unfair.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot from its first statement on, and changes nothing."""
        with self.engine.connect() as connection:
            if not self._is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self, *, dry_run: bool = False) -> Iterator[Connection]:
        """A transaction that is whole when the block ends, or undone when it raises or is a dry run.

        Raises Violation for a broken constraint, DatabaseBusy when another writer did not finish in time.
        """
        try:
            with self._writer if self._is_sqlite else nullcontext(), self.engine.connect() as connection:
                connection = connection.execution_options(**{_WRITES: True})
                with connection.begin() as transaction:
                    yield connection
                    if dry_run:
                        transaction.rollback()
        except IntegrityError as error:
            raise Violation(_constraint(error)) from error
        except OperationalError as error:
            if _is_busy(error):
                raise DatabaseBusy(
                    "The database was busy with other changes for too long, and nothing was changed. Ask again.",
                    retry_after_s=1,
                ) from error
            raise

    def dispose(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


def lock(connection: Connection, key: int, *, shared: bool) -> None:
    """Until the transaction ends, others may lock `key` only if all share it. On SQLite, where one writes at a time,
    there is nothing to do. Source: PostgreSQL, "Advisory Locks"."""
    if connection.dialect.name == "postgresql":
        take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(take(key)))


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_size=20, max_overflow=60, pool_pre_ping=True)
    engine = create_engine(url, pool_size=20, max_overflow=60)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads first and writes later can fail with SQLITE_BUSY at the write, where no
        # waiting helps: the snapshot is old. Source: SQLite, "Isolation In SQLite" and "BEGIN IMMEDIATE".
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _constraint(error: IntegrityError) -> str:
    """The name of the broken constraint. PostgreSQL gives it; SQLite gives the columns of a unique one."""
    diagnostics = getattr(error.orig, "diag", None)
    if diagnostics is not None:
        return diagnostics.constraint_name or str(error.orig)
    text = str(error.orig)
    if match := re.fullmatch(r"UNIQUE constraint failed: (.+)", text):
        return _UNIQUE_BY_COLUMNS.get(match[1], text)
    if match := re.fullmatch(r"CHECK constraint failed: (.+)", text):
        return match[1]
    return text


def _unique_by_columns() -> dict[str, str]:
    names = {}
    for table in metadata.tables.values():
        rules = [each for each in table.constraints if isinstance(each, UniqueConstraint | PrimaryKeyConstraint)]
        for rule in (*rules, *(index for index in table.indexes if index.unique)):
            columns = ", ".join(f"{table.name}.{column.name}" for column in rule.columns)
            names[columns] = str(rule.name)
    return names


_UNIQUE_BY_COLUMNS = _unique_by_columns()


def _is_busy(error: OperationalError) -> bool:
    """True for SQLite's lock, PostgreSQL's deadlock (40P01) and lock timeout (55P03)."""
    if getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return True
    return getattr(error.orig, "sqlstate", None) in ("40P01", "40001", "55P03")
