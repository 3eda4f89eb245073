"""One door to the database: transactions that read, and transactions that write."""

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

from sqlalchemy import (
    Connection,
    Engine,
    NestedTransaction,
    PrimaryKeyConstraint,
    Row,
    UniqueConstraint,
    bindparam,
    create_engine,
    event,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from leasehold.errors import DatabaseBusy, DatabaseUnavailable
from leasehold.store import driver
from leasehold.store.driver import drop_pipeline, leave_pipeline
from leasehold.store.tables import duties, metadata

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of a query, its columns as attributes."""

log = logging.getLogger(__name__)

_BUSY_TIMEOUT_MS = 10_000
_AGAIN_S = 0.02
_STALLED_MS = 10_000
_POOL = 16
_CACHE_KIB = 16_000
_WAL_PAGES = 10_000
_PAGE_OCTETS = 4096
_DURABLE = "leasehold_durable"
_WRITES = "leasehold_writes"
_LAST = "leasehold_last"
_SYNCHRONOUS = "leasehold_synchronous"

Finish = Callable[[Connection, list[Any]], None]


class Violation(Exception):
    """A write broke the named constraint; the transaction is rolled back, and the caller knows what it means."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class DutyLost(Exception):
    """Another process has taken a duty over: whoever had it stops, and nothing was written."""


class Database:
    """SQLite or PostgreSQL behind two context managers.

    SQLite runs in WAL with `synchronous=FULL`: what is committed survives a loss of power. Writers of one process queue
    on a lock instead of SQLite's busy handler, which sleeps and is unfair.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot from its first statement on, and changes nothing. Raises DatabaseBusy,
        and DatabaseUnavailable when the database does not answer."""
        with told_as_ours(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For one prepared statement that reads: on PostgreSQL that is one round trip, where `read` takes three. Raises
        what `read` does."""
        with told_as_ours(), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    @contextmanager
    def write(self, *, dry_run: bool = False, durable: bool = True) -> Iterator[Connection]:
        """A transaction that is whole when the block ends, or undone when it raises or is a dry run. One that is not
        `durable` is not waited for until it is on disk: a loss of power may undo it, but none before it.

        Raises Violation for a broken constraint, DatabaseBusy when another writer did not finish in time,
        DatabaseUnavailable when the database does not answer; when that was at the very end, the change may have been
        made.
        """
        with (
            told_as_ours(),
            self._writer if self.is_sqlite else nullcontext(),
            self.engine.connect() as connection,
        ):
            last: dict[Finish, list[Any]] = {}
            connection = connection.execution_options(**{_WRITES: True, _DURABLE: durable, _LAST: last})
            with connection.begin() as transaction:
                if not durable and not self.is_sqlite:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                try:
                    yield connection
                    if not dry_run:
                        for finish, items in last.items():
                            finish(connection, items)
                        leave_pipeline(connection)
                finally:
                    drop_pipeline(connection)
                if dry_run:
                    transaction.rollback()

    def joined(self, connection: Connection) -> "Database":
        """The same database for whoever is to be part of a transaction of `write`: see JoinedDatabase."""
        return JoinedDatabase(self, connection)

    def fenced(self, duty: str, term: int) -> "Database":
        """The same database for whoever has a duty: see FencedDatabase."""
        return FencedDatabase(self, duty, term)

    def require_duty(self) -> None:
        """Raises DutyLost for one that is fenced when its term is over."""

    def make_room(self) -> None:
        """For a process that will write for long: SQLite's write-ahead log gets the size that it grows to. A commit
        that makes a file longer waits for the file system's own journal too, and so for whatever else is written there;
        one that writes over what is there already takes a third of the time."""
        if not self.is_sqlite:
            return
        # Pages that do not fit into the cache go into the log, and stay as room when they are rolled back.
        octets = _WAL_PAGES * _PAGE_OCTETS + _CACHE_KIB * 1024
        try:
            with self.write(dry_run=True) as connection:
                connection.exec_driver_sql("CREATE TABLE room (octets BLOB)")
                connection.exec_driver_sql("INSERT INTO room VALUES (zeroblob(?))", (octets,))
        except DatabaseUnavailable as error:
            log.warning("The disk has no room for a write-ahead log of %d octets: %s", octets, error)

    def dispose(self) -> None:
        """Closes every connection."""
        self.engine.dispose()


class FencedDatabase(Database):
    """A database to which a process can write as long as a duty is its own, and that raises DutyLost afterwards.

    Each transaction that writes holds the duty's row from its beginning to its end, so that nobody takes the duty over
    in the middle of one: what a process of an earlier term commits is there before the next one begins.
    """

    def __init__(self, database: Database, duty: str, term: int) -> None:
        self.engine, self.is_sqlite, self._writer = database.engine, database.is_sqlite, database._writer
        self._duty, self._term = duty, term

    @contextmanager
    def write(self, *, dry_run: bool = False, durable: bool = True) -> Iterator[Connection]:
        """See Database; raises DutyLost, with nothing written."""
        with super().write(dry_run=dry_run, durable=durable) as connection:
            self._require(connection, lock=True)
            yield connection

    def require_duty(self) -> None:
        """Raises DutyLost when the term is over."""
        with self.read() as connection:
            self._require(connection, lock=False)

    def _require(self, connection: Connection, *, lock: bool) -> None:
        present = connection.execute(_TERM_LOCKED if lock else _TERM, {"duty": self._duty}).scalar_one_or_none()
        if present != self._term:
            raise DutyLost(f"{self._duty}: term {self._term} is over, it is {present} now")


_TERM = select(duties.c.term).where(duties.c.name == bindparam("duty"))
_TERM_LOCKED = _TERM.with_for_update(read=True)


def has_more_to_do(connection: Connection) -> bool:
    """True when `at_end` was called in this transaction."""
    return bool(connection.get_execution_options()[_LAST])


class JoinedDatabase(Database):
    """A database whose transactions are parts of one that is under way: what they change is there when that ends, or
    with it undone."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.engine, self.is_sqlite, self._writer = database.engine, database.is_sqlite, database._writer
        self._connection = connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See Database; what the transaction changed is seen."""
        yield self._connection

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """See Database; what the transaction changed is seen."""
        yield self._connection

    @contextmanager
    def write(self, *, dry_run: bool = False, durable: bool = True) -> Iterator[Connection]:
        """See Database; undone by itself when it raises or is a dry run."""
        with told_as_ours(), part_of(self._connection) as part:
            yield self._connection
            if dry_run:
                part.rollback()


@contextmanager
def part_of(connection: Connection) -> Iterator[NestedTransaction]:
    """A part of a transaction that is undone by itself when it raises or is rolled back, with what it put off to the
    end."""
    last = connection.get_execution_options()[_LAST]
    before = {finish: list(items) for finish, items in last.items()}
    savepoint = connection.begin_nested()
    try:
        with savepoint:
            yield savepoint
            kept = savepoint.is_active
    except BaseException:
        kept = False
        raise
    finally:
        if not kept:
            last.clear()
            last.update(before)


def at_end(connection: Connection, finish: Finish, item: object) -> None:
    """Calls `finish` when all else of a `write` is done, once with all its items, and never for what is undone. For
    what other transactions queue on: whoever holds that must not wait for anything else."""
    connection.get_execution_options()[_LAST].setdefault(finish, []).append(item)


def lock(connection: Connection, key: int, *, shared: bool) -> None:
    """Until the transaction ends, others may lock `key` only if all share it. On SQLite, where one writes at a time,
    there is nothing to do. Source: PostgreSQL, "Advisory Locks"."""
    if connection.dialect.name == "postgresql":
        driver.write(connection, f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}(%s::bigint)", (key,))


def _server_engine(url: str) -> Engine:
    engine = create_engine(url, pool_size=_POOL, max_overflow=_POOL, pool_use_lifo=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # A process that stands still in the middle of a transaction must not keep others from the rows that it locked.
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET idle_in_transaction_session_timeout = {_STALLED_MS}; SET lock_timeout = {_BUSY_TIMEOUT_MS}"
            )
        connection.commit()

    @event.listens_for(engine, "before_cursor_execute")
    def wait(connection: Connection, *_: object) -> None:
        # SQLAlchemy looks at an answer as soon as it has sent a statement.
        leave_pipeline(connection)

    return engine


def _set(connection: sqlite3.Connection, pragma: str) -> None:
    """SQLite's busy handler does not wait where two processes turn a new file to WAL at once; so this does."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return _server_engine(url)
    engine = create_engine(url, pool_size=20, max_overflow=60, pool_use_lifo=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{_CACHE_KIB}",  # most of a transaction of a thousand events, so that it need not spill
            f"wal_autocheckpoint={_WAL_PAGES}",  # what is changed often is then written to the database file once
        ):
            _set(connection, pragma)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads first and writes later can fail with SQLITE_BUSY at the write, where no
        # waiting helps: the snapshot is old. Source: SQLite, "Isolation In SQLite" and "BEGIN IMMEDIATE".
        options = connection.get_execution_options()
        if options.get(_WRITES, False):
            synchronous = "FULL" if options.get(_DURABLE, True) else "NORMAL"
            if connection.info.get(_SYNCHRONOUS) != synchronous:
                connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
                connection.info[_SYNCHRONOUS] = synchronous
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


@contextmanager
def told_as_ours() -> Iterator[None]:
    """Turns what SQLAlchemy raises into what callers can be told; a fault of ours goes through."""
    try:
        yield
    except IntegrityError as error:
        raise Violation(_constraint(error)) from error
    except NoConnectionFree as error:
        raise DatabaseBusy(
            "Too many requests use the database at once, and nothing was changed. Ask again.", retry_after_s=1
        ) from error
    except DBAPIError as error:
        if _is_busy(error):
            raise DatabaseBusy(
                "The database was busy with other changes for too long, and nothing was changed. Ask again.",
                retry_after_s=1,
            ) from error
        if _is_away(error):
            raise DatabaseUnavailable(
                f"The database does not answer: {str(error.orig).strip()}. It is asked again by itself; a change that "
                "you asked for may have been made or not: ask again when it is back.",
                retry_after_s=1,
            ) from error
        raise


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


def _is_busy(error: DBAPIError) -> bool:
    """True for SQLite's lock, PostgreSQL's deadlock (40P01) and lock timeout (55P03)."""
    if getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return True
    return getattr(error.orig, "sqlstate", None) in ("40P01", "40001", "55P03")


def _is_away(error: DBAPIError) -> bool:
    """True for a database that cannot be had at present. psycopg raises OperationalError without an SQLSTATE for a
    connection that cannot be made or broke; 57P01 to 57P03 say that the server ends or begins, 53300 that it has no
    connection left. Source: PostgreSQL, "PostgreSQL Error Codes"."""
    if getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_FULL")):
        return True
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", "none")
    return isinstance(error, OperationalError) and (state is None or state.startswith(("08", "57P", "53")))
