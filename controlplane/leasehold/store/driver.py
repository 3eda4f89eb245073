"""The driver beneath SQLAlchemy: for statements that go to it directly, and for PostgreSQL's pipeline.

In a pipeline statements go over without waiting for what the server says of the one before. Those whose answer nobody
needs yet cost no round trip of their own; what is wrong with one is raised by a later one, or at the pipeline's end.
Source: PostgreSQL, "Pipeline Mode"; psycopg, "Pipeline mode support".
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_PIPELINE = "leasehold_pipeline"


def read(connection: Connection, sql: str, values: Any) -> Any:
    """Executes a statement that answers rows; returns the driver's cursor, for `fetch`."""
    try:
        return _driver(connection).execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _told(connection, sql, error) from error


def fetch(connection: Connection, cursor: Any) -> list[Any]:
    """The rows of a cursor. In a pipeline this is what waits for them."""
    try:
        rows: list[Any] = cursor.fetchall()
    except connection.dialect.loaded_dbapi.Error as error:
        raise _told(connection, "a pipeline", error) from error
    return rows


def write(connection: Connection, sql: str, values: Any) -> None:
    """Executes a statement that answers nothing. On PostgreSQL the first one begins a pipeline, which lasts until the
    transaction ends, or SQLAlchemy executes something."""
    try:
        driver = _driver(connection)
        if connection.dialect.name != "sqlite" and not in_pipeline(connection):
            pipeline = driver.pipeline()
            pipeline.__enter__()
            connection.info[_PIPELINE] = pipeline
        driver.execute(sql, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _told(connection, sql, error) from error


def write_many(connection: Connection, sql: str, rows: Sequence[Any]) -> None:
    """The same statement for each of the rows, on SQLite."""
    try:
        _driver(connection).executemany(sql, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _told(connection, sql, error) from error


def in_pipeline(connection: Connection) -> bool:
    """True after a `write` on PostgreSQL, until `leave_pipeline`."""
    return _PIPELINE in connection.info


def leave_pipeline(connection: Connection) -> None:
    """Waits for what was sent, and raises what was wrong with it; harmless outside of a pipeline."""
    if in_pipeline(connection):
        try:
            connection.info.pop(_PIPELINE).__exit__(None, None, None)
        except connection.dialect.loaded_dbapi.Error as error:
            raise _told(connection, "a pipeline", error) from error


def drop_pipeline(connection: Connection) -> None:
    """The same for what is rolled back anyway: what else was wrong with it is of no interest."""
    if not connection.invalidated:
        with suppress(DBAPIError):
            leave_pipeline(connection)


def _driver(connection: Connection) -> Any:
    """sqlite3's or psycopg's connection."""
    return cast("Any", connection.connection.dbapi_connection)


def _told(connection: Connection, sql: str, error: Exception) -> Exception:
    """A driver's error as SQLAlchemy raises it. A broken connection is given up."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(cast("Any", error), connection.connection, None)
    if is_lost:
        connection.invalidate(error)
    found: Exception = DBAPIError.instance(
        sql, None, cast("Any", error), dialect.loaded_dbapi.Error, connection_invalidated=is_lost, dialect=dialect
    )
    return found
